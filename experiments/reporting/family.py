"""One family-wise error for all claims of a report: verdicts, and "X is best".

A comparison is a unit: at most one thing is claimed of it, a difference or, with a
margin, equivalence. Holm's correction rejects the unit with the smallest p value first,
at the level over the number of units left. "X is best" costs nothing at first: X must
be better than the baseline, which is a unit already. It keeps half a unit alive for
each variant that was called better, since X could be falsely called better than the
true best. docs/statistics.md has the proof.

Holm, 1979, https://www.jstor.org/stable/4615733;
Hsu, 1996, Multiple Comparisons, chapter 4 (comparisons with the best).
"""

import dataclasses
import math
from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

Pair = tuple[str, str | None]  # a run, and the one that it is compared with
Name = TypeVar("Name", bound=Hashable)  # of a column


@dataclasses.dataclass(frozen=True)
class Unit:
  """One comparison of a family: the smaller p value of what may be claimed of it.

  p        None: not tested
  better   whether the claim is that the first of the pair is the better one
  equal    whether it is that both are equivalent

  >>> Unit(0.01, better=True).p
  0.01
  """

  p: float | None
  better: bool = False
  equal: bool = False


@dataclasses.dataclass(frozen=True)
class ColumnTests:
  """Tests of one column.

  units       {pair: unit}
  candidate   variant with the best mean; None: no variant may be called best
  rivals      {other variant: two-sided p value of its difference from the candidate};
              None: not tested

  >>> tests = ColumnTests({("rope", "none"): Unit(0.01, True)}, "rope", {"none": 0.01})
  >>> adjust({"text": tests}, "none").leaders["text"]
  ('rope',)
  """

  units: Mapping[Pair, Unit]
  candidate: str | None = None
  rivals: Mapping[str, float | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Adjusted(Generic[Name]):
  """Result of the correction.

  p           {column: {pair: p value after the correction}}; None: not tested
  leaders     {column: the candidate, then the variants not resolved from it}; without
              the column: its candidate is not resolved from the baseline
  threshold   p value below which a unit that is left would be claimed

  >>> adjust({}).threshold
  0.05
  """

  p: dict[Name, dict[Pair, float | None]]
  leaders: dict[Name, tuple[str, ...]]
  threshold: float


def adjust(
  columns: Mapping[Name, ColumnTests],
  baseline: str | None = None,
  level: float = 0.05,
) -> Adjusted[Name]:
  """Corrects the p values of all columns together.

  columns    tests by column
  baseline   second of the units' pairs; None: the units are all pairs
  level      family-wise error of the report

  >>> first = ColumnTests({("a", "none"): Unit(0.01), ("b", "none"): Unit(0.2)})
  >>> found = adjust({"1x": first, "8x": ColumnTests({("a", "none"): Unit(0.004)})})
  >>> {name: [*p.values()] for name, p in found.p.items()}
  {'1x': [0.02, 0.2], '8x': [0.012]}
  """
  p: dict[Name, dict[Pair, float | None]] = {
    name: dict.fromkeys(tests.units) for name, tests in columns.items()
  }
  left = float(sum(1 for _ in _units(columns)))
  remaining, highest = left, 0.0
  halves = dict.fromkeys(columns, 0.0)  # that are alive for "the candidate is best"
  claims = [*_units(columns), *_best(columns, baseline)]
  for value, name, pair in sorted(claims, key=lambda claim: claim[0]):
    highest = max(highest, min(1.0, left * value))
    if pair is None:
      left -= halves.pop(name)
    else:
      p[name][pair] = highest
      keep = 0.5 if name in halves and _rises(columns[name], pair, baseline) else 0.0
      left -= 1 - keep
      if keep:
        halves[name] += keep
    if highest < level:
      remaining = left
  threshold = level / max(remaining, 1.0)
  leaders = {
    name: _leaders(tests, p[name], baseline, level, threshold)
    for name, tests in columns.items()
  }
  return Adjusted(p, {name: x for name, x in leaders.items() if x}, threshold)


def _units(columns: Mapping[Name, ColumnTests]) -> Iterator[tuple[float, Name, Pair]]:
  """Yields (p value, column, pair) of each unit that is tested."""
  for name, tests in columns.items():
    for pair, unit in tests.units.items():
      if unit.p is not None and not math.isnan(unit.p):
        yield unit.p, name, pair


def _best(
  columns: Mapping[Name, ColumnTests], baseline: str | None
) -> Iterator[tuple[float, Name, None]]:
  """Yields (p value, column, None) where the candidate may be called best.

  Its p value is the largest of its rivals', and so not below that of its own unit.
  """
  for name, tests in columns.items():
    rivals = [x for x in tests.rivals.values() if x is not None]
    gate = tests.units.get((tests.candidate or "", baseline or ""))
    if gate and gate.better and len(rivals) == len(tests.rivals):
      yield max(rivals), name, None


def _rises(tests: ColumnTests, pair: Pair, baseline: str | None) -> bool:
  """Returns whether a claimed unit leaves a variant that may be called best."""
  candidate = tests.candidate not in (None, baseline)
  return candidate and baseline is not None and tests.units[pair].better


def _leaders(
  tests: ColumnTests,
  p: Mapping[Pair, float | None],
  baseline: str | None,
  level: float,
  threshold: float,
) -> tuple[str, ...]:
  """Returns the candidate and those that are not resolved from it; (): no claim.

  p           of the column's units, corrected
  threshold   of the candidate's differences that are no units
  """

  def claimed(pair: Pair) -> bool:
    value, unit = p.get(pair), tests.units.get(pair)
    return value is not None and value < level and unit is not None and not unit.equal

  best = tests.candidate
  if best is None:
    return ()
  if baseline is not None and best != baseline and not claimed((best, baseline)):
    return ()

  free = baseline is not None and best != baseline

  def resolved(rival: str, below: float) -> bool:
    if claimed((best, rival)) or claimed((rival, best)):
      return True
    value = tests.rivals[rival]
    return free and value is not None and value < below

  if all(resolved(rival, threshold) for rival in tests.rivals):
    return (best,)
  # Of several that are equal, any pair may be resolved by chance, not one alone.
  below = threshold / max(len(tests.rivals) - 1, 1)
  return (best, *(rival for rival in tests.rivals if not resolved(rival, below)))
