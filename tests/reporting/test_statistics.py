"""Intervals, tests and verdicts against scipy and numbers worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from experiments.reporting import verdicts
from experiments.reporting.family import ColumnTests, Unit, adjust
from experiments.reporting.statistics import estimate
from experiments.reporting.text import plus_minus
from experiments.reporting.verdicts import Column

NONE = {0: 3.40, 1: 3.43, 2: 3.41}


def compare(scores, baseline, better, excused, **more):
  """Judges a report of one column, each variant against the baseline."""
  pairs = [(label, baseline) for label in scores]
  primary = [pair for pair in pairs if baseline in scores and baseline != pair[0]]
  column = Column(
    scores, better, pairs, primary, excused, baseline=baseline, best=True, **more
  )
  found = verdicts.judge({"column": column}, baseline)["column"].of
  return {label: judgement for (label, _), judgement in found.items()}


def test_interval_by_hand():
  # Mean 2, standard deviation 1, t(0.975, 2) = 4.302653: 4.302653 / sqrt(3) = 2.484138.
  found = estimate([1.0, 2.0, 3.0])
  assert (found.mean, found.count) == (2.0, 3)
  np.testing.assert_allclose(found.half, 2.484138, rtol=1e-6)


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_interval_equals_scipy(seeds):
  ours = np.random.default_rng(seeds).normal(3, 0.1, seeds)
  found = estimate(ours)
  expected = stats.t.interval(0.95, seeds - 1, ours.mean(), stats.sem(ours))
  np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-12)


def test_an_interval_ends_at_the_bounds_of_its_measure():
  values = [0.1, 0.9, 0.85]
  wide = estimate(values)
  assert wide.low < 0 and wide.high > 1 and not wide.skewed
  found = estimate(values, bounds=(0.0, 1.0))
  assert (found.mean, found.low, found.high) == (wide.mean, 0.0, 1.0)
  assert plus_minus(found) == "0.617 [0, 1]" and found.skewed
  assert plus_minus(estimate([0.5, 0.5, 0.51], bounds=(0.0, 1.0))) == "0.503 ± 0.014"
  one_sided = estimate([3.1, 0.1, 0.2], bounds=(0.0, None))
  assert one_sided.low == 0 and one_sided.high > 5


def test_a_share_varies_no_less_than_one_example():
  solved = estimate([1.0, 1.0, 1.0], bounds=(0.0, 1.0), resolution=1 / 128)
  half = stats.t.ppf(0.975, 2) / 128 / np.sqrt(3)
  assert (solved.low, solved.high) == (pytest.approx(1 - half), 1.0)
  assert estimate([1.0, 1.0, 1.0]).note == "the same in every seed"


def test_differences_are_of_the_seeds_of_both_and_within_the_bounds():
  scores = {"none": {0: 0.0, 1: 0.0, 2: 0.05}, "a": {2: 0.9, 0: 0.1, 1: 0.95, 7: 0.0}}
  found = compare(scores, "none", "higher", {}, bounds=(0.0, 1.0))["a"]
  np.testing.assert_allclose(found.difference.mean, (0.9 + 0.1 + 0.95 - 0.05) / 3)
  assert found.difference.high == 1.0 and found.difference.count == 3
  assert found.difference.low >= -1.0 and found.seeds == (0, 1, 2)


def test_holm_by_hand():
  # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling: 0.04 becomes 0.06.
  p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": None}

  def holm(p_values):
    units = {(name, "none"): Unit(p) for name, p in p_values.items()}
    found = adjust({"x": ColumnTests(units)}, "none")
    return {name: value for (name, _), value in found.p["x"].items()}

  found = holm(p)
  assert found.pop("e") is None
  assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
  assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize("better,says", [("lower", "bw"), ("higher", "wb")])
def test_direction_decides_the_verdict(better, says):
  words = {"b": "better", "w": "worse"}
  scores = {
    "none": NONE,
    "alibi": {0: 2.74, 1: 2.76, 2: 2.75},
    "rope": {0: 3.74, 1: 3.76, 2: 3.76},
    "t5": {0: 3.38, 1: 3.44, 2: 3.45},
  }
  found = compare(scores, "none", better, {})
  assert found["alibi"].verdict == words[says[0]]
  assert found["rope"].verdict == words[says[1]]
  assert found["t5"].verdict == "did not resolve"
  assert found["none"].verdict == "baseline" and found["none"].p is None


def test_correction_can_take_a_verdict_back():
  close = {0: 3.34, 1: 3.37, 2: 3.325}
  alone = compare({"none": NONE, "a": close}, "none", "lower", {})["a"]
  assert alone.verdict == "better" and alone.p == alone.p_holm < 0.05
  noise = {f"v{i}": {0: 3.44, 1: 3.5 - i / 50, 2: 3.38} for i in range(6)}
  among = compare({"none": NONE, "a": close} | noise, "none", "lower", {})["a"]
  assert among.p < 0.05 and among.p_holm == pytest.approx(7 * among.p)
  assert among.verdict == "did not resolve" and "7 comparisons" in among.reason
  assert among.difference.high < 0, "the interval stays that of one comparison"
  assert among.more.low <= among.more.point <= among.more.high


def test_one_seed_is_never_judged():
  found = compare({"none": {0: 3.4}, "alibi": {0: 2.7}}, "none", "lower", {})["alibi"]
  assert (found.verdict, found.reason) == ("did not resolve", "one seed")
  assert found.difference.mean == pytest.approx(-0.7)
  assert found.estimate.low is None and found.difference.low is None and found.p is None


@pytest.mark.parametrize("seeds,verdict", [(3, "did not resolve"), (6, "better")])
def test_no_spread_is_judged_by_the_sign_test(seeds, verdict):
  perfect, zero = dict.fromkeys(range(seeds), 1.0), dict.fromkeys(range(seeds), 0.0)
  scores = {"none": zero, "rope": perfect}
  found = compare(scores, "none", "higher", {})["rope"]
  assert found.verdict == verdict
  assert found.p == 2.0 ** (1 - seeds)
  assert found.estimate.low is None and found.difference.low is None
  if seeds == 3:
    assert "no spread" in found.reason


@pytest.mark.parametrize("value", [0.0, 1.0, 3.3])
def test_equal_scores_do_not_resolve(value):
  # The noise is float32 rounding, which is no spread either.
  noisy = {seed: float(np.float32(value) * (1 + 1e-7 * seed)) for seed in range(8)}
  scores = {"none": dict.fromkeys(range(8), value), "rope": noisy}
  found = compare(scores, "none", "higher", {})["rope"]
  assert found.verdict == "did not resolve" and found.p == 1
  assert found.reason == "equal to none in every seed"


def test_what_no_test_can_judge_keeps_its_numbers_and_leaves_the_family():
  scores = {
    "none": NONE,
    "alibi": {0: 3.30, 1: 3.36, 2: 3.325},
    "shaw": {0: 2.0, 2: 2.1},
    "learned": {},
    "fire": {},
  }
  excused = {
    "shaw": ("diverged", "seed 1 at step 230"),
    "learned": ("undefined", "table ends"),
    "fire": ("failed", "out of memory"),
  }
  found = compare(scores, "none", "lower", excused)
  assert {k: v.verdict for k, v in found.items()} == {
    "none": "baseline",
    "alibi": "better",
    "shaw": "diverged",
    "learned": "undefined",
    "fire": "failed",
  }
  assert found["alibi"].p_holm == found["alibi"].p, "nobody else is in the family"
  assert found["shaw"].estimate.count == 2 and found["shaw"].p_holm is None
  assert found["learned"].estimate.mean is None


@pytest.mark.parametrize("baseline", ["gone", None])
def test_without_a_baseline_there_is_no_verdict(baseline):
  excused = {"fire": ("failed", "out of memory")}
  scores = {"alibi": NONE, "fire": {}}
  found = compare(scores, baseline, "lower", excused)
  alone = found["alibi"]
  assert alone.verdict == "not compared" and "baseline" in alone.reason
  assert alone.difference.count == 0 and found["fire"].verdict == "failed"


def test_a_baseline_that_lost_its_scores_is_said():
  excused = {"none": ("diverged", "seed 0 at step 9")}
  found = compare({"none": {}, "alibi": NONE}, "none", "lower", excused)["alibi"]
  assert found.verdict == "not compared" and "none is diverged here" in found.reason
  found = compare({"none": {}, "alibi": NONE}, "none", "lower", {})["alibi"]
  assert found.verdict == "not compared" and "none has no value here" in found.reason


def test_a_direction_must_be_known():
  with pytest.raises(ValueError, match="'up'"):
    compare({"none": NONE}, "none", "up", {})


def test_intervals_of_a_thousand_and_more_are_written_too():
  assert plus_minus(estimate([5000.0, 9000.0]), True) == "+7,000 ± 25,412"
  assert plus_minus(estimate([5.0, 5.0, 5.001])) == "5.000 ± 0.001"
