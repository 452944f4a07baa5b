"""Plans as data: the configs of a sweep, their labels, and the baseline.

encodings = Grid({"model.position": ("none", "rope")})
runs = Chain(Group("text", encodings), Group("copy", encodings, {"task": "copy"}))
Plan("Which encoding reads further?", runs, baseline="none")
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments.setup import identity
from experiments.setup.validate import ConfigError, flatten, resolve
from transformer_jax.spec import nearest

BASELINE = "baseline"  # label of a run without changes


@dataclasses.dataclass(frozen=True)
class Change:
  """The changes of one run to the base config.

  overrides   {flat key: value}
  shown       keys in the label, unless there is a name
  name        label of the run; "": made of the shown keys
  group       runs that it is compared with; "": that of its task

  >>> Change({"model.position": "rope"}, shown=("model.position",)).label
  'rope'
  """

  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  shown: tuple[str, ...] = ()
  name: str = ""
  group: str = ""

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
    for row in itertools.product(*_axes(self.values).values()):
      yield _changes(dict(zip(self.values, row, strict=True)))


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
    for row in zip(*self.values.values(), strict=True):
      yield _changes(dict(zip(self.values, row, strict=True)))


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

  >>> copying = Group("copy", Grid({"model.position": ("none",)}), {"task": "copy"})
  >>> [(change.group, dict(change.overrides)) for change in copying]
  [('copy', {'task': 'copy', 'model.position': 'none'})]
  """

  name: str
  runs: Iterable[Change]
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __iter__(self) -> Iterator[Change]:
    for change in self.runs:
      overrides = {**self.overrides, **change.overrides}
      yield dataclasses.replace(change, overrides=overrides, group=self.name)


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

  question   headline of the report
  runs       changes of the config, one for each run
  baseline   label of the run that all others of its group are compared with
  cost       measured time of all runs, printed as a sweep starts

  >>> encodings = Grid({"model.position": ("none", "rope")})
  >>> plan = Plan("Does RoPE help?", encodings, baseline="none")
  >>> [change.label for change in plan.runs]
  ['none', 'rope']
  """

  question: str
  runs: Iterable[Change]
  baseline: str = BASELINE
  cost: str = ""


@dataclasses.dataclass(frozen=True)
class Run:
  """One run of a sweep.

  id          hash of the config, and name of the run's folder
  label       name within its group
  overrides   {flat key: value}, on top of the config file
  """

  id: str
  label: str
  group: str
  config: ConfigDict
  overrides: Mapping[str, Any]


def run_id(config: ConfigDict) -> str:
  """Returns a short hash of all values that can change a result."""
  return identity.run_id(flatten(config))


def expand(plan: Plan, base: ConfigDict, flags: Mapping[str, Any]) -> list[Run]:
  """Returns the runs of a plan, each once, in its order; raises ConfigError.

  base    the config file's config
  flags   {flat key: value} for every run; they win over the plan

  Where flags give two runs one label, the run planned with these values stays, else the
  first.
  """
  runs: dict[tuple[str, str], Run] = {}
  settled: set[tuple[str, str]] = set()
  planned = [_run(change, base, {}) for change in plan.runs]
  for change in plan.runs:
    moved = _moved(change, base, flags)
    run = _run(change, base, flags)
    if "task" in moved:  # it is compared with runs of its new task
      run = dataclasses.replace(run, group=group_of(run.config, planned))
    line = (run.group, run.label)
    if not moved and line in settled and runs[line].id != run.id:
      raise ConfigError(_same_name(runs[line], run))
    if line not in runs or not (moved or line in settled):
      runs[line] = run
    settled |= set() if moved else {line}
  once = {run.id: run for run in reversed(runs.values())}
  return [run for run in runs.values() if once[run.id] is run]


def only(runs: Sequence[Run], groups: Sequence[str]) -> list[Run]:
  """Returns the runs of the named groups, all if none is named; raises ConfigError."""
  known = list(dict.fromkeys(run.group for run in runs))
  for group in groups:
    if group not in known:
      near = nearest(group, known)
      raise ConfigError(f"--groups: there is no '{group}'.{near} {', '.join(known)}.")
  return [run for run in runs if not groups or run.group in groups]


def _moved(
  change: Change, base: ConfigDict, flags: Mapping[str, Any]
) -> Mapping[str, Any]:
  """Returns the flags that contradict the plan."""
  plans = {"task": base.task, **change.overrides}
  return {key: value for key, value in flags.items() if plans.get(key, value) != value}


def _run(change: Change, base: ConfigDict, flags: Mapping[str, Any]) -> Run:
  overrides = {**change.overrides, **flags}
  config = resolve(base, overrides)
  group = change.group or config.task.partition("(")[0]
  label = dataclasses.replace(change, overrides=overrides).label
  return Run(run_id(config), label, group, config, overrides)


def group_of(config: ConfigDict, planned: Sequence[Run]) -> str:
  """Returns the group of the most similar planned run of the config's task.

  The first of equally similar ones; without any, the name of the task.
  """
  ours = flatten(config)

  def differences(run: Run) -> int:
    return sum(ours[key] != value for key, value in flatten(run.config).items())

  same = [run for run in planned if run.config.task == config.task]
  return min(same, key=differences).group if same else config.task.partition("(")[0]


def _same_name(first: Run, second: Run) -> str:
  return (
    f"two different runs of the plan are both called '{first.label}' in group"
    f" '{first.group}': {dict(first.overrides)} and {dict(second.overrides)};"
    " put them into two groups"
  )


def baseline(plan: Plan, runs: Sequence[Run]) -> str:
  """Returns the baseline's label; the first run's where flags removed the plan's."""
  planned = [change.label for change in plan.runs]
  if plan.baseline not in planned:
    near = nearest(plan.baseline, planned)
    raise ConfigError(
      f"the plan's baseline '{plan.baseline}' is none of its runs.{near}"
      f" Choose from {', '.join(dict.fromkeys(planned))}."
    )
  labels = [run.label for run in runs]
  return plan.baseline if plan.baseline in labels else labels[0]
