"""Plans as data: the configs of a sweep, their labels, and the baseline.

encodings = Grid({"model.position": ("none", "rope")})
runs = Chain(Group("text", encodings), Group("copy", encodings, {"task": "copy"}))
Plan("Which encoding reads further?", runs, baseline="none")
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from experiments.setup import primary
from experiments.setup.matching import Match
from experiments.setup.tuning import Tune
from experiments.setup.validate import ConfigError

BASELINE = "baseline"  # label of a run without changes


@dataclasses.dataclass(frozen=True)
class Change:
  """The changes of one run to the base config.

  overrides   {flat key: value}
  shown       keys in the label, unless there is a name
  name        label of the run; "": made of the shown keys
  group       runs that it is compared with; "": that of its task
  match       cost that it shares with the baseline; None: that of the plan
  ladder      name of its ladder of sizes; "": it is on none

  >>> Change({"model.position": "rope"}, shown=("model.position",)).label
  'rope'
  """

  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  shown: tuple[str, ...] = ()
  name: str = ""
  group: str = ""
  match: Match | None = None
  ladder: str = ""

  @property
  def label(self) -> str:
    """Returns the run's name within its group."""
    return self.name or describe({key: self.overrides[key] for key in self.shown})


def describe(overrides: Mapping[str, Any]) -> str:
  """Returns a short label: `rope`, `rope steps=800`, or `baseline` for no change."""
  return " ".join(_show(*item) for item in overrides.items()) or BASELINE


def _show(key: str, value: Any) -> str:
  """Returns `steps=800`; of an encoding, variant, core or task the value alone."""
  bare = key in ("model.position", "model.attention", "model.core", "task")
  return str(value) if bare else f"{key.rpartition('.')[2]}={value}"


def _changes(overrides: Mapping[str, Any]) -> Change:
  return Change(dict(overrides), tuple(overrides))


def _axes(values: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
  """Returns the axes unchanged; raises ConfigError for one without values."""
  for key, choices in values.items():
    if isinstance(choices, str) or not len(choices):
      raise ConfigError(f"{key}={choices!r} in a plan: write a tuple of values to try")
  return values


@dataclasses.dataclass(frozen=True)
class Grid:
  """Every combination of the values.

  >>> grid = Grid({"model.position": ("none", "rope"), "model.layers": (2, 4)})
  >>> [change.label for change in grid]
  ['none layers=2', 'none layers=4', 'rope layers=2', 'rope layers=4']
  """

  values: Mapping[str, Sequence[Any]]

  def __iter__(self) -> Iterator[Change]:
    for combination in itertools.product(*_axes(self.values).values()):
      yield _changes(dict(zip(self.values, combination, strict=True)))


@dataclasses.dataclass(frozen=True)
class Zipped:
  """The first values together, then the second values, and so on.

  >>> changes = Zipped({"model.width": (64, 128), "model.heads": (4, 8)})
  >>> [change.label for change in changes]
  ['width=64 heads=4', 'width=128 heads=8']
  """

  values: Mapping[str, Sequence[Any]]

  def __iter__(self) -> Iterator[Change]:
    sizes = {key: len(choices) for key, choices in _axes(self.values).items()}
    if len({*sizes.values()}) > 1:
      raise ConfigError(f"zipped keys have different numbers of values: {sizes}")
    for values in zip(*self.values.values(), strict=True):
      yield _changes(dict(zip(self.values, values, strict=True)))


@dataclasses.dataclass(frozen=True)
class OneAtATime:
  """The baseline, then each value alone.

  >>> [change.label for change in OneAtATime({"model.norm": ("rmsnorm", "layernorm")})]
  ['baseline', 'norm=rmsnorm', 'norm=layernorm']
  """

  values: Mapping[str, Sequence[Any]]

  def __iter__(self) -> Iterator[Change]:
    yield Change()
    for key, choices in _axes(self.values).items():
      yield from (_changes({key: value}) for value in choices)


@dataclasses.dataclass(frozen=True)
class MinusOne:
  """All overrides together, then all but each one in turn.

  >>> ablation = MinusOne({"model.position": "rope", "model.norm": "layernorm"})
  >>> [change.label for change in ablation]
  ['baseline', 'without position', 'without norm']
  """

  overrides: Mapping[str, Any]

  def __iter__(self) -> Iterator[Change]:
    yield Change(self.overrides)
    for absent in self.overrides:
      others = {key: value for key, value in self.overrides.items() if key != absent}
      yield Change(others, name=f"without {absent.rpartition('.')[2]}")


@dataclasses.dataclass(frozen=True)
class Group:
  """Runs that are compared with one another.

  name        of the group, in reports
  runs        their changes
  overrides   common to all runs; a run's own win
  match       cost that all runs share with the baseline, such as "flops" or
              Match("parameters", by="model.width"); None: that of the plan

  >>> copying = Group("copy", Grid({"model.position": ("none",)}), {"task": "copy"})
  >>> [(change.group, dict(change.overrides)) for change in copying]
  [('copy', {'task': 'copy', 'model.position': 'none'})]
  """

  name: str
  runs: Iterable[Change]
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  match: Match | str | None = None

  def __iter__(self) -> Iterator[Change]:
    for change in self.runs:
      overrides = {**self.overrides, **change.overrides}
      match = change.match or Match.of(self.match)
      yield dataclasses.replace(
        change, overrides=overrides, group=self.name, match=match
      )


@dataclasses.dataclass(frozen=True)
class Chain:
  """Runs of several groups, one after another.

  >>> grid = Grid({"model.position": ("none", "rope")})
  >>> [change.group for change in Chain(Group("text", grid), Group("copy", grid))]
  ['text', 'text', 'copy', 'copy']
  """

  parts: tuple[Iterable[Change], ...]

  def __init__(self, *parts: Iterable[Change]):
    object.__setattr__(self, "parts", parts)

  def __iter__(self) -> Iterator[Change]:
    return itertools.chain.from_iterable(self.parts)


@dataclasses.dataclass(frozen=True)
class Plan:
  """A question, the runs that answer it, and the label of the baseline.

  question      headline of the report
  runs          changes of the config, one for each run
  baseline      label of the run that others of its group are compared with
  cost          measured time of all runs, printed as a sweep starts
  match         cost that the runs of a group share with its baseline, unless their
                group names one: parameters, flops, tokens, seconds or a Match; None:
                nothing
  tune          search that each run gets before it is trained for the report; None:
                none
  comparisons   those that the report gives verdicts for; the default: the headline
                measure at the trained and the longest length, against the baseline

  >>> encodings = Grid({"model.position": ("none", "rope")})
  >>> plan = Plan("Does RoPE help?", encodings, baseline="none")
  >>> [change.label for change in plan.runs]
  ['none', 'rope']
  """

  question: str
  runs: Iterable[Change]
  baseline: str = BASELINE
  cost: str = ""
  match: Match | str | None = None
  tune: Tune | None = None
  comparisons: primary.Comparisons = primary.DEFAULT
