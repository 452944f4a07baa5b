"""Runs of a plan: configs with the flags, their ids, groups and baseline."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments.setup import identity, primary
from experiments.setup.matching import Match, Matched
from experiments.setup.plan import Change, Plan
from experiments.setup.registries import registries
from experiments.setup.tuning import Tuned
from experiments.setup.validate import ConfigError, flatten, resolve
from transformer_jax.spec import nearest


@dataclasses.dataclass(frozen=True)
class Run:
  """One run of a sweep.

  id          hash of the config, and name of the run's folder
  label       name within its group
  overrides   {flat key: value}, on top of the config file
  match       cost that it shares with its group's baseline; None: nothing
  matched     what was solved for it, once it is
  tuned       its search, once that is done
  ladder      name of its ladder of sizes; "": it is on none

  >>> config = ConfigDict({"train": {"steps": 10}})
  >>> run = Run(run_id(config), "rope", "copy", config, overrides={"train.steps": 10})
  >>> run.label, run.id == run_id(ConfigDict({"train": {"steps": 10}}))
  ('rope', True)
  """

  id: str
  label: str
  group: str
  config: ConfigDict
  overrides: Mapping[str, Any]
  match: Match | None = None
  matched: Matched | None = None
  tuned: Tuned | None = None
  ladder: str = ""

  def with_values(self, values: Mapping[str, Any]) -> "Run":
    """Returns the run with other values of some keys, and the id that they give it."""
    config = resolve(self.config, values)
    overrides = {**self.overrides, **values}
    return dataclasses.replace(
      self, id=run_id(config), config=config, overrides=overrides
    )

  def with_seeds(self, seeds: tuple[int, ...]) -> "Run":
    """Returns the same run with other seeds, which are no part of its id."""
    config = resolve(self.config, {"seeds": seeds})
    overrides = {**self.overrides, "seeds": seeds}
    return dataclasses.replace(self, config=config, overrides=overrides)

  def entry(self) -> dict[str, Any]:
    """Returns the run's entry in sweep.json."""
    named: dict[str, Any] = {"id": self.id, "label": self.label, "group": self.group}
    named |= {"ladder": self.ladder} if self.ladder else {}
    named |= {"matched": self.matched.record()} if self.matched else {}
    return named | ({"tuned": self.tuned.record()} if self.tuned else {})

  def message(self) -> dict[str, Any]:
    """Returns the run for another process, as JSON; `received` reads it."""
    return {
      "label": self.label,
      "group": self.group,
      "overrides": dict(self.overrides),
    }


def received(base: ConfigDict, message: Mapping[str, Any]) -> Run:
  """Returns the run of a message of `Run.message`.

  base   the config file's config
  """
  overrides = {
    key: tuple(value) if isinstance(value, list) else value
    for key, value in message["overrides"].items()
  }
  config = resolve(base, overrides)
  return Run(run_id(config), message["label"], message["group"], config, overrides)


def run_id(config: ConfigDict) -> str:
  """Returns a short hash of all values that can change what is trained."""
  return identity.run_id(flatten(config))


def expand(plan: Plan, base: ConfigDict, flags: Mapping[str, Any]) -> list[Run]:
  """Returns the runs of a plan, in its order; raises ConfigError.

  base    the config file's config
  flags   {flat key: value} for every run; they win over the plan

  Where flags give two runs one label, the run planned with these values stays, else the
  first. Two runs of one config are trained once; only a run that the plan names itself
  keeps its line then: `without norm` of a plan whose norm is the default. A group with
  a `match` keeps all its lines: each is solved to the group's own baseline.
  """
  runs: dict[tuple[str, str], Run] = {}
  settled: set[tuple[str, str]] = set()
  named: set[tuple[str, str]] = set()  # by the plan itself
  planned = [_run(change, base, {}) for change in plan.runs]
  common = Match.of(plan.match)
  for change in plan.runs:
    moved = _moved(change, base, flags)
    run = _run(change, base, flags)
    if "task" in moved and not change.ladder:  # it joins the runs of its new task
      run = dataclasses.replace(run, group=group_of(run.config, planned))
    match = change.match or common
    run = dataclasses.replace(run, match=match, ladder=change.ladder)
    line = (run.group, run.label)
    if not moved and line in settled and runs[line].id != run.id:
      raise ConfigError(_same_name(runs[line], run))
    if line not in runs or not (moved or line in settled):
      runs[line] = run
    settled |= set() if moved else {line}
    named |= {line} if change.name else set()
  if any(_moved(change, base, flags) for change in plan.runs):
    named = set()  # the plan shrinks
  first = {run.id: run for run in reversed(runs.values())}
  for run in runs.values():
    if _scored(run) != _scored(first[run.id]):
      raise ConfigError(_one_training(first[run.id], run))
  once = {_training(run): run for run in reversed(runs.values())}
  return [
    run for line, run in runs.items() if line in named or once[_training(run)] is run
  ]


def _training(run: Run) -> tuple[str, str]:
  """Returns the id of a run; one whose cost is matched is solved in its group."""
  return run.id, run.group if run.match else ""


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


def _scored(run: Run) -> tuple[Any, ...]:
  """Returns the seeds of a run and what it is scored on."""
  flat = flatten(run.config)
  return tuple(run.config.seeds), identity.evaluation(flat)


def _one_training(first: Run, second: Run) -> str:
  return (
    f"'{first.label}' and '{second.label}' of the plan differ in seeds or evaluate.*"
    " alone, which are one training: plan it once, and score it again with"
    " python -m experiments.evaluate"
  )


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


def comparisons(plan: Plan, runs: Sequence[Run]) -> primary.Comparisons:
  """Returns the plan's comparisons, without pairs of runs that flags removed.

  Raises ConfigError for a run that is not in the plan.
  """
  groups: dict[str, list[str]] = {}
  for change in plan.runs:
    groups.setdefault(change.group, []).append(change.label)
  primary.check_names(plan.comparisons, groups)
  planned = {label for labels in groups.values() for label in labels}
  return plan.comparisons.without(planned - {run.label for run in runs})


def check_cells(
  comparisons: primary.Comparisons, runs: Iterable[Run], written: Iterable[str]
) -> None:
  """Raises ConfigError for a measure or a length of comparisons that no run has.

  written   names of the measures of generated texts
  """
  multiples: set[float] = set()
  measures: dict[str, None] = {}
  for run in runs:
    multiples |= {*run.config.evaluate.lengths}
    measures |= dict.fromkeys(_measures(run.config))
  measures |= dict.fromkeys(written)
  primary.check_cells(comparisons, multiples, measures)


def _measures(config: ConfigDict) -> Iterable[str]:
  """Returns the names of the measures that a config scores."""
  from transformer_jax.evaluation.measures import name_of

  if not config.evaluate.measures:
    return registries()["task"].build(config.task).measures
  known = registries()["evaluate.measures"]
  return [name_of(known.build(spec)) for spec in config.evaluate.measures]
