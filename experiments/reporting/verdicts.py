"""Verdicts: the primary comparisons of a report, judged together.

Dropping a diverged seed would flatter its variant: such a run shows numbers but is not
judged by them. Where it is the one that others are compared with, no variant is judged.
A variant is judged, and its mean taken, over the seeds that both have. Where the scores
of single examples are known, a difference holds for other examples too. Comparisons
that are not primary have an estimate with an interval, and are called exploratory.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from experiments.reporting import family, moderated
from experiments.reporting.crossed import CrossedVariance
from experiments.reporting.family import Name, Pair
from experiments.reporting.moderated import Contrast
from experiments.reporting.power import MoreSeeds, more_seeds
from experiments.reporting.statistics import (
  NOTHING,
  UNBOUNDED,
  Bounds,
  Estimate,
  estimate,
  lower_is_better,
)

ALPHA = 0.05  # of all verdicts of a report together
EXPLORATORY = "exploratory"
VERDICTS = (
  "better",
  "worse",
  "equivalent",
  "did not resolve",
  EXPLORATORY,
  "not compared",
  "baseline",
  "undefined",
  "diverged",
  "failed",
  "unfinished",
)

Excuse = tuple[str, str]  # verdict and reason of what is not tested
TestSets = Callable[[Iterable[Pair]], Mapping[Pair, CrossedVariance]]


def _unknown(pairs: Iterable[Pair]) -> Mapping[Pair, CrossedVariance]:
  return {}


@dataclasses.dataclass(frozen=True)
class Column:
  """Scores of one measure at one length of one group, and the pairs to judge.

  scores      {label: {seed: value}} with only the values that exist
  better      "lower" or "higher"
  pairs       of labels: the first is compared with the second
  primary     pairs that are judged; the others are exploratory
  excused     {label: (verdict, reason)} of runs without a test: an undefined length, a
              failed run, one that lost seeds
  unlike      {pair: reason} of runs that must not be compared: other targets or data
  baseline    label of the sweep's baseline
  best        whether the variant with the best mean may be called best
  resolution  standard error of one score from its examples; 0: unknown
  test_sets   returns {pair: variances of its difference over seeds and examples} of
              pairs; those are missing whose examples' scores are unknown
  bounds      least and largest value of the measure
  margin      difference up to which two variants are equivalent; None: not tested

  >>> Column({"none": {0: 1.0}}, "lower", [("none", "none")]).primary
  ()
  """

  scores: Mapping[str, Mapping[int, float]]
  better: str
  pairs: Sequence[Pair]
  primary: Collection[Pair] = ()
  excused: Mapping[str, Excuse] = dataclasses.field(default_factory=dict)
  unlike: Mapping[Pair, str] = dataclasses.field(default_factory=dict)
  baseline: str | None = None
  best: bool = False
  resolution: float = 0.0
  test_sets: TestSets = _unknown
  bounds: Bounds = UNBOUNDED
  margin: float | None = None

  def __post_init__(self):
    if self.better not in ("lower", "higher"):
      raise ValueError(f"better={self.better!r} is neither 'lower' nor 'higher'")


@dataclasses.dataclass(frozen=True)
class Judgement:
  """Judgement of one pair: score of the first, its difference, verdict.

  estimate       of the first, over the seeds that both have
  difference     first minus second
  p              two-sided p value of the difference alone; None: not tested
  p_holm         p value of the claim after the correction over the whole report
  p_equivalent   of two one-sided tests against the margin
  verdict        one of VERDICTS
  reason         why the verdict is neither better, worse nor equivalent
  seeds          those of the estimate
  more           seeds that would resolve it
  examples_error standard error that the scored examples add; None: unknown

  >>> none, rope = {0: 0.50, 1: 0.52, 2: 0.49}, {0: 0.91, 1: 0.92, 2: 0.90}
  >>> pair = "rope", "none"
  >>> column = Column({"none": none, "rope": rope}, "higher", [pair], [pair])
  >>> found = judge({"text": column})["text"].of[pair]
  >>> found.verdict, round(found.difference.mean, 2)
  ('better', 0.41)
  """

  estimate: Estimate
  difference: Estimate
  p: float | None
  p_holm: float | None
  p_equivalent: float | None
  verdict: str
  reason: str = ""
  seeds: tuple[int, ...] = ()
  more: MoreSeeds | None = None
  examples_error: float | None = None


@dataclasses.dataclass(frozen=True)
class Judgements:
  """Judgements of a column.

  of        by pair
  leaders   the variant with the best mean and those not told apart from it: alone, it
            is best; (): nothing is claimed

  >>> Judgements({}).leaders
  ()
  """

  of: Mapping[Pair, Judgement]
  leaders: tuple[str, ...] = ()


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
      pair: excuse for pair in column.pairs if (excuse := _excuse(column, pair))
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
    partly = "" if pair in self.excuses else _partly(ours, theirs, against)
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
      return unresolved, _no_spread(pair[1], contrast)
    if p < ALPHA:
      return unresolved, f"p = {p:.3g} alone, {adjusted:.3g} among {size} comparisons"
    return unresolved, f"p = {adjusted:.3g}"


def _excuse(column: Column, pair: Pair) -> Excuse | None:
  """Returns (verdict, reason) of a pair that is not tested, or None."""
  label, against = pair
  if label in column.excused and label != against:
    return column.excused[label]
  if label == against:
    return column.excused.get(label, ("baseline", ""))
  if against is None:
    return "not compared", "no baseline is named"
  named = f"the baseline {against}" if against == column.baseline else against
  if against not in column.scores:
    return "not compared", f"{named} is not in this group"
  if against in column.excused:
    verdict, reason = column.excused[against]
    return "not compared", f"{named} is {verdict} here ({reason})"
  if not column.scores[against]:
    return "not compared", f"{named} has no value here"
  unlike = column.unlike.get(pair)
  return ("not compared", unlike) if unlike else None


def _shared(values: Mapping[int, float], against: Mapping[int, float]) -> dict:
  """Returns the values of the seeds that both have; all where there is none.

  A mean over other seeds must not stand beside a difference over these.
  """
  both = {seed: value for seed, value in values.items() if seed in against}
  return both or dict(values)


def _partly(
  values: Mapping[int, float], against: Mapping[int, float], name: str | None
) -> str:
  """Says over which seeds two runs are compared, where one of them has more."""
  both = sorted(values.keys() & against.keys())
  if not both or values.keys() == against.keys():
    return ""
  seeds = ", ".join(map(str, both))
  return f"over seed{'s' * (len(both) > 1)} {seeds}, which it shares with {name}"


def _examples_error(contrast: Contrast | None) -> float | None:
  if contrast is None or contrast.test_set is None:
    return None
  return math.sqrt(contrast.test_set.examples)


def _no_spread(against: str | None, contrast: Contrast) -> str:
  if not contrast.mean:
    return f"equal to {against} in every seed"
  return (
    f"the same difference in all {contrast.count} seeds leaves no spread to test;"
    f" sign test p = {contrast.p:.3g}"
  )
