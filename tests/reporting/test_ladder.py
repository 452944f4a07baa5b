"""Ladders of sizes: curves with known answers, their intervals, and the page."""

import csv
import json

import numpy as np
import pytest
from fake_runs import BASE
from fake_sweep import edit, read_page, write_sweep

from experiments.configs import ladder as config
from experiments.reporting import comparisons, ladder_curves, ladder_tables, power_law
from experiments.reporting.page import print_report, write_report
from experiments.reporting.power_law import FitError
from experiments.setup import runs
from experiments.setup.ladder_plan import Ladder
from experiments.setup.plan import Grid, Plan, Zipped

SEEDS = (0, 1, 2)
BUDGETS = tuple(1e9 * 4.0**n for n in range(5))
LAW = {"offset": 1.0, "factor": 2.0, "exponent": 0.15}


def loss(flops, offset, factor, exponent):
  return offset + factor * (flops / 1e9) ** -exponent


def points(rng, noise=0.0, common=None, seeds=SEEDS, budgets=BUDGETS, **law):
  """Returns scores with noise, part of which is `common` to several variants."""
  law = LAW | law
  cells = [(n, seed) for n in range(len(budgets)) for seed in seeds]
  own = rng.normal(0, 1, len(cells))
  errors = own if common is None else 0.6 * own + 0.8 * common[: len(cells)]
  return {
    cell: (budgets[cell[0]], loss(budgets[cell[0]], **law) + noise * error)
    for cell, error in zip(cells, errors, strict=True)
  }


def test_a_curve_without_noise_is_found_again():
  law = power_law.fit(points(np.random.default_rng(0)))
  assert law.offset == pytest.approx(1.0, abs=1e-3)
  assert law.exponent == pytest.approx(0.15, abs=1e-3)
  further = 10 * BUDGETS[-1]
  assert law.predict(further) == pytest.approx(loss(further, **LAW), abs=1e-4)
  assert law.half(law.slopes(further)) < 1e-3


def test_the_slopes_are_the_derivatives():
  law = power_law.fit(points(np.random.default_rng(0), 0.01))
  for n, name in enumerate(("offset", "factor", "exponent")):
    moved = law.__class__(**{**law.__dict__, name: getattr(law, name) + 1e-6})
    slope = (moved.predict(3e11) - law.predict(3e11)) / 1e-6
    assert law.slopes(3e11)[n] == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("paired", [False, True])
def test_intervals_hold_the_truth_as_often_as_they_say(paired):
  rng, further = np.random.default_rng(1), 10 * BUDGETS[-1]
  other = {"offset": 1.05, "factor": 1.9, "exponent": 0.17}
  true = loss(further, **LAW) - loss(further, **other)
  held, widths = 0, []
  for _ in range(100):
    common = rng.normal(0, 1, 15) if paired else None
    laws = [power_law.fit(points(rng, 0.01, common, **law)) for law in (LAW, other)]
    gap, half = power_law.difference(*laws, further)
    held += abs(gap - true) <= half
    widths.append(half)
  # 95% of 100 within three standard errors; what seeds share makes it narrower.
  assert held / 100 >= 0.89
  assert np.median(widths) == pytest.approx(0.023 if paired else 0.038, rel=0.2)


@pytest.mark.parametrize(
  ("changed", "says"),
  [
    ({"budgets": BUDGETS[:3]}, "3 sizes; a power law with an offset needs 4"),
    ({"budgets": BUDGETS[:4], "seeds": (0,)}, "4 scores; three parameters need five"),
    ({"factor": 0.0}, "do not fall as a power law"),
    ({"factor": -0.5, "offset": 4.0}, "do not fall as a power law"),
  ],
)
def test_points_that_carry_no_curve_say_why(changed, says):
  with pytest.raises(FitError, match=says):
    power_law.fit(points(np.random.default_rng(2), 0.0, **changed))


def test_a_fit_that_does_not_converge_is_a_reason(monkeypatch):
  def fails(*_, **__):
    raise RuntimeError("Optimal parameters not found")

  monkeypatch.setattr(power_law.scipy.optimize, "curve_fit", fails)
  with pytest.raises(FitError, match="does not converge"):
    power_law.fit(points(np.random.default_rng(0)))


def answers(noise=0.004, seed=3, **variants):
  """Returns the fits of variants whose laws differ from `none` as given."""
  rng = np.random.default_rng(seed)
  common = rng.normal(0, 1, 15)
  laws = {"none": {}} | variants
  some = {name: points(rng, noise, common, **law) for name, law in laws.items()}
  fitted, reasons = {}, {}
  for name, each in some.items():
    try:
      fitted[name] = power_law.fit(each)
    except FitError as error:
      reasons[name] = str(error)
  return ladder_curves.Fits(
    "text", "loss", "none", some, fitted, reasons, BUDGETS[-1] if fitted else 0.0
  )


def test_the_answer_is_the_variant_that_wins_further_up():
  # Behind at every trained size, ahead at ten times the largest.
  crossing = {"offset": 0.5, "factor": 3.7, "exponent": 0.175}
  assert loss(BUDGETS[-1], **crossing) > loss(BUDGETS[-1], **LAW) + 0.02
  said = ladder_curves.answer(answers(rope=crossing))
  where = "At 10 times the largest budget (2.56e+12 FLOPs)"
  assert said.startswith(f"{where} rope wins at the training length: ")
  assert said.endswith("below the next, none (95% interval).")


def test_variants_of_one_law_are_not_resolved():
  said = ladder_curves.answer(answers(rope={}, t5={"offset": 1.5}))
  assert "no winner is resolved: " in said and "t5" not in said
  assert "none" in said and "rope" in said and "97.5% interval)" in said


def test_too_few_sizes_tell_nothing():
  few = {"budgets": BUDGETS[:3]}
  rng = np.random.default_rng(0)
  some = {name: points(rng, 0.01, **few) for name in ("none", "rope")}
  reasons = dict.fromkeys(some, "3 sizes; a power law with an offset needs 4")
  fits = ladder_curves.Fits("text", "loss", "none", some, {}, reasons, 0.0)
  assert ladder_curves.answer(fits) == (
    "Which wins at 10 times the budget is not known: 3 sizes; a power law with an"
    " offset needs 4."
  )
  rows = ladder_tables.ladder_table(fits).rows
  assert [row[1] for row in rows] == [reasons["none"]] * 2
  found = csv.DictReader(ladder_tables.to_csv([fits]).splitlines())
  assert [row["reason"] for row in found] == [reasons["none"]] * 2


@pytest.fixture
def folder(tmp_path):
  """A finished ladder of five sizes and two variants, of which rope falls faster."""
  groups = {
    f"text, width={16 * 2**n}": ("bits_per_byte", {"none": (3.0,), "rope": (3.0,)})
    for n in range(5)
  }
  write_sweep(tmp_path, groups, lengths=(64,))
  plan = json.loads((tmp_path / "sweep.json").read_text())
  rng = np.random.default_rng(4)
  for place, entry in enumerate(plan["runs"]):
    entry["ladder"] = "text"
    flops, law = BUDGETS[place // 2], LAW
    law = LAW | ({"exponent": 0.3} if entry["label"] == "rope" else {})
    scores = [
      {"seed": seed, "length": 64, "measure": "bits_per_byte", "part": "mean"}
      | {"value": loss(flops, **law) + rng.normal(0, 0.004)}
      for seed in SEEDS
    ]
    config = {"train.steps": 400, "seeds": [*SEEDS]}
    edit(tmp_path, entry["id"], "config.json", **config)
    per_token = flops / 400 / 1024
    made = {"tokens_per_step": 1024, "flops_per_token": per_token, "scores": scores}
    edit(tmp_path, entry["id"], **made)
  (tmp_path / "sweep.json").write_text(json.dumps(plan))
  return tmp_path


def test_the_page_has_the_answer_the_curves_and_the_intervals(folder, capsys, undrawn):
  undrawn.append("ladder_")
  write_report(folder)
  page = read_page(folder)
  header, rope, none = page.tables["ladder_text"]
  assert header[2:] == ["exponent", "offset", "at 10x", "10x minus none"]
  assert rope[0] == "rope" and none[-1] == "baseline"
  assert abs(float(rope[2].split()[0]) - 0.3) < 0.02 and rope[-1].startswith("−")
  text = (folder / "report.html").read_text()
  where = "text: At 10 times the largest budget (2.56e+12 FLOPs)"
  says = f"{where} rope wins at the training length: "
  # It is the answer to the question: those of the sizes follow.
  assert 0 < text.index(says) < text.index("At the training length")
  axis = (folder / "ladder_text.svg").read_text()
  assert "10¹²" in axis and "mathdefault" not in axis
  lines = (folder / "ladder_text.csv").read_text().splitlines()
  assert lines[0] == "variant,size,seed,flops,bits per byte"
  assert len(lines) == 1 + 2 * 5 * 3
  assert all((folder / f"ladder_text.{end}").stat().st_size for end in ("png", "pdf"))
  # A paper has the table too, and its numbers with all digits.
  for name in ("tables.md", "tables.tex"):
    assert "text: power laws of the ladder" in (folder / name).read_text()
  best, second = csv.DictReader((folder / "ladders.csv").read_text().splitlines())
  assert (best["variant"], second["variant"]) == ("rope", "none")
  assert float(best["exponent"]) == pytest.approx(0.3, abs=0.02)
  assert float(best["flops"]) == pytest.approx(10 * BUDGETS[-1])
  gap = float(best["predicted"]) - float(second["predicted"])
  assert float(best["difference"]) == pytest.approx(gap) and gap < 0
  assert second["difference"] == ""
  print_report(folder)
  printed = " ".join(capsys.readouterr().out.split())
  assert "rope wins at the training length: " in printed


LARGEST = "text, width=256-09"  # rope at the largest size


def lead(folder):
  (fits,) = ladder_curves.ladders(comparisons.find(folder))
  return ladder_curves.answer(fits)


def test_a_variant_with_a_diverged_seed_wins_nothing(folder):
  edit(folder, LARGEST, diverged={"1": 230})
  assert lead(folder) == (
    "Which wins at 10 times the budget is not known: a seed diverged at text,"
    " width=256."
  )


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"data": {"fingerprint": "other"}}, "the data changed between its runs (9f2c41aa"),
    ({"seeds_apart": True}, "how seeds are trained changed between its runs"),
  ],
)
def test_runs_that_are_not_comparable_name_no_winner(folder, changes, says):
  edit(folder, LARGEST, **changes)
  said = lead(folder)
  assert "wins at the" not in said and says in said
  assert said.count("none") == 1  # not once for each size


def test_a_missing_size_is_named_and_changes_no_budget(folder):
  before = lead(folder)
  (folder / "runs" / LARGEST / "result.json").unlink()
  edit(folder, LARGEST, "status.json", state="failed")
  said = lead(folder)
  assert said.endswith(" rope has no score at text, width=256.")
  assert said.partition(" rope wins")[0] == before.partition(" rope wins")[0]


def test_a_ladder_within_a_decade_has_readable_budgets(folder):
  plan = json.loads((folder / "sweep.json").read_text())
  plan["runs"] = plan["runs"][:4]  # two sizes
  (folder / "sweep.json").write_text(json.dumps(plan))
  findings = comparisons.find(folder)
  (fits,) = ladder_curves.ladders(findings)
  drawn = ladder_curves.ladder_figure(fits, findings)
  svg = drawn.files["svg"].decode()
  assert "mathdefault" not in svg and "4.0·10⁹" in svg and "right of the bar" not in svg
  assert "power laws" not in drawn.caption


def test_accuracies_are_drawn_as_errors(folder):
  for entry in json.loads((folder / "sweep.json").read_text())["runs"]:
    path = folder / "runs" / entry["id"] / "result.json"
    result = json.loads(path.read_text())
    result["measures"] = [{"name": "accuracy", "better": "higher"}]
    for score in result["scores"]:
      score |= {"measure": "accuracy", "value": 1 - score["value"] / 4}
    path.write_text(json.dumps(result))
  (fits,) = ladder_curves.ladders(comparisons.find(folder))
  assert fits.measure == "1 - accuracy" and "rope wins" in ladder_curves.answer(fits)


def test_a_ladder_is_a_group_for_each_size():
  sizes = Zipped({"model.width": (16, 32), "train.steps": (40, 80)})
  rungs = Ladder("text", Grid({"model.position": ("none", "rope")}), sizes)
  todo = runs.expand(Plan("why?", rungs, "none"), BASE, {})
  assert [(run.group, run.label, run.entry()["ladder"]) for run in todo[1:3]] == [
    ("text, width=16 steps=40", "rope", "text"),
    ("text, width=32 steps=80", "none", "text"),
  ]
  # Another task for all leaves the rungs apart.
  moved = runs.expand(Plan("why?", rungs, "none"), BASE, {"task": "copy"})
  assert [run.group for run in moved] == [run.group for run in todo]
  shipped = runs.expand(config.tuned(), config.get_config(), {})
  assert len(shipped) == 15 and {run.match.quantity for run in shipped} == {"flops"}
