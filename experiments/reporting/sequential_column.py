"""A column of a sweep that adds seeds until it is resolved: tests at each look.

A look has the scores of its seeds alone: later seeds of the two runs do not change its
p value, later seeds of other variants may, through the pooled variance. It may spend a
share w of the error: the p value of a comparison over looks is the smallest p / w, at
most 1. Whatever the dependence between looks, and whatever was decided at them, it is
below x with a chance of at most x (Bonferroni), as family.py needs it.
docs/statistics.md has simulations of whole sweeps.

Lan and DeMets, 1983, https://doi.org/10.1093/biomet/70.3.659 (error spent over looks);
Maurer and Bretz, 2013, https://doi.org/10.1080/19466315.2013.807748 (Holm's and related
corrections in group-sequential trials).
"""

from collections.abc import Iterable, Mapping, Sequence

from experiments.reporting.family import Pair, Unit
from experiments.reporting.judgements import Column
from experiments.reporting.measured import MeasuredColumn
from experiments.reporting.moderated import Contrast
from experiments.reporting.power import MoreSeeds, more_seeds
from experiments.reporting.statistics import lower_is_better


class SequentialColumn(MeasuredColumn):
  """A column with the differences of its pairs at each look.

  at_looks   {tested pair: its difference at each look that both runs have reached}

  >>> from experiments.setup.looks import declared
  >>> scores = {"none": {0: 1.0, 1: 2.0, 2: 1.5}, "rope": {0: 3.0, 1: 3.9}}
  >>> pairs, looks = [("rope", "none")], declared((0, 1), 3).each
  >>> found = SequentialColumn(Column(scores, "lower", pairs, pairs, looks=looks))
  >>> len(looks), len(found.at_looks["rope", "none"])
  (2, 1)
  """

  def __init__(self, column: Column):
    super().__init__(column)
    self.at_looks = self.differences(self.tested())

  def unit(self, pair: Pair) -> Unit:
    """Returns a tested pair's unit, that of the look with the smallest p / w."""
    units = [self.unit_of(contrast) for contrast in self.at_looks[pair]]
    weighed = [
      (unit.p / look.weight, unit)
      for unit, look in zip(units, self.column.looks, strict=False)
      if unit.p is not None
    ]
    if not weighed:  # it will be tested at a later look: it counts from the first
      return Unit(1.0)
    p, unit = min(weighed, key=lambda each: each[0])
    return Unit(min(p, 1.0), unit.better, unit.equal)

  def p(self, pair: Pair) -> float | None:
    """Returns the p value of a tested pair alone over its looks; None: not tested."""
    return self._p_over_looks(contrast.p for contrast in self.at_looks[pair])

  def p_equivalent(self, pair: Pair) -> float | None:
    """Returns the p value of equivalence over looks; None: not tested."""
    margin = self.column.margin
    return self._p_over_looks(x.p_equivalent(margin) for x in self.at_looks[pair])

  def more(self, pair: Pair, threshold: float) -> MoreSeeds | None:
    """Returns the seeds that would resolve a tested pair at a later look.

    None: unknown, or without a later look. The share of the last look counts.
    """
    contrasts, looks = self.at_looks[pair], self.column.looks
    if not contrasts or len(contrasts) == len(looks):
      return None
    below = threshold * looks[-1].weight
    return more_seeds(contrasts[-1], below, self.column.margin)

  def untested(self, pair: Pair) -> str:
    """Returns why a pair with common seeds has no p value."""
    return f"no look yet: the first is at {len(self.column.looks[0].seeds)} seeds"

  def candidate(
    self, tested: Sequence[Pair], baseline: str | None
  ) -> tuple[str, list[str]]:
    """Returns the tested variant with the best difference, and the others.

    Differences are from the baseline, else from the first one, over common seeds: runs
    that stopped at an early look have fewer than others.
    """
    labels = self.labels(tested)
    first = baseline if baseline and baseline in labels else labels[0]
    others: list[Pair] = [(label, first) for label in labels if label != first]
    means = {pair[0]: c.mean for pair, c in self.compare(self.sound, others).items()}
    means[first] = 0.0
    best = min(labels, key=lambda x: lower_is_better(means[x], self.column.better))
    return best, [label for label in labels if label != best]

  def rivals(self, candidate: str, rivals: list[str]) -> dict[str, float | None]:
    """Returns {rival: p value over looks of the candidate's lead}.

    A look at which the rival was ahead is no reason to call the candidate better.
    """
    differences = self.differences([(candidate, rival) for rival in rivals])
    return {
      rival: self._p_over_looks(map(self._p_of_lead, differences[candidate, rival]))
      for rival in rivals
    }

  def differences(self, pairs: Iterable[Pair]) -> dict[Pair, list[Contrast]]:
    """Returns {pair: its difference at each look that both runs have reached}."""
    found: dict[Pair, list[Contrast]] = {pair: [] for pair in pairs}
    for look in self.column.looks:
      scores = {x: _at_seeds(values, look.seeds) for x, values in self.sound.items()}
      reached = [pair for pair in found if _complete(scores, pair, len(look.seeds))]
      for pair, contrast in self.compare(scores, reached, look.seeds).items():
        found[pair].append(contrast)
    return found

  def _p_of_lead(self, contrast: Contrast) -> float | None:
    """Returns the p value of a difference at a look, 1 where the rival was ahead."""
    return contrast.p if contrast.p is None or self.improves(contrast) else 1.0

  def _p_over_looks(self, values: Iterable[float | None]) -> float | None:
    """Returns the p value over looks, from that of each; None: none was tested."""
    looks = self.column.looks
    weighed = [
      p / look.weight for p, look in zip(values, looks, strict=False) if p is not None
    ]
    return min([*weighed, 1.0]) if weighed else None


def _at_seeds(values: Mapping[int, float], seeds: Iterable[int]) -> dict[int, float]:
  """Returns the values of a look's seeds, as far as they are there."""
  return {seed: values[seed] for seed in seeds if seed in values}


def _complete(
  scores: Mapping[str, Mapping[int, float]], pair: Pair, count: int
) -> bool:
  """Returns whether both runs of a pair have the number of seeds of a look."""
  return all(len(scores.get(label or "", ())) == count for label in pair)
