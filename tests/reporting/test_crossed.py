"""Standard errors from seeds and examples, against simulation and bootstrap."""

import json

import numpy as np
import pytest
from fake_sweep import QUICKSTART, read_page, write_sweep

from experiments.reporting import (
  comparisons,
  crossed,
  load,
  moderated,
  power,
  scored_examples,
  verdicts,
)
from experiments.reporting.page import write_report
from transformer_jax.evaluation import example_scores
from transformer_jax.evaluation.example_scores import ExampleScores

SEEDS, LENGTHS = (0, 1, 2), (64, 128, 256, 512)


def draw(rng, S, E, seed, example, rest):
  """Returns scores with these standard deviations of seeds, examples and the rest."""
  parts = [rng.normal(0, seed, (S, 1)), rng.normal(0, example, (1, E))]
  return sum(parts) + rng.normal(0, rest, (S, E))


@pytest.mark.parametrize(
  "seed,example,rest", [(1, 3, 2), (1, 0, 2), (0, 3, 1), (0.2, 0.2, 5)]
)
def test_estimates_are_the_variances_that_were_drawn(seed, example, rest):
  rng, S, E = np.random.default_rng(0), 3, 40
  found = [crossed.crossed(draw(rng, S, E, seed, example, rest)) for _ in range(3000)]
  means = np.array([x.mean for x in found])
  seeds, added = seed**2 / S + rest**2 / (S * E), example**2 / E
  np.testing.assert_allclose(np.mean([x.seeds for x in found]), seeds, rtol=0.08)
  # Floors at 0 can only raise the mean, by less than the estimate's own spread.
  floor = 0.42 * rest**2 / (S * E) * np.sqrt(2 / (E - 1) * S / (S - 1))
  assert (
    -0.08 * added
    <= np.mean([x.examples for x in found]) - added
    <= (0.08 * added + floor)
  )
  np.testing.assert_allclose(means.var(), seeds + added, rtol=0.08)


def test_the_interval_of_both_sources_covers_and_that_of_seeds_alone_does_not():
  from scipy import stats

  rng, S, E, inside = np.random.default_rng(1), 5, 32, np.zeros(2)
  for _ in range(1500):
    found = crossed.crossed(draw(rng, S, E, 0.3, 3, 1))
    for n, (error, df) in enumerate(
      (found.added(found.seeds**0.5, S - 1), (found.seeds**0.5, S - 1))
    ):
      inside[n] += abs(found.mean) <= stats.t.ppf(0.975, df) * error
  assert 0.93 <= inside[0] / 1500 <= 0.97 and inside[1] / 1500 < 0.75


def test_the_crossed_bootstrap_agrees():
  """Resampling both factors counts the rest three times: Owen, 2007, theorem 3.

  https://doi.org/10.1214/07-AOAS122
  """
  rng, S, E, B = np.random.default_rng(2), 30, 60, 20_000
  scores_SE = draw(rng, S, E, 1, 2, 1.5)
  seed_BS = rng.multinomial(S, np.full(S, 1 / S), B)
  example_BE = rng.multinomial(E, np.full(E, 1 / E), B)
  mean_B = np.einsum("bs,se,be->b", seed_BS, scores_SE, example_BE, optimize=True)
  found = crossed.crossed(scores_SE)
  centred = scores_SE - scores_SE.mean(1, keepdims=True) - scores_SE.mean(0)
  rest = np.sum((centred + scores_SE.mean()) ** 2) / ((S - 1) * (E - 1))
  wanted = found.error**2 + 2 * rest / (S * E)
  np.testing.assert_allclose((mean_B / (S * E)).var(), wanted, rtol=0.06)


def test_examples_without_a_score_and_too_few_of_them():
  scores_SE = np.array([[1.0, 2.0, np.nan], [2.0, 4.0, 5.0]])
  assert crossed.crossed(scores_SE) == crossed.crossed(scores_SE[:, :2])
  assert crossed.crossed(scores_SE[:, :1]) is None
  one = crossed.crossed(scores_SE[1:])
  assert one.seeds is None and one.error is None
  np.testing.assert_allclose(one.examples, np.var([2, 4, 5], ddof=1) / 3)


def make(workdir, example, available=14_032, count=40, **plan):
  """Writes a finished sweep whose examples differ by this standard deviation."""
  write_sweep(workdir, QUICKSTART, **plan)
  rng = np.random.default_rng(3)
  hard = {group: rng.normal(size=count) for group in QUICKSTART}
  for path in sorted((workdir / "runs").glob("*/result.json")):
    result = json.loads(path.read_text())
    lengths = [n for n in LENGTHS if str(n) not in result["undefined"]]
    own = 1 + 0.2 * rng.normal(size=count)
    measures = [m["name"] for m in result["measures"]]
    value_SE = {}
    for length in lengths:
      for m in measures:
        spread_E = example * hard[result["group"]] * own
        scores_S1 = rng.normal(0, 0.1, (3, 1))
        value_SE[length, m, "mean"] = (scores_S1 + spread_E).astype(np.float32)
    weight_E = {(length, "mean"): np.ones(count, np.float32) for length in lengths}
    example_scores.write(path.parent, ExampleScores(SEEDS, value_SE, weight_E))
    print_ = {"fingerprint": "ab", "examples": count, "targets": 64 * count}
    targets = {str(n): print_ | {"available": available} for n in lengths}
    path.write_text(json.dumps(result | {"targets": targets}))
  return workdir


@pytest.mark.usefixtures("undrawn")
def test_the_page_says_how_many_were_scored_and_when_they_are_too_few(tmp_path):
  workdir = make(tmp_path, example=1.0)
  write_report(workdir)
  _, *rows = read_page(workdir).tables["scored_text"]
  assert [row[0] for row in rows] == ["1x (64)", "2x (128)", "4x (256)", "8x (512)"]
  assert {tuple(row[1:3]) for row in rows} == {("40", "14,032")}
  variances = crossed.of_pairs(
    load.read(workdir).of("text"),
    [(label, "none") for label in QUICKSTART["text"][1]],
    512,
    "bits_per_byte",
    "mean",
  )
  assert variances.keys() == {
    (label, "none") for label in QUICKSTART["text"][1] if label != "learned"
  }
  # A variant's difference from itself is 0 everywhere.
  assert variances.pop(("none", "none")).error == 0
  root = lambda source: np.mean([getattr(v, source) for v in variances.values()]) ** 0.5
  assert rows[-1][3:5] == [f"{root('seeds'):.4f}", f"{root('examples'):.4f}"]
  text = (workdir / "report.html").read_text()
  assert "standard error is more than a third of the seeds&#39;" in text
  enough = int(np.ceil(40 * (3 * root("examples") / root("seeds")) ** 2))
  note = scored_examples.scored_table(comparisons.find(workdir), "text").notes[0]
  assert "At 1x, 2x, 4x and 8x" in note and enough > 40


def test_enough_examples_need_no_sentence_and_older_runs_have_none(tmp_path):
  found = comparisons.find(make(tmp_path / "new", example=0.02, available=None))
  table = scored_examples.scored_table(found, "copy")
  assert not table.notes and {row[2] for row in table.rows} == {"unlimited"}
  older = comparisons.find(write_sweep(tmp_path / "old", QUICKSTART))
  table = scored_examples.scored_table(older, "copy")
  assert not table.rows and not table.notes


@pytest.mark.parametrize("example,resolves", [(0.02, True), (8.0, False)])
def test_a_pair_whose_examples_disagree_resolves_no_longer(tmp_path, example, resolves):
  found = comparisons.find(make(tmp_path, example=example))
  (row,) = [c for c in found.at("text", 512) if c.label == "alibi"]
  assert (row.verdict == "better") is resolves
  assert (row.examples_error > 0.1) is not resolves
  if not resolves:
    assert row.verdict == "did not resolve"
    assert str(row.more) == "more examples are needed, not seeds"
    low, high = row.difference.interval
    assert high - low > 4 * row.examples_error * 0.9


def test_verdicts_on_equal_variants_hold_for_other_examples():
  """Variants that are equal over all texts differ on those that are scored."""
  rng, S, E, trials = np.random.default_rng(4), 3, 64, 400
  labels = ("none", "a", "b")
  pairs = [(label, "none") for label in labels]
  alarms = np.zeros(2)
  for _ in range(trials):
    scores_SE = {label: draw(rng, S, E, 0.05, 0.8, 0.3) for label in labels}

    def test_sets(some, scores_SE=scores_SE):
      return {
        pair: crossed.crossed(scores_SE[pair[0]] - scores_SE[pair[1]]) for pair in some
      }

    scores = {label: dict(enumerate(x.mean(1))) for label, x in scores_SE.items()}
    for n, more in enumerate(({"test_sets": test_sets}, {})):
      column = verdicts.Column(scores, "lower", pairs, pairs[1:], best=True, **more)
      judged = verdicts.judge({0: column}, "none")[0].of.values()
      alarms[n] += any(x.verdict in ("better", "worse") for x in judged)
  assert alarms[0] / trials <= 0.06 and alarms[1] / trials > 0.3


def test_of_an_error_of_zero_over_seeds_the_examples_remain():
  test_set = crossed.CrossedVariance(0.1, 0.0, 0.04, 3, 17)
  contrast = moderated.Contrast(0.1, 0.0, float("nan"), 3, test_set)
  assert contrast.total == pytest.approx((0.2, 16))
  assert contrast.p == pytest.approx(0.6239, abs=1e-4)
  assert str(power.more_seeds(contrast, 0.05)) == "more examples are needed, not seeds"


def test_examples_of_another_run_count_as_none_and_a_line_says_so(tmp_path, capsys):
  workdir = make(tmp_path / "few", example=1.0)
  many = make(tmp_path / "many", example=1.0, count=50)
  (run,) = [run for run in load.read(workdir).of("copy") if run.label == "t5"]
  scores = example_scores.read(many / "runs" / run.id)
  example_scores.write(workdir / "runs" / run.id, scores)
  compared = comparisons.find(workdir).of("copy")
  others = [c for c in compared if c.estimate.mean and c.label != "none"]
  unknown = {c.label for c in others if c.examples_error is None}
  assert unknown == {"t5"}
  noise = capsys.readouterr().err
  assert noise.count("\n") == 1
  assert "examples.npz has other seeds or examples than result.json; run the" in noise


def test_examples_of_other_seeds_count_as_none(tmp_path, capsys):
  workdir = make(tmp_path, example=1.0)
  (run,) = [run for run in load.read(workdir).of("copy") if run.label == "t5"]
  assert run.examples is not None
  moved = run.examples.of_seeds([10 + seed for seed in run.examples.seeds])
  example_scores.write(run.folder, moved)
  (again,) = [run for run in load.read(workdir).of("copy") if run.label == "t5"]
  assert again.examples is None and "has other seeds" in capsys.readouterr().err


def test_unlike_targets_and_other_seeds_are_not_paired(tmp_path):
  workdir = make(tmp_path, example=1.0)
  runs = load.read(workdir).of("copy")
  score = 64, "accuracy", "mean"
  assert crossed.of_pairs(runs, [("t5", "none"), ("t5", "gone")], *score).keys() == {
    ("t5", "none")
  }
  run = next(run for run in runs if run.label == "t5")
  run.result["targets"]["64"]["fingerprint"] = "other"
  assert crossed.of_pairs(runs, [("t5", "none")], *score) == {}


@pytest.mark.parametrize("S", [3, 5])
def test_intervals_of_pairs_of_seeds_cover(S):
  """Seeds are points, and a pair's value is their distance with an example's part."""
  rng, E, inside = np.random.default_rng(0), 20, np.zeros(2)
  points = rng.normal(size=(2, 200_000, 8))
  truth = np.linalg.norm(points[0] - points[1], axis=1).mean()
  for _ in range(500):
    at_SD, example_E = rng.normal(size=(S, 8)), rng.normal(0, 0.2, E)
    apart_SSE = np.linalg.norm(at_SD[:, None] - at_SD, axis=2)[..., None] + example_E
    apart_SSE[range(S), range(S)] = 0
    apart_SE = apart_SSE.sum(0) / (S - 1)
    for n, x_SE in enumerate((crossed.seed_pairs(apart_SE), apart_SE)):
      found = crossed.interval(x_SE)
      assert found.mean == pytest.approx(apart_SE.mean())
      inside[n] += found.low <= truth <= found.high
  assert inside[0] / 500 > 0.93 and inside[1] / 500 < 0.8  # the second: as independent
