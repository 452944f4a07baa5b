"""The simulation that chooses the method of the verdicts, in small and by oracles."""

import pathlib

import numpy as np
import pytest
from scipy import special, stats

from experiments.calibration import methods, rate_tables, seed_noise
from experiments.calibration.rates import Rates, measure, with_effect
from experiments.reporting import family

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "statistics.md"
SHAPE = 50, 2, 6, 3


def rates(method, kind, repetitions=400):
  return measure(methods.METHODS[method], seed_noise.NOISES[kind], repetitions)


def test_the_recommended_method_holds_what_the_page_says():
  equal, unequal = rates("moderated", "equal"), rates("moderated", "unequal")
  assert equal.errors < 5.5 and 94 < equal.coverage < 97 and 33 < equal.power < 50
  assert unequal.errors < 7.5 and 94 < unequal.coverage < 97
  more = measure(methods.weighted(0.8), seed_noise.NOISES["equal"], 200, seeds=5)
  assert more.power > 85


def test_the_others_fail_where_the_page_says(monkeypatch):
  monkeypatch.setattr(methods, "DRAWS", 39)
  assert rates("before", "equal").errors > 12
  assert rates("paired", "equal").power < 15
  assert rates("Dunnett", "unequal").errors > 10
  assert rates("Dunnett", "equal", 200).power > 70
  assert rates("limma", "unequal", 200).errors > 10
  assert rates("seed bootstrap", "equal", 40).power == 0
  assert rates("residual bootstrap", "equal", 40).power > 50
  assert rates("permutation", "equal", 40).errors < 15


@pytest.mark.parametrize("name", seed_noise.NOISES)
def test_noise_has_the_moments_that_it_states(name):
  rng = np.random.default_rng(0)
  made = seed_noise.NOISES[name].draw(rng, (4000, 2, 6, 3))
  scale = made.sd_RCV[..., None] + 1e-12
  z = (made.scores_RCVS - made.mean_RCV[..., None]) / scale
  assert np.nanmean(z) == pytest.approx(0, abs=0.05)
  # What seeds share is no part of the stated deviation: differences do not hold it.
  if name != "uneven":
    spread = made.scores_RCVS[..., :2, :] - made.mean_RCV[..., :2, None]
    spread = np.nanvar(spread[:, :, 1] - spread[:, :, 0])
    expected = (made.sd_RCV[..., :2] ** 2).sum(-1).mean()
    assert spread == pytest.approx(expected, rel=0.12)


def test_one_effect_of_4_deviations_is_made():
  made = seed_noise.unequal(np.random.default_rng(0), SHAPE)
  moved = with_effect(made, -1.0) - made.scores_RCVS
  assert (moved[:, 0, 1] < 0).all() and (np.delete(moved, 1, 2) == 0).all()
  deviation = np.sqrt((made.sd_RCV[:, 0, :2] ** 2).mean(-1))
  np.testing.assert_allclose(moved[:, 0, 1, 0], -4 * deviation)


def test_paired_and_holm_are_those_of_scipy_and_the_report():
  scores = seed_noise.lost(np.random.default_rng(1), SHAPE).scores_RCVS
  single, adjusted = methods.paired_by_column(scores)
  for report in range(5):
    seeds = [
      {s: x for s, x in enumerate(row) if np.isfinite(x)} for row in scores[report, 0]
    ]
    common = [sorted(x.keys() & seeds[0].keys()) for x in seeds[1:]]
    p = [
      stats.ttest_rel([x[s] for s in both], [seeds[0][s] for s in both]).pvalue
      for x, both in zip(seeds[1:], common, strict=True)
      if len(both) > 1
    ]
    assert len(p) == 5
    np.testing.assert_allclose(single[report, 0], p, rtol=1e-9)
    units = {(str(n), "0"): family.Unit(x) for n, x in enumerate(p)}
    holm = family.adjust({"x": family.ColumnTests(units)}, "0").p["x"]
    np.testing.assert_allclose(adjusted[report, 0], [*holm.values()], rtol=1e-9)


def test_dunnett_is_scipys():
  rng = np.random.default_rng(2)
  control, *samples = rng.normal(0, 1, (6, 4))
  samples[0] += 1.5
  expected = stats.dunnett(*samples, control=control, rng=rng)
  found = methods.dunnett_p(np.abs(expected.statistic), 18, 5)
  np.testing.assert_allclose(found, expected.pvalue, atol=2e-3)


def test_dunnetts_variance_is_that_of_the_two_way_layout():
  scores = seed_noise.blocks(np.random.default_rng(3), SHAPE).scores_RCVS
  y = scores[7, 1]
  residual = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
  t, df = methods.pooled_t(scores)
  expected = (y.mean(1) - y[0].mean())[1:] / np.sqrt(2 * (residual**2).sum() / 10 / 3)
  np.testing.assert_allclose(t[7, 1], expected, rtol=1e-9)
  assert (df == 10).all()


def test_limma_pools_where_variances_differ_no_more_than_by_chance():
  x = np.array([0.01, 0.3, 1.6, 40.0])
  inverse = methods.trigamma_inverse(x)
  np.testing.assert_allclose(special.polygamma(1, inverse), x, rtol=1e-9)
  # A Latin square: residuals of all variants have the same sum of squares.
  rows = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1], [2, 1, 0], [1, 0, 2]])
  scores = rows[None, None] + np.arange(6.0)[:, None]
  single, _ = methods.limma(scores)
  t, df = methods.pooled_t(scores)
  np.testing.assert_allclose(single, 2 * stats.t.sf(np.abs(t), df), rtol=1e-6)


def test_tables_mark_what_is_outside_its_target():
  inside, outside = Rates(5.5, 94.0, 80.0), Rates(5.6, 96.1, 79.9)
  found = {"calm": {"a": inside, "b": outside}}
  assert "| calm | 5.5 | **5.6** |" in rate_tables.by_noise(found, "errors")
  assert "| calm | 94.0 | **96.1** |" in rate_tables.by_noise(found, "coverage")
  assert "| **5.6** / **96.1** / **79.9** |" in rate_tables.by_setting(found)


def test_the_page_has_a_place_for_every_table():
  marks = "errors coverage power seeds priors until seeds_until shares".split()
  page = rate_tables.replaced(PAGE.read_text(), dict.fromkeys(marks, "| new |"))
  assert page.count("| new |") == 8 and "pending" not in PAGE.read_text()
  with pytest.raises(ValueError, match="no table other"):
    rate_tables.replaced(page, {"other": ""})
