"""Plans are data: which configs to run, what to call them, and what to compare with.

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

BASELINE = "baseline"  # the label of a run that changes nothing


@dataclasses.dataclass(frozen=True)
class Change:
  """What one run changes. Its label shows the keys `shown`, unless it has a name."""

  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  shown: tuple[str, ...] = ()
  name: str = ""
  group: str = ""

  @property
  def label(self) -> str:
    """Returns what tells this run from the others of its group."""
    return self.name or describe({key: self.overrides[key] for key in self.shown})


def describe(overrides: Mapping[str, Any]) -> str:
  """Returns a short label: `rope`, `rope steps=800`, or `baseline` for no change."""
  return " ".join(_show(*item) for item in overrides.items()) or BASELINE


def _show(key: str, value: Any) -> str:
  """Writes an encoding, core or task as it is and puts the key before all else."""
  bare = key in ("model.position", "model.attention", "model.core", "task")
  return str(value) if bare else f"{key.rpartition('.')[2]}={value}"


def _changes(overrides: Mapping[str, Any]) -> Change:
  return Change(dict(overrides), tuple(overrides))


def _axes(values: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
  """Returns the axes as they are, unless one has nothing to try."""
  for key, choices in values.items():
    if isinstance(choices, str) or not len(choices):
      raise ConfigError(f"{key}={choices!r} in a plan: write a tuple of values to try")
  return values


@dataclasses.dataclass(frozen=True)
class Grid:
  """Tries every combination."""

  values: Mapping[str, Sequence[Any]]

  def __iter__(self) -> Iterator[Change]:
    for row in itertools.product(*_axes(self.values).values()):
      yield _changes(dict(zip(self.values, row, strict=True)))


@dataclasses.dataclass(frozen=True)
class Zipped:
  """Tries the first values together, then the second values, and so on."""

  values: Mapping[str, Sequence[Any]]

  def __iter__(self) -> Iterator[Change]:
    sizes = {key: len(choices) for key, choices in _axes(self.values).items()}
    if len({*sizes.values()}) > 1:
      raise ConfigError(f"zipped keys have different numbers of values: {sizes}")
    for row in zip(*self.values.values(), strict=True):
      yield _changes(dict(zip(self.values, row, strict=True)))


@dataclasses.dataclass(frozen=True)
class OneAtATime:
  """Tries the baseline, then each value alone."""

  values: Mapping[str, Sequence[Any]]

  def __iter__(self) -> Iterator[Change]:
    yield Change()
    for key, choices in _axes(self.values).items():
      yield from (_changes({key: value}) for value in choices)


@dataclasses.dataclass(frozen=True)
class MinusOne:
  """Tries everything together, then everything without each key in turn."""

  overrides: Mapping[str, Any]

  def __iter__(self) -> Iterator[Change]:
    yield Change(self.overrides)
    for absent in self.overrides:
      kept = {key: value for key, value in self.overrides.items() if key != absent}
      yield Change(kept, name=f"without {absent.rpartition('.')[2]}")


@dataclasses.dataclass(frozen=True)
class Group:
  """Names runs that are compared with one another, and what they share."""

  name: str
  runs: Iterable[Change]
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __iter__(self) -> Iterator[Change]:
    for change in self.runs:
      overrides = {**self.overrides, **change.overrides}
      yield dataclasses.replace(change, overrides=overrides, group=self.name)


@dataclasses.dataclass(frozen=True)
class Chain:
  """Runs one plan after another."""

  parts: tuple[Iterable[Change], ...]

  def __init__(self, *parts: Iterable[Change]):
    object.__setattr__(self, "parts", parts)

  def __iter__(self) -> Iterator[Change]:
    return itertools.chain.from_iterable(self.parts)


@dataclasses.dataclass(frozen=True)
class Plan:
  """A question, the runs that answer it, and the label all others are compared with.

  question   headline of the report
  runs       changes of the config, one for each run
  baseline   label of the run that all others of its group are compared with
  cost       time of all runs as they were measured, which a sweep says as it starts
  """

  question: str
  runs: Iterable[Change]
  baseline: str = BASELINE
  cost: str = ""


@dataclasses.dataclass(frozen=True)
class Run:
  """One line of a sweep: everything needed to run it and to name it."""

  id: str
  label: str
  group: str
  config: ConfigDict
  overrides: Mapping[str, Any]  # on top of the config file


def run_id(config: ConfigDict) -> str:
  """Returns a short hash of all values that can change a result."""
  return identity.run_id(flatten(config))


def expand(plan: Plan, base: ConfigDict, flags: Mapping[str, Any]) -> list[Run]:
  """Returns the runs of a plan, each once, in its order.

  Flags hold for every run and win over the plan. Where two runs thereby become the same
  line of the table, the one that had these values in the plan stays, else the first.
  """
  runs: dict[tuple[str, str], Run] = {}
  settled: set[tuple[str, str]] = set()
  planned = [_run(change, base, {}) for change in plan.runs]
  for change in plan.runs:
    moved = _moved(change, base, flags)
    run = _run(change, base, flags)
    if "task" in moved:  # it belongs to a group of its new task
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
  """Returns the runs of some groups; no groups means all."""
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
  """Returns the group of the planned run of this task that is most like the config.

  The first of those that are equally like it; without any, the name of the task.
  """
  ours = flatten(config)
  unlike = lambda run: sum(ours[key] != x for key, x in flatten(run.config).items())
  same = [run for run in planned if run.config.task == config.task]
  return min(same, key=unlike).group if same else config.task.partition("(")[0]


def _same_name(first: Run, second: Run) -> str:
  return (
    f"two different runs of the plan are both called '{first.label}' in group"
    f" '{first.group}': {dict(first.overrides)} and {dict(second.overrides)};"
    " put them into two groups"
  )


def baseline(plan: Plan, runs: Sequence[Run]) -> str:
  """Returns the label to compare with; the first one where flags removed the plan's."""
  planned = [change.label for change in plan.runs]
  if plan.baseline not in planned:
    near = nearest(plan.baseline, planned)
    raise ConfigError(
      f"the plan's baseline '{plan.baseline}' is none of its runs.{near}"
      f" Choose from {', '.join(dict.fromkeys(planned))}."
    )
  labels = [run.label for run in runs]
  return plan.baseline if plan.baseline in labels else labels[0]
