"""Verdicts: the primary comparisons of a report, judged together.

Dropping a diverged seed would flatter its variant: such a run shows numbers but is not
judged by them. Where it is the one that others are compared with, no variant is judged.
A variant is judged, and its mean taken, over the seeds that both have. Where the scores
of single examples are known, a difference holds for other examples too. Comparisons
that are not primary have an estimate with an interval, and are called exploratory.
"""

import dataclasses
import math
from collections.abc import Mapping

from experiments.reporting import family, moderated, reasons
from experiments.reporting.family import Name, Pair
from experiments.reporting.judgements import (
  ALPHA,
  EXPLORATORY,
  Column,
  Judgement,
  Judgements,
)
from experiments.reporting.moderated import Contrast
from experiments.reporting.power import more_seeds
from experiments.reporting.statistics import (
  NOTHING,
  UNBOUNDED,
  Estimate,
  estimate,
  lower_is_better,
)


def judge(
  columns: Mapping[Name, Column], baseline: str | None = None
) -> dict[Name, Judgements]:
  """Judges the primary pairs of all columns, with one 5% error for all of them.

  columns    by any name
  baseline   the second of all primary pairs; None: they are pairs of any kind
  """
  measured = {name: _Measured(column) for name, column in columns.items()}
  tests = {name: each.tests(baseline) for name, each in measured.items()}
  adjusted = family.adjust(tests, baseline, ALPHA)
  size = sum(p is not None for ps in adjusted.p.values() for p in ps.values())
  return {
    name: Judgements(
      {
        pair: each.judgement(pair, adjusted.p[name], size, adjusted.threshold)
        for pair in each.column.pairs
      },
      adjusted.leaders.get(name, ()),
    )
    for name, each in measured.items()
  }


class _Measured:
  """A column with the differences of its pairs.

  excuses     {pair: (verdict, reason)} of the pairs without a test
  contrasts   {pair: difference} of those that have one
  """

  def __init__(self, column: Column):
    self.column = column
    self.excuses = {
      pair: excuse for pair in column.pairs if (excuse := reasons.excuse(column, pair))
    }
    sound = {x: v for x, v in column.scores.items() if x not in column.excused and v}
    plain = [p for p in column.pairs if p not in self.excuses]
    self.contrasts = self._compare(sound, plain)
    for pair, (verdict, _) in self.excuses.items():
      # What lost seeds shows its difference, and is no part of the others' variance.
      label, against = pair
      if verdict not in ("baseline", "not compared") and against in sound:
        scores = {label: column.scores[label], against: sound[against]}
        self.contrasts |= self._compare(scores, [pair]) if scores[label] else {}
    self._sound = sound

  def _compare(self, scores, pairs) -> dict[Pair, Contrast]:
    """Returns the differences of pairs of the scores, {label: {seed: value}}."""
    found = moderated.compare(scores, pairs, self.column.resolution)
    test_sets = self.column.test_sets(found)
    return {
      pair: dataclasses.replace(contrast, test_set=test_sets.get(pair))
      for pair, contrast in found.items()
    }

  def tests(self, baseline: str | None) -> family.ColumnTests:
    """Returns the tests of the column's primary pairs, and those of the best."""
    units = {
      pair: self._unit(contrast)
      for pair, contrast in self.contrasts.items()
      if pair in self.column.primary and pair not in self.excuses
    }
    if not self.column.best or not units:
      return family.ColumnTests(units)
    candidate, rivals = self._candidate(units, baseline)
    found = self._compare(self._sound, [(candidate, x) for x in rivals])
    p = {rival: found[candidate, rival].p for rival in rivals}
    return family.ColumnTests(units, candidate, p)

  def _unit(self, contrast: Contrast) -> family.Unit:
    p, equal = contrast.p, contrast.p_equivalent(self.column.margin)
    if p is not None and equal is not None and equal < p:
      return family.Unit(equal, equal=True)
    return family.Unit(p, better=self._improves(contrast))

  def _improves(self, contrast: Contrast) -> bool:
    lower = (contrast.mean or 0.0) < 0
    return bool(contrast.mean) and lower == (self.column.better == "lower")

  def _candidate(self, units, baseline: str | None) -> tuple[str, list[str]]:
    """Returns the tested variant with the best mean, and the others.

    Of variants with the seeds of the baseline, else of the first one.
    """
    labels = list(dict.fromkeys(x for pair in units for x in reversed(pair) if x))
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
        more = more_seeds(tested, threshold, column.margin)
    partly = "" if pair in self.excuses else reasons.partly(ours, theirs, against)
    return Judgement(
      estimate=estimate(
        list(values.values()), bounds=column.bounds, resolution=column.resolution
      ),
      difference=self._difference(contrast),
      p=tested.p if tested else None,
      p_holm=adjusted.get(pair) if tested else None,
      p_equivalent=tested.p_equivalent(column.margin) if tested else None,
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
    p, unresolved = contrast.p, "did not resolve"
    if not contrast.count:
      return unresolved, f"no seed in common with {pair[1]}"
    if p is None or adjusted is None:
      return unresolved, "one seed"
    unit = self._unit(contrast)
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
