"""Wrong verdicts over sound scores, as reported, and what is right.

Reported: a baseline that lost a seed makes the others better by what is left; unequal
seeds are compared in silence; a difference in rounding is called best. Right: no
verdict, one over the seeds that both have, and no best.

Three more cases of verdicts.json are about the power of the test, not about a wrong
verdict; `test_the_test_is_weak_where_nothing_varies` keeps them in sight.
"""

import json
import pathlib

import pytest
from fake_sweep import edit, write_sweep

from experiments.reporting import comparisons, summary

CASES = {
  case["name"]: case
  for case in json.loads(pathlib.Path(__file__).with_name("verdicts.json").read_text())[
    "cases"
  ]
}


@pytest.fixture
def judged(tmp_path):
  """Makes a sweep with the scores of a case; returns its findings and its rows."""

  def judge(name):
    case = CASES[name]
    measure = "bits_per_byte" if case["better"] == "lower" else "accuracy"
    variants = {label: (0.5,) for label in case["scores"]}
    write_sweep(tmp_path, {"case": (measure, variants)}, lengths=(64,))
    for n, values in enumerate(case["scores"].values()):
      place = {"length": 64, "measure": measure, "part": "mean"}
      scores = [{"seed": s, "value": x, **place} for s, x in enumerate(values)]
      measures = [{"name": measure, "better": case["better"]}]
      seeds = [score["seed"] for score in scores]
      edit(tmp_path, f"case-{n:02d}", seeds=seeds, scores=scores, measures=measures)
    found = comparisons.find(tmp_path)
    return found, {row.label: row for row in found.of("case", measure)}

  return judge


def test_a_baseline_that_lost_a_seed_judges_nobody(judged):
  found, rows = judged("the baseline lost a seed")
  assert {rows[label].verdict for label in "ab"} == {"not compared"}
  assert "no finite value in seeds 2" in rows["a"].reason
  assert rows["a"].difference.count == 0 and rows["a"].p is None
  lead, _ = summary.answer(found, "case")
  assert "better" not in lead and "the baseline none is undefined here" in lead


def test_unequal_seeds_are_compared_over_those_of_both(judged):
  found, rows = judged("unequal seeds")
  assert rows["a"].seeds == rows["none"].seeds == (0, 1, 2)
  mean, none = rows["a"].estimate.mean, rows["none"].estimate.mean
  assert mean == pytest.approx((2.95 + 2.97 + 2.955) / 3)
  assert mean - none == pytest.approx(rows["a"].difference.mean)
  assert rows["a"].verdict == "better"
  assert rows["a"].reason == "over seeds 0, 1, 2, which it shares with the baseline"


def test_rounding_is_not_best(judged):
  found, rows = judged("rounding")
  assert rows["a"].verdict == "did not resolve"
  lead, _ = summary.answer(found, "case")
  assert lead == "At the training length a and none are level: 3.100 bits per byte."


@pytest.mark.parametrize(
  "name", ["every string against none", "perfect is not weaker than nearly perfect"]
)
def test_the_test_is_weak_where_nothing_varies(judged, name):
  """No verdict is wrong, but five equal differences resolve nothing and say so."""
  _, rows = judged(name)
  constant = [row for row in rows.values() if row.difference.half is None]
  weak = [row for row in constant if row.verdict == "did not resolve"]
  assert weak and all("leaves no spread to test" in row.reason for row in weak)
