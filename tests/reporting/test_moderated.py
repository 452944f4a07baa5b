"""Moderated comparisons of a whole report against formulas written out by hand."""

import json
import pathlib

import numpy as np
import pytest
from scipy import stats

from experiments.reporting.moderated import compare, contrasts, variances

CASES = pathlib.Path(__file__).parents[1] / "cases" / "verdicts.json"
CASES = {case["name"]: case for case in json.loads(CASES.read_text())["cases"]}


def made(variants, seeds, lost=()):
  scores = np.random.default_rng(variants).normal(3, 0.1, (variants, seeds))
  for cell in lost:
    scores[cell] = np.nan
  return scores


def by_hand(scores, prior):
  """The moderated t of docs/statistics.md, one variant after the other."""
  cells = np.argwhere(np.isfinite(scores))
  X = np.zeros((len(cells), sum(scores.shape)))
  for row, (v, s) in enumerate(cells):
    X[row, v] = X[row, scores.shape[0] + s] = 1
  y = scores[tuple(cells.T)]
  residual = y - X @ np.linalg.lstsq(X, y)[0]
  leverage = np.diag(X @ np.linalg.pinv(X.T @ X) @ X.T)
  pooled = residual @ residual / (1 - leverage).sum()
  variance, weight = [], []
  for v in range(len(scores)):
    own = cells[:, 0] == v
    s2 = residual[own] @ residual[own] / (1 - leverage[own]).sum()
    df = own.sum() - 1
    variance.append((prior * pooled + df * s2) / (prior + df))
    weight.append(prior + df)
  found = []
  for v in range(1, len(scores)):
    difference = scores[v] - scores[0]
    difference = difference[np.isfinite(difference)]
    both = variance[v] + variance[0]
    parts = variance[v] ** 2 / weight[v] + variance[0] ** 2 / weight[0]
    df = min(both**2 / parts, (1 - leverage).sum())
    t = difference.mean() / np.sqrt(both / len(difference))
    found.append(2 * stats.t.sf(abs(t), df))
  return found


@pytest.mark.parametrize("lost", [(), [(0, 1)], [(2, 0), (4, 3), (1, 1)]])
@pytest.mark.parametrize("prior", [0.8, 4.0])
def test_p_values_are_those_of_the_formula(prior, lost):
  scores = made(5, 4, lost)
  p = contrasts(scores, prior).p_values()
  np.testing.assert_allclose(p, by_hand(scores, prior), rtol=1e-9)


def test_with_all_weight_on_the_prior_two_variants_are_a_paired_t_test():
  scores = made(2, 5)
  found = contrasts(scores, prior=1e12)
  expected = stats.ttest_rel(scores[1], scores[0])
  np.testing.assert_allclose(found.p_values(), [expected.pvalue], rtol=1e-9)
  assert found.df == pytest.approx(4)


def test_the_pooled_variance_is_the_mean_square_of_a_two_way_layout():
  scores = made(6, 3)
  residual = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
  _, df, pooled, total = variances(scores)
  assert total == pytest.approx(10) and (df == 2).all()
  np.testing.assert_allclose(pooled, (residual**2).sum() / 10, rtol=1e-9)


def test_reports_are_computed_side_by_side_as_alone():
  scores = np.stack([made(5, 4), made(5, 4, [(0, 2)]) * 2])
  together = contrasts(scores).p_values()
  for one, p in zip(scores, together, strict=True):
    np.testing.assert_allclose(contrasts(one).p_values(), p, rtol=1e-9)


def test_what_all_variants_share_changes_nothing():
  scores = made(5, 4)
  shifted = 7 + 3 * (scores + [0.0, 9.0, -4.0, 2.0])
  np.testing.assert_allclose(
    contrasts(shifted).p_values(), contrasts(scores).p_values(), rtol=1e-6
  )


def labelled(scores):
  return {
    label: {s: x for s, x in enumerate(values) if x is not None}
    for label, values in scores.items()
  }


def against(scores, baseline="none", **more):
  """Returns {label: difference from the baseline}."""
  pairs = [(label, baseline) for label in scores if label != baseline]
  found = compare(labelled(scores), pairs, **more)
  return {label: contrast for (label, _), contrast in found.items()}


def test_pairs_of_variants_are_those_of_the_column_turned():
  scores = dict(zip(("none", "a", "b", "c"), made(4, 3), strict=True))
  pairs = [("a", "none"), ("b", "none"), ("b", "a"), ("a", "b")]
  found = compare(labelled(scores), pairs)
  assert found["b", "a"].mean == pytest.approx(
    found["b", "none"].mean - found["a", "none"].mean
  )
  assert found["b", "a"].p == found["a", "b"].p
  assert found["b", "a"].mean == -found["a", "b"].mean
  # Another order of the variants makes the same numbers, whatever is subtracted.
  turned = against(dict(reversed(scores.items())), "a")
  assert turned["b"].p == pytest.approx(found["b", "a"].p)


def test_the_interval_is_where_p_is_5_percent():
  labels = dict(zip(("none", "a", "b", "c"), made(4, 3), strict=True))
  found = against(labels)["b"]
  for end in found.interval:
    moved = labels | {"b": labels["b"] - end}
    assert against(moved)["b"].p == pytest.approx(0.05, rel=1e-9)
  for x in against(labels).values():
    assert (x.p < 0.05) == (not x.interval[0] < 0 < x.interval[1])


def test_two_one_sided_tests_are_the_interval_of_90_percent():
  labels = dict(zip(("none", "a", "b", "c"), made(4, 3), strict=True))
  found = against(labels)["b"]
  half = stats.t.ppf(0.95, found.df) * found.error
  margin = max(abs(found.mean - half), abs(found.mean + half))
  assert found.p_equivalent(margin) == pytest.approx(0.05, rel=1e-9)
  assert found.p_equivalent(2 * margin) < 0.05 < found.p_equivalent(margin / 2)
  assert found.p_equivalent(abs(found.mean)) == pytest.approx(0.5)
  assert found.p_equivalent(None) is None


def test_a_solved_variant_is_no_weaker_than_a_nearly_solved_one():
  found = against(CASES["perfect is not weaker than nearly perfect"]["scores"])
  assert found["a"].p < 0.001 and found["b"].p < 0.001
  assert found["a"].p <= found["b"].p


def test_where_nothing_varies_the_scored_examples_decide():
  scores = CASES["every string against none"]["scores"]
  assert {x.p for x in against(scores).values()} == {2.0**-4}
  found = against(scores, resolution=1 / 128)
  assert all(x.p < 1e-6 and x.mean == -1 for x in found.values())
  assert all(x.interval[1] < -0.9 for x in found.values())


def test_seeds_in_common_are_compared():
  found = against(CASES["unequal seeds"]["scores"])["a"]
  assert found.count == 3
  assert found.mean == pytest.approx((2.95 + 2.97 + 2.955 - 3 - 3.02 - 3.01) / 3)


def test_what_cannot_be_tested_is_no_test():
  one = against({"none": [3.0], "a": [2.0]})["a"]
  assert (one.mean, one.p, one.interval, one.count) == (-1.0, None, None, 1)
  # One seed in common is one seed, though each has others.
  one = against({"none": [3.0, 3.1, None], "a": [None, 2.0, 2.1]})["a"]
  assert (one.mean, one.p, one.count) == (pytest.approx(-1.1), None, 1)
  apart = against({"none": [3.0, 3.1, None, None], "a": [None, None, 2.0, 2.1]})["a"]
  assert (apart.count, apart.mean, apart.p) == (0, None, None)
  assert against({"none": [0.5, 0.5], "a": [0.5, 0.5]})["a"].p == 1
  assert compare({}, []) == {}
