"""A column with the differences of its pairs, their tests and judgements."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from experiments.reporting import family, moderated, reasons
from experiments.reporting.family import Pair
from experiments.reporting.judgements import ALPHA, EXPLORATORY, Column, Judgement
from experiments.reporting.moderated import Contrast
from experiments.reporting.power import MoreSeeds, more_seeds
from experiments.reporting.statistics import (
  NOTHING,
  UNBOUNDED,
  Estimate,
  estimate,
  lower_is_better,
)

Scores = Mapping[str, Mapping[int, float]]  # {label: {seed: value}}


class MeasuredColumn:
  """A column with the differences of its pairs.

  excuses     {pair: (verdict, reason)} of the pairs without a test
  contrasts   {pair: difference} of those that have one

  >>> scores = {"none": {0: 1.0, 1: 1.2}, "rope": {0: 0.9, 1: 1.1}}
  >>> pairs = [("rope", "none")]
  >>> found = MeasuredColumn(Column(scores, "lower", pairs, pairs))
  >>> [round(contrast.mean, 2) for contrast in found.contrasts.values()]
  [-0.1]
  """

  def __init__(self, column: Column):
    self.column = column
    self.excuses = {
      pair: excuse for pair in column.pairs if (excuse := reasons.excuse(column, pair))
    }
    sound = {x: v for x, v in column.scores.items() if x not in column.excused and v}
    plain = [p for p in column.pairs if p not in self.excuses]
    self.contrasts = self.compare(sound, plain)
    for pair, (verdict, _) in self.excuses.items():
      # What lost seeds shows its difference, and is no part of the others' variance.
      label, against = pair
      if verdict not in ("baseline", "not compared") and against in sound:
        scores = {label: column.scores[label], against: sound[against]}
        self.contrasts |= self.compare(scores, [pair]) if scores[label] else {}
    self.sound = sound

  def compare(
    self, scores: Scores, pairs: Iterable[Pair], seeds: Sequence[int] | None = None
  ) -> dict[Pair, Contrast]:
    """Returns the differences of pairs of the scores.

    seeds   those of the scores where they are a part of all; None: all
    """
    found = moderated.compare(scores, pairs, self.column.resolution)
    test_sets = self.column.test_sets(found, **({"seeds": seeds} if seeds else {}))
    return {
      pair: dataclasses.replace(contrast, test_set=test_sets.get(pair))
      for pair, contrast in found.items()
    }

  def tests(self, baseline: str | None) -> family.ColumnTests:
    """Returns the tests of the column's primary pairs, and those of the best."""
    units = {pair: self.unit(pair) for pair in self.tested()}
    if not self.column.best or not units:
      return family.ColumnTests(units)
    candidate, rivals = self.candidate([*units], baseline)
    return family.ColumnTests(units, candidate, self.rivals(candidate, rivals))

  def tested(self) -> list[Pair]:
    """Returns the primary pairs that have a difference and no excuse."""
    judged = (pair for pair in self.contrasts if pair in self.column.primary)
    return [pair for pair in judged if pair not in self.excuses]

  def unit(self, pair: Pair) -> family.Unit:
    """Returns the unit of a tested pair in the report's family."""
    return self.unit_of(self.contrasts[pair])

  def p(self, pair: Pair) -> float | None:
    """Returns the two-sided p value of a tested pair alone; None: not tested."""
    return self.contrasts[pair].p

  def p_equivalent(self, pair: Pair) -> float | None:
    """Returns the p value of a tested pair's equivalence; None: not tested."""
    return self.contrasts[pair].p_equivalent(self.column.margin)

  def more(self, pair: Pair, threshold: float) -> MoreSeeds | None:
    """Returns the seeds that would resolve a tested pair; None: unknown.

    threshold   p value that would resolve one more
    """
    return more_seeds(self.contrasts[pair], threshold, self.column.margin)

  def rivals(self, candidate: str, rivals: list[str]) -> dict[str, float | None]:
    """Returns {rival: p value of its difference from the candidate}."""
    found = self.compare(self.sound, [(candidate, x) for x in rivals])
    return {rival: found[candidate, rival].p for rival in rivals}

  def unit_of(self, contrast: Contrast) -> family.Unit:
    """Returns the unit of a difference: the smaller of its p values, and its claim."""
    p, equal = contrast.p, contrast.p_equivalent(self.column.margin)
    if p is not None and equal is not None and equal < p:
      return family.Unit(equal, equal=True)
    return family.Unit(p, better=self.improves(contrast))

  def untested(self, pair: Pair) -> str:
    """Returns why a pair with common seeds has no p value."""
    return "one seed"

  def improves(self, contrast: Contrast) -> bool:
    """Returns whether the first of a difference is the better one."""
    lower = (contrast.mean or 0.0) < 0
    return bool(contrast.mean) and lower == (self.column.better == "lower")

  def labels(self, tested: Iterable[Pair]) -> list[str]:
    """Returns the variants of tested pairs, those that are compared with first."""
    return list(dict.fromkeys(x for pair in tested for x in reversed(pair) if x))

  def candidate(
    self, tested: Sequence[Pair], baseline: str | None
  ) -> tuple[str, list[str]]:
    """Returns the tested variant with the best mean, and the others.

    Of variants with the seeds of the baseline, else of the first one.
    """
    labels = self.labels(tested)
    scores = self.column.scores
    first = scores[baseline if baseline and baseline in labels else labels[0]]
    alike = [x for x in labels if first.keys() <= scores[x].keys()]

    def signed_mean(label: str) -> float:
      values = [scores[label][seed] for seed in first]
      return lower_is_better(sum(values) / len(values), self.column.better)

    best = min(alike, key=signed_mean)
    return best, [x for x in alike if x != best]

  def judgement(
    self,
    pair: Pair,
    adjusted: Mapping[Pair, float | None],
    size: int,
    threshold: float,
  ) -> Judgement:
    """Returns the judgement of a pair.

    adjusted    p values of the column's primary pairs, corrected
    size        tests in the correction
    threshold   p value that would resolve one more
    """
    column, (label, against) = self.column, pair
    ours = column.scores[label]
    theirs = {} if against is None else column.scores.get(against, {})
    values = _shared(ours, theirs)
    contrast = self.contrasts.get(pair)
    tested = contrast if pair in column.primary and pair not in self.excuses else None
    verdict, reason, more = *self.excuses.get(pair, (EXPLORATORY, "")), None
    if tested:
      verdict, reason = self._verdict(pair, tested, adjusted.get(pair), size)
      if verdict == "did not resolve":
        more = self.more(pair, threshold)
    partly = "" if pair in self.excuses else reasons.partly(ours, theirs, against)
    return Judgement(
      estimate=estimate(
        list(values.values()), bounds=column.bounds, resolution=column.resolution
      ),
      difference=self._difference(contrast),
      p=self.p(pair) if tested else None,
      p_holm=adjusted.get(pair) if tested and self.p(pair) is not None else None,
      p_equivalent=self.p_equivalent(pair) if tested else None,
      verdict=verdict,
      reason="; ".join(filter(None, [reason, partly])),
      seeds=tuple(sorted(values)),
      more=more,
      examples_error=_examples_error(contrast),
    )

  def _difference(self, contrast: Contrast | None) -> Estimate:
    """Returns a difference with its interval, within what the bounds allow."""
    if contrast is None or contrast.mean is None:
      return NOTHING
    low, high = self.column.bounds
    widest = None if low is None or high is None else high - low
    bounds = UNBOUNDED if widest is None else (-widest, widest)
    note = "one seed" if contrast.count == 1 else "the same in every seed"
    found = Estimate(contrast.mean, None, None, contrast.count, note)
    if contrast.interval is None:
      return found
    return dataclasses.replace(found, note="").within(contrast.interval, bounds)

  def _verdict(
    self, pair: Pair, contrast: Contrast, adjusted: float | None, size: int
  ) -> tuple[str, str]:
    """Returns the verdict and, where nothing is resolved, the reason.

    adjusted   p value of the claim, corrected
    size       tests in the correction
    """
    p, unresolved = self.p(pair), "did not resolve"
    if not contrast.count:
      return unresolved, f"no seed in common with {pair[1]}"
    if p is None or adjusted is None:
      return unresolved, self.untested(pair)
    unit = self.unit(pair)
    if adjusted < ALPHA:
      if unit.equal:
        return "equivalent", ""
      return "better" if unit.better else "worse", ""
    if not contrast.total[0]:
      return unresolved, reasons.no_spread(pair[1], contrast)
    if p < ALPHA:
      return unresolved, f"p = {p:.3g} alone, {adjusted:.3g} among {size} comparisons"
    return unresolved, f"p = {adjusted:.3g}"


def _shared(values: Mapping[int, float], against: Mapping[int, float]) -> dict:
  """Returns the values of the seeds that both have; all where there is none.

  A mean over other seeds must not stand beside a difference over these.
  """
  both = {seed: value for seed, value in values.items() if seed in against}
  return both or dict(values)


def _examples_error(contrast: Contrast | None) -> float | None:
  if contrast is None or contrast.test_set is None:
    return None
  return math.sqrt(contrast.test_set.examples)
