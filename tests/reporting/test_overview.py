"""The page's first screen and the cards of runs, without a browser."""

import json
import math

import pytest
from fake_sweep import TEXT, edit, write_sweep

from experiments.reporting import (
  comparisons,
  hints,
  overview,
  run_cards,
  scored_examples,
  summary,
)

MEANS = {label: TEXT[label] for label in ("none", "alibi", "rope")}


@pytest.fixture
def sweep(tmp_path):
  return write_sweep(tmp_path, {"text": ("bits_per_byte", MEANS)})


def first_screen(workdir):
  return dict(overview.overview(comparisons.find(workdir)))


def test_how_sure_counts_verdicts_seeds_and_examples(sweep):
  found = comparisons.find(sweep)
  judged = [c.verdict for column in overview.main(found, "text") for c in column]
  resolved = judged.count("better") + judged.count("worse")
  (line,) = first_screen(sweep)["How sure is that?"]
  assert line == (f"text: {resolved} of 4 comparisons are resolved; 3 seeds a variant.")


def test_missing_runs_and_lost_seeds_are_said_with_it(sweep):
  (sweep / "runs/text-02/result.json").unlink()
  edit(sweep, "text-02", "status.json", state="failed", error="out of memory")
  edit(sweep, "text-01", diverged={"1": 230})
  lines = first_screen(sweep)["How sure is that?"]
  assert "1 planned runs have no result." in lines
  assert "1 seeds diverged and are in no verdict." in lines


def test_more_seeds_have_a_cost_and_a_gain(sweep):
  cost, gain, how = first_screen(sweep)["What would make it surer?"]
  # Each run took 3.21 + 16.9 + 2.4 seconds for its three seeds.
  assert "Twice the seeds, 6 instead of 3" in cost and "68 s" in cost
  assert "(23 s a seed for all 3 runs)" in cost
  # t at 5 and 2 degrees of freedom, over the roots of 6 and 3: 2.571 and 4.303.
  assert gain.startswith(f"Intervals would be about {2.571 / 4.303 / math.sqrt(2):.2f}")
  assert how == "Run it with --config.seeds='(0, 1, 2, 3, 4, 5)'."


def test_the_seeds_to_add_are_none_of_those_there(tmp_path):
  means = {"text": ("bits_per_byte", MEANS)}
  workdir = write_sweep(tmp_path, means, seeds=(10, 11, 12))
  *_, how = first_screen(workdir)["What would make it surer?"]
  assert how == "Run it with --config.seeds='(10, 11, 12, 13, 14, 15)'."


def test_too_few_examples_come_before_seeds(sweep, monkeypatch):
  monkeypatch.setattr(scored_examples, "needed", lambda findings, group: 900)
  _, gain, _ = first_screen(sweep)["What would make it surer?"]
  assert gain.startswith("text: more scored examples before more seeds")


def test_of_three_that_lead_two_may_be_resolved_from_each_other(tmp_path):
  means = {"none": (3.4, 3.9), "a": (2.6, 2.5), "b": (2.61, 2.51), "c": (2.62, 2.52)}
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", means)}, lengths=(64, 512))
  findings = comparisons.find(workdir)
  column = findings.main("text")[-1]
  assert {*findings.leaders[column]} == {"a", "b", "c"}
  lead, _ = summary.answer(findings, "text")
  ranked = sorted(
    (c for c in findings.cell(column) if c.label != "none"),
    key=lambda c: c.estimate.mean,
  )
  top, *behind = [c.label for c in ranked]
  assert f"{top} leads, not resolved from {behind[0]} and {behind[1]}: " in lead


def test_one_seed_and_no_run_are_said(tmp_path):
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", MEANS)}, seeds=(0,))
  lines = first_screen(workdir)["What would make it surer?"]
  assert "One seed has no interval: nothing is resolved without a second." in lines
  for run in (workdir / "runs").iterdir():
    (run / "result.json").unlink()
    edit(workdir, run.name, "status.json", state="running")
  found = first_screen(workdir)
  assert found["What would make it surer?"] == [
    "The first finished run will tell what a seed costs."
  ]


def test_what_was_not_tuned_or_matched_is_said(sweep):
  edit(sweep, "text-01", parameters=231_424)
  tuned, matched = first_screen(sweep)["What was not tuned or matched?"]
  assert tuned.startswith("Tuned: nothing; every variant has the same optimizer")
  assert "not equal: parameters (largest 2 times the smallest)." in matched


def test_a_cell_has_the_values_of_its_seeds_behind_it(sweep):
  found = comparisons.find(sweep)
  columns = overview.main(found, "text")
  shown = hints.hints(found, columns, 3)
  run = {run.label: run for run in found.sweep.runs}
  scores = run["rope"].values(64, "bits_per_byte", "mean")
  against = run["none"].values(64, "bits_per_byte", "mean")
  assert shown[2, 1].startswith(f"seed 0 {scores[0]:.3f}, seed 1 {scores[1]:.3f}")
  assert shown[2, 2].startswith(f"seed 0 −{against[0] - scores[0]:.3f}")
  assert shown[2, 3].startswith("p ") and " corrected, " in shown[2, 3]
  assert (0, 1) in shown and (0, 2) not in shown  # the baseline's own difference


def test_curves_of_a_group_have_the_same_axes(sweep):
  with open(sweep / "runs/text-01/metrics.jsonl", "a") as log:
    log.write(json.dumps({"step": 800, "seed": 0, "loss": float("nan")}) + "\n")
  cards = run_cards.cards(comparisons.find(sweep))
  assert [card.run.label for card in cards] == ["none", "alibi", "rope"]
  assert len({card.span for card in cards}) == 1
  assert cards[0].span.startswith("steps 40 to 400, loss ")
  for card in cards:
    assert len(card.lines) == 3
    xs, ys = zip(*(p.split(",") for p in " ".join(card.lines).split()), strict=True)
    assert min(map(float, xs)) == 0 and max(map(float, xs)) == run_cards.WIDTH
    assert 0 <= min(map(float, ys)) and max(map(float, ys)) <= run_cards.HEIGHT


def test_a_card_has_the_settings_beside_the_baselines(sweep):
  edit(sweep, "text-02", "config.json", **{"model.layers": 3, "seeds": [0, 1]})
  none, _, rope = run_cards.cards(comparisons.find(sweep))
  assert none.changes == []
  assert rope.changes == [
    ("model.layers", "3", "None"),
    ("model.position", "rope", "none"),
    ("seeds", "0, 1", "None"),
  ]
  assert rope.scores.header == ("score", "seed 0", "seed 1", "seed 2")
  assert rope.scores.rows[0][0] == "bits per byte at 1x"
