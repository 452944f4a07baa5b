"""Scores by seed: all numbers of the report are computed again from this file.

Where runs have examples.npz, from these too, and from nothing else.
"""

import csv
import json

import numpy as np
import pytest
from fake_sweep import COPY, QUICKSTART, TEXT, edit, read_page, write_sweep
from test_crossed import make

from experiments.reporting import crossed, verdicts
from experiments.reporting.page import write_report
from experiments.reporting.statistics import estimate
from experiments.reporting.text import plus_minus

CELL = ("group", "length", "measure", "part")


def read(path):
  return list(csv.DictReader(path.read_text().splitlines()))


def columns(rows):
  """Returns {(group, length, measure, part): {variant: its rows}}."""
  found = {}
  for row in rows:
    column = found.setdefault(tuple(row[name] for name in CELL), {})
    column.setdefault(row["variant"], []).append(row)
  return found


def differences_of(workdir, rows_of):
  """Returns the function that reads how two variants differ on single examples."""

  def scores(variant):
    row = rows_of[variant][0]
    path = workdir / "runs" / row["id"] / "examples.npz"
    name = f"value/{row['length']}/{row['measure']}/{row['part']}"
    arrays = np.load(path) if path.exists() else {}
    return arrays[name].astype(np.float64) if name in arrays else None

  def test_sets(pairs):
    found = {}
    for pair in pairs:
      first, second = (scores(variant) for variant in pair)
      if first is not None and second is not None:
        found[pair] = crossed.crossed(first - second)
    return found

  return test_sets


def column_of(workdir, rows_of):
  """Returns a column of scores to judge, from its rows by variant."""
  first = next(iter(rows_of.values()))[0]
  baseline = first["baseline"]
  targets = {variant: rows[0]["target"] for variant, rows in rows_of.items()}
  inputs = {rows[0]["inputs"] for rows in rows_of.values()}
  scores = {
    variant: {int(r["seed"]): float(r["value"]) for r in rows if r["value"]}
    for variant, rows in rows_of.items()
  }
  excused = {}
  for variant, rows in rows_of.items():
    reasons = [row["reason"] for row in rows if row["reason"]]
    if any("diverged" in reason for reason in reasons):
      excused[variant] = "diverged", ""
    elif reasons:
      excused[variant] = "undefined", ""
  pairs = [(variant, baseline) for variant in rows_of]
  unlike = {
    pair: "other targets or inputs"
    for pair in pairs
    if len(inputs) > 1 or targets[pair[0]] != targets[baseline]
  }
  low, high = (float(first[x]) if first[x] else None for x in ("low", "high"))
  examples = [int(r[0]["examples"]) for r in rows_of.values() if r[0]["examples"]]
  return verdicts.Column(
    scores=scores,
    better=first["better"],
    pairs=pairs,
    primary=[pair for pair in pairs if first["primary"] == "True"],
    excused=excused,
    unlike=unlike,
    best=True,
    baseline=baseline,
    resolution=1 / min(examples) if examples and (low, high) == (0, 1) else 0.0,
    test_sets=differences_of(workdir, rows_of),
    bounds=(low, high),
    margin=float(first["margin"]) if first["margin"] else None,
  )


def assert_equal(number, text):
  """Compares a number, or None, with its text in a CSV file, to the last bit."""
  assert ("" if number is None else repr(number)) == text


def check(workdir):
  """Recomputes results.csv from results_by_seed.csv; returns the verdicts."""
  rows = read(workdir / "results_by_seed.csv")
  found = {cell: column_of(workdir, rows_of) for cell, rows_of in columns(rows).items()}
  judgements = {
    (*cell, variant): judgement
    for cell, judged in verdicts.judge(found, rows[0]["baseline"]).items()
    for (variant, _), judgement in judged.of.items()
  }
  page = read(workdir / "results.csv")
  assert len(page) == len(judgements)
  for row in page:
    found = judgements[*(row[name] for name in CELL), row["variant"]]
    assert found.verdict == row["verdict"], row
    for name, part in (("mean", found.estimate), ("difference", found.difference)):
      assert_equal(part.mean, row[name])
      assert_equal(part.low, row[f"{name}_low"])
      assert_equal(part.high, row[f"{name}_high"])
    assert_equal(found.p, row["p"])
    assert_equal(found.p_holm, row["p_holm"])
    assert_equal(found.p_equivalent, row["p_equivalent"])
    assert_equal(found.more and found.more.point, row["more_seeds"])
    assert_equal(found.examples_error, row["examples_error"])
  return {row["verdict"] for row in page}


def test_the_page_is_computed_again_from_the_rows(quick):
  said = {"baseline", "better", "worse", "did not resolve", "exploratory"}
  assert check(quick) == said | {"undefined"}
  page = read_page(quick)
  main = {row[0]: row for row in page.tables["main_text"]}
  for variant in ("none", "rope"):
    values = [
      float(row["value"])
      for row in read(quick / "results_by_seed.csv")
      if (row["group"], row["variant"], row["length"], row["part"])
      == ("text", variant, "64", "mean")
    ]
    assert main[variant][1] == plus_minus(estimate(values, (0.0, None)))
    assert float(main[variant][1].split(" ")[0]) == round(np.mean(values), 3)


@pytest.mark.usefixtures("undrawn")
def test_with_the_scores_of_single_examples_too(tmp_path):
  workdir = make(tmp_path, example=1.0)
  write_report(workdir)
  assert {"did not resolve", "exploratory"} <= check(workdir)
  errors = {x["examples_error"] for x in read(workdir / "results.csv")}
  assert len(errors - {"", "0.0"}) > 20


def test_there_is_a_row_for_each_seed(quick):
  rows = read(quick / "results_by_seed.csv")
  assert len(rows) == 3 * len(read(quick / "results.csv"))
  (row,) = [
    row
    for row in rows
    if (row["id"], row["seed"], row["length"], row["measure"], row["part"])
    == ("copy-07", "2", "256", "accuracy", "mean")
  ]
  assert (row["group"], row["variant"], row["times_trained"]) == (
    "copy",
    "sinusoidal",
    "4.0",
  )
  assert (row["better"], row["reason"], row["baseline"]) == ("higher", "", "none")
  result = json.loads((quick / "runs/copy-07/result.json").read_text())
  (score,) = [
    score
    for score in result["scores"]
    if (score["seed"], score["length"], score["measure"], score["part"])
    == (2, 256, "accuracy", "mean")
  ]
  assert float(row["value"]) == score["value"]


@pytest.mark.usefixtures("undrawn")
def test_lost_seeds_other_targets_and_other_data_are_in_the_rows(tmp_path):
  few = {"text": ("bits_per_byte", TEXT), "copy": ("accuracy", COPY)}
  workdir = write_sweep(tmp_path, few)
  result = json.loads((workdir / "runs/text-04/result.json").read_text())
  for score in result["scores"]:
    if score["seed"] == 1:
      score |= {"value": None, "reason": "diverged at step 230"}
  edit(workdir, "text-04", scores=result["scores"], diverged={"1": 230})
  for run in sorted((workdir / "runs").glob("text-*")):
    other = "b" if run.name == "text-05" else "a"
    prints = {
      str(n): {"fingerprint": other, "examples": 1, "targets": 1}
      for n in (64, 128, 256, 512)
    }
    edit(workdir, run.name, targets=prints)
  edit(workdir, "copy-08", data={"fingerprint": "0" * 8})
  plan = json.loads((workdir / "sweep.json").read_text())
  plan["comparisons"] = {"margin": {"bits_per_byte": 0.3}}
  (workdir / "sweep.json").write_text(json.dumps(plan))
  write_report(workdir)
  assert {"diverged", "not compared", "undefined", "equivalent"} <= check(workdir)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("value", ["=cmd()", float("nan")])
def test_a_strangers_value_is_no_formula_and_no_number(tmp_path, value):
  workdir = write_sweep(tmp_path, {"text": QUICKSTART["text"]})
  result = json.loads((workdir / "runs/text-00/result.json").read_text())
  result["scores"][0]["value"] = value
  edit(workdir, "text-00", scores=result["scores"], group="=1")
  write_report(workdir)
  assert read(workdir / "results_by_seed.csv")[0]["value"] == ""
