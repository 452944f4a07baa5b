"""Runs of a sweep that a command works on: by group and label, finished."""

from collections.abc import Sequence
from pathlib import Path

from experiments.reporting.load import ReportError, read
from experiments.reporting.loaded_run import LoadedRun, Sweep
from experiments.setup.validate import ConfigError
from transformer_jax.spec import nearest


def planned(
  sweep: Sweep, groups: Sequence[str] = (), labels: Sequence[str] = ()
) -> list[LoadedRun]:
  """Returns the runs of groups and labels, without scores of experiments.evaluate.

  groups   of the sweep; (): all
  labels   of its runs; (): all

  Raises ConfigError, which names the flag, for one that is not there.
  """
  runs = [run for run in sweep.runs if not run.again_of]
  _check("groups", groups, [run.group for run in runs])
  _check("labels", labels, [run.label for run in runs])
  return [
    run
    for run in runs
    if run.group in (groups or [run.group]) and run.label in (labels or [run.label])
  ]


def finished(
  sweep: Sweep, groups: Sequence[str] = (), labels: Sequence[str] = ()
) -> list[LoadedRun]:
  """Returns those of `planned` that have a result; raises ConfigError for none."""
  runs = [run for run in planned(sweep, groups, labels) if run.result]
  if not runs:
    some = f" of {', '.join([*groups, *labels])}" if groups or labels else ""
    raise ConfigError(
      f"{sweep.workdir} has no finished run{some}: run its sweep to the end"
    )
  return runs


def folders(
  folder: Path, groups: Sequence[str] = (), labels: Sequence[str] = (), alone: str = ""
) -> dict[str, Path]:
  """Returns {label: folder} of a run, or of the finished runs of a sweep.

  folder           of either
  groups, labels   of a sweep, as in `planned`
  alone            label of a run that is given by itself

  A label has its group where several groups are chosen. Raises ConfigError.
  """
  if not (folder / "sweep.json").exists():
    if groups or labels:
      raise ConfigError(f"{folder} is no sweep: leave out --groups and --labels")
    return {alone: folder}
  try:
    runs = finished(read(folder), groups, labels)
  except ReportError as error:
    raise ConfigError(str(error)) from error
  several = len({run.group for run in runs}) > 1
  names = [f"{run.group} {run.label}" if several else run.label for run in runs]
  return {name: folder / "runs" / x.id for name, x in zip(names, runs, strict=True)}


def _check(flag: str, wanted: Sequence[str], known: Sequence[str]) -> None:
  for name in wanted:
    if name not in known:
      near, names = nearest(name, known), ", ".join(dict.fromkeys(known))
      raise ConfigError(f"--{flag}: there is no '{name}'.{near} {names}.")
