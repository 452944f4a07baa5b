"""Primary comparisons of a plan: those that its report gives verdicts for.

Comparisons(lengths=("longest",), contrasts="all pairs")
Comparisons(contrasts=(("randomized(rope)", "rope"),), margin=0.02)
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.setup.validate import ConfigError
from transformer_jax.spec import nearest

BASELINE, ALL_PAIRS = CONTRASTS = "baseline", "all pairs"
TRAINED, LONGEST = LENGTHS = "trained", "longest"
LabelPair = tuple[str, str]  # labels: the first is compared with the second


@dataclasses.dataclass(frozen=True)
class Comparisons:
  """Primary comparisons: their verdicts share 5% error, all else is exploratory.

  measures   names of measures; (): the headline measure of each group
  lengths    "trained", "longest", or multiples of the training length
  part       scored part of the targets; "mean": all of them
  contrasts  "baseline": each variant against the baseline; "all pairs" of a group; or
             pairs of labels, each run against the second one
  margin     difference up to which two variants count as equivalent, in the measure's
             unit, or {measure: difference}; None: equivalence is not tested

  Raises ConfigError for a word, a pair or a margin that is impossible.

  >>> Comparisons(lengths=("trained", 4)).pairs(["none", "rope", "t5"], "none")
  [('rope', 'none'), ('t5', 'none')]
  >>> Comparisons(contrasts=(("t5", "rope"),)).pairs(["none", "rope", "t5"], "none")
  [('t5', 'rope')]
  """

  measures: tuple[str, ...] = ()
  lengths: tuple[str | float, ...] = LENGTHS
  part: str = "mean"
  contrasts: str | tuple[LabelPair, ...] = BASELINE
  margin: float | Mapping[str, float] | None = None

  def __post_init__(self):
    _check_words("measures", self.measures)
    _check_words("lengths", self.lengths)
    for length in self.lengths:
      if length not in LENGTHS and not _positive(length):
        raise ConfigError(
          f"comparisons: length {length!r}; write 'trained', 'longest' or a multiple"
          " of the training length, as in 4"
        )
    _check_contrasts(self.contrasts)
    margin = self.margin
    margins = [*margin.values()] if isinstance(margin, Mapping) else [margin]
    if margin is not None and not all(map(_positive, margins)):
      raise ConfigError(
        f"comparisons: margin={margin!r}; write a positive number, or one for each"
        " measure, as in {'accuracy': 0.02}"
      )

  def pairs(self, labels: Iterable[str], baseline: str | None) -> list[LabelPair]:
    """Returns the pairs that are compared in a group, each once.

    labels     of the group's runs
    baseline   label of the plan's baseline
    """
    labels = list(labels)
    if self.contrasts == BASELINE:
      return [(x, baseline) for x in labels if baseline and x != baseline]
    if not isinstance(self.contrasts, str):
      # A pair that opens with the baseline is the same comparison turned around.
      turned = [(b, a) if a == baseline else (a, b) for a, b in self.contrasts]
      return [x for x in dict.fromkeys(turned) if {*x} <= {*labels}]
    # The baseline, else the earlier run, is the one that is subtracted.
    order = sorted(labels, key=lambda label: label != baseline)
    return [(b, a) for n, a in enumerate(order) for b in order[n + 1 :]]

  def margin_of(self, measure: str) -> float | None:
    """Returns the margin of a measure, or None."""
    if isinstance(self.margin, Mapping):
      return self.margin.get(measure)
    return self.margin

  def without(self, labels: Iterable[str]) -> "Comparisons":
    """Returns the comparisons without the named pairs of runs that are gone."""
    if isinstance(self.contrasts, str):
      return self
    gone = {*labels}
    left = tuple(pair for pair in self.contrasts if not gone & {*pair})
    return dataclasses.replace(self, contrasts=left)

  def to_json(self) -> dict[str, Any]:
    """Returns the values as sweep.json has them."""
    return dataclasses.asdict(self)


def from_json(values: Any) -> Comparisons:
  """Returns the comparisons of sweep.json; None, as in older ones: the default.

  Raises ConfigError for values that are none.
  """
  if values is None:
    return DEFAULT
  names = [field.name for field in dataclasses.fields(Comparisons)]
  if not isinstance(values, dict):
    raise ConfigError(f"comparisons {values!r:.80} are no object with {names}")
  if unknown := [name for name in values if name not in names]:
    raise ConfigError(
      f"comparisons have no {unknown[0]!r}.{nearest(unknown[0], names)} They have"
      f" {', '.join(names)}."
    )
  return Comparisons(**{name: _frozen(value) for name, value in values.items()})


def _frozen(value: Any) -> Any:
  return tuple(map(_frozen, value)) if isinstance(value, list) else value


def check_names(comparisons: Comparisons, groups: Mapping[str, Iterable[str]]) -> None:
  """Raises ConfigError for a named run that does not exist, and for pairs of no group.

  groups   {name: labels of its runs}
  """
  if isinstance(comparisons.contrasts, str):
    return
  known = list(dict.fromkeys(x for labels in groups.values() for x in labels))
  for pair in comparisons.contrasts:
    for label in pair:
      if label not in known:
        raise ConfigError(missing("run", label, known))
    if not any({*pair} <= {*labels} for labels in groups.values()):
      raise ConfigError(
        f"comparisons: {pair[0]} and {pair[1]} are in no group together, and only runs"
        " of one group are compared"
      )


def check_cells(
  comparisons: Comparisons,
  multiples: Iterable[float],
  measures: Iterable[str],
) -> None:
  """Raises ConfigError for a measure or a length that no run has.

  multiples   scored lengths, as multiples of the training length
  measures    names of the measures of all runs
  """
  numbers, measures = sorted({*multiples}), list(dict.fromkeys(measures))
  for length in comparisons.lengths:
    if length not in LENGTHS and length not in numbers:
      known = ", ".join([*LENGTHS, *(f"{n:g}" for n in numbers)])
      raise ConfigError(
        f"comparisons: no run is scored at {length}x its training length; there is"
        f" {known}"
      )
  margins = comparisons.margin if isinstance(comparisons.margin, Mapping) else ()
  for measure in (*comparisons.measures, *margins):
    if measure not in measures:
      raise ConfigError(missing("measure", measure, measures))


def missing(kind: str, name: str, known: Iterable[str]) -> str:
  """Returns the sentence on a name that does not exist."""
  known = list(known)
  return (
    f"comparisons: there is no {kind} '{name}'.{nearest(name, known)} There is"
    f" {', '.join(known)}."
  )


def _check_words(name: str, values: Any) -> None:
  if not isinstance(values, tuple) or (name == "lengths" and not values):
    raise ConfigError(f"comparisons: {name}={values!r}; write a tuple, as in ('x',)")


def _check_contrasts(contrasts: Any) -> None:
  def is_pair(value: Any) -> bool:
    words = isinstance(value, tuple) and all(isinstance(x, str) for x in value)
    return words and len(value) == 2 and value[0] != value[1]

  pairs = isinstance(contrasts, tuple) and contrasts and all(map(is_pair, contrasts))
  if contrasts not in CONTRASTS and not pairs and contrasts != ():
    raise ConfigError(
      f"comparisons: contrasts={contrasts!r}; write 'baseline', 'all pairs', or pairs"
      " of two runs, as in (('rope', 'none'),)"
    )


def _positive(value: Any) -> bool:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and 0 < value < float("inf")


DEFAULT = Comparisons()
