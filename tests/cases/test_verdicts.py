"""Wrong verdicts over sound scores, as reported, and what is right.

Reported: a baseline that lost a seed makes the others better by what is left; unequal
seeds are compared in silence; a difference in rounding is called best; all strings
against none, five times, does not resolve while a noisier variant does; an interval of
an accuracy reaches 1.8. Right: no verdict, one over the seeds that both have, no best,
a verdict from the scored examples, and intervals inside 0 and 1.
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

  def judge(name, examples=None):
    case = CASES[name]
    measure = "bits_per_byte" if case["better"] == "lower" else "accuracy"
    variants = {label: (0.5,) for label in case["scores"]}
    write_sweep(tmp_path, {"case": (measure, variants)}, lengths=(64,))
    for n, values in enumerate(case["scores"].values()):
      place = {"length": 64, "measure": measure, "part": "mean"}
      scores = [{"seed": s, "value": x, **place} for s, x in enumerate(values)]
      measures = [{"name": measure, "better": case["better"]}]
      seeds = [score["seed"] for score in scores]
      facts = {"seeds": seeds, "scores": scores, "measures": measures}
      if examples:
        print_ = {"fingerprint": "a", "examples": examples, "targets": 8 * examples}
        facts["targets"] = {"64": print_}
      edit(tmp_path, f"case-{n:02d}", **facts)
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
  assert rows["a"].reason == "over seeds 0, 1, 2, which it shares with none"


def test_rounding_is_not_best(judged):
  found, rows = judged("rounding")
  assert rows["a"].verdict == "did not resolve"
  lead, _ = summary.answer(found, "case")
  assert lead == "At the training length a and none are level: 3.100 bits per byte."


def test_every_string_against_none_resolves(judged):
  _, rows = judged("every string against none", examples=128)
  assert {rows[x].verdict for x in ("t5", "alibi", "rope", "sinusoidal")} == {"worse"}
  # Scores are integers in the case, but no measure has others than shares of examples.
  assert rows["t5"].difference.interval == (-1.0, pytest.approx(-0.99, abs=0.01))


def test_perfect_is_not_weaker_than_nearly_perfect(judged):
  found, rows = judged("perfect is not weaker than nearly perfect", examples=640)
  assert rows["a"].verdict == rows["b"].verdict == "better"
  assert rows["a"].p <= rows["b"].p
  lead, _ = summary.answer(found, "case")
  assert (
    "a and b lead, not resolved from each other: 1.000 and 0.974 accuracy" in lead
  ), "0.026 of 1 is within the noise of b"


def test_without_a_record_of_the_examples_a_sign_test_stands_in(judged):
  _, rows = judged("every string against none")
  assert {row.p for row in rows.values() if row.label != "none"} == {2.0**-4}
  assert "leaves no spread to test" in rows["t5"].reason


def test_intervals_of_a_share_stay_inside(judged):
  _, rows = judged("bounded", examples=20)
  for row in rows.values():
    assert row.estimate.low >= 0 and row.estimate.high <= 1
  low, high = rows["a"].difference.interval
  assert -1 <= low < rows["a"].difference.mean < high == 1
