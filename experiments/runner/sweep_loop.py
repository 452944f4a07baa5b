"""Runs of a sweep, here or in workers; the failure of one never stops the others."""

import copy
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.runner import (
  core_devices,
  dry_run,
  half_precision,
  history,
  process,
  provenance,
  run_folder,
  seed_blocks,
  state,
  sweep_progress,
  user_code,
  waiting,
)
from experiments.runner.hosts import compare, joint_run
from experiments.runner.hosts.stop import SharedStop
from experiments.runner.launchers import Loop, SweepWork, launcher_of
from experiments.runner.locks import claim, use_lease
from experiments.runner.sweep_report import report
from experiments.setup import command_line
from experiments.setup.command_line import Request
from experiments.setup.profiled_steps import ProfiledSteps
from experiments.setup.runs import Run
from experiments.setup.validate import ConfigError, validate
from transformer_jax import hosts
from transformer_jax.mesh_shape import MeshShape
from transformer_jax.training.json_files import write_json
from transformer_jax.training.log import make_patient
from transformer_jax.training.signals import Stop, stop_requested
from transformer_jax.untrusted import shown

# `build` and `train` import all libraries, for half a second. The functions that need
# them import them, so that a mistyped flag is refused at once.


def work(
  request: Request,
  tool: str,
  sweep: Callable[[], Mapping[str, Any]],
  todo: Sequence[Run],
) -> int:
  """Works through runs, writes the report and returns the exit code.

  request   the command line
  tool      name of the command, for the line that continues a stopped one
  sweep     returns the content of sweep.json; called while the folder is locked
  todo      the runs, in order
  """
  if request.profile:
    request.profile.check(todo)
  compare.check(request, todo, lambda: check(request, todo))
  if request.dry_run:
    code = dry_run.describe(request, todo)
    launcher_of(request.launcher).describe(request, len(todo))
    return code
  make_patient()
  hosts.from_leader("the sweep", lambda: begin(request.workdir, sweep))
  compare.check_folder(request.workdir)
  loop, states, stop = train_all(request, todo)
  if stop.received:
    return stopped(request, tool, stop)
  written = hosts.from_leader(
    "the report", lambda: report(request.workdir, loop.shared)
  )
  return 0 if written and states == {"finished"} else 1


def train_all(request: Request, todo: Sequence[Run]) -> tuple[Loop, set[str], Stop]:
  """Trains the runs; returns the loop, the states of its runs, and the stop signal."""
  launcher = launcher_of(request.launcher)
  unfinished = _announce(request, todo)
  with stop_requested() as own:
    stop = SharedStop(own) if hosts.count() > 1 else own
    work = SweepWork(
      request=request,
      todo=todo,
      folders=_folders(request.workdir, todo),
      unfinished=unfinished,
      stop=stop,
      one_by_one=functools.partial(SweepLoop, request, todo, stop),
    )
    loop = launcher.loop(work)
    return loop, {outcome.state for outcome in loop.outcomes()}, stop


def stopped(request: Request, tool: str, stop: Stop) -> int:
  """Prints the command that continues; returns the exit code of a signal."""
  assert stop.received is not None
  again = request.command(tool, workdir=True)
  where = " on every host" if hosts.count() > 1 else ""
  where += " (I: its number)" if request.hosts.process >= 0 else ""
  print(
    f"stopped by {stop.received.name}; the same command{where} continues:\n  {again}"
  )
  return stop.exit_code


def begin(workdir: Path, sweep: Callable[[], Mapping[str, Any]]) -> None:
  """Writes sweep.json; raises ConfigError for a home or root folder."""
  here = workdir.expanduser().resolve()
  home = os.path.expanduser("~")  # stays so where a user has none
  if here in (Path(here.anchor), Path(home).resolve()):
    raise ConfigError(
      f"--workdir={workdir}: runs go into a folder of their own; write for example"
      " --workdir=runs/first"
    )
  try:
    with claim(workdir, wait=True):
      write_json(workdir / "sweep.json", sweep())
  except OSError as error:
    raise ConfigError(f"--workdir={workdir}: {error}") from error


def set_devices(request: Request, todo: Sequence[Run]) -> None:
  """Gives this process the cores and the CPU devices of its runs."""
  process.fix_cores(request.cores, [MeshShape(**run.config.mesh) for run in todo])
  cores = process.cores()
  process.make_devices(core_devices.for_cores(run.config, cores) for run in todo)


def check(request: Request, todo: Sequence[Run]) -> None:
  """Raises ConfigError with the problems of all runs, before the first begins."""
  import jax

  from experiments.runner.build import build

  launcher = launcher_of(request.launcher)
  use_lease(request.lease)
  set_devices(request, todo)
  process.check_platform()
  devices = jax.device_count() if launcher.on_this_machine else None
  problems: dict[str, None] = {}
  for run in todo:
    try:
      validate(run.config, devices)
      build(run.config)
    except ConfigError as error:
      problems |= dict.fromkeys(error.problems)
    except ValueError as error:
      problems[f"{run.group} {run.label}: {error}"] = None
  problems |= dict.fromkeys([] if problems else compare.idle_processes(todo))
  if problems:
    raise ConfigError(*problems)
  if not request.dry_run:
    launcher.check(request)


def _announce(request: Request, todo: Sequence[Run]) -> int:
  """Prints how many runs there are; returns how many are unfinished."""
  folders = [run_folder.folder(request.workdir, run) for run in todo]
  codes = [user_code.facts(run.config) for run in todo]
  finished = sum(map(history.finished, folders, codes, (run.config for run in todo)))
  skipped = f", {finished} of them finished before and skipped" if finished else ""
  print(f"{dry_run.counted(todo)} in {request.workdir}{skipped}", flush=True)
  here = launcher_of(request.launcher).on_this_machine and finished < len(todo)
  if sentence := half_precision.offer(todo) if here else "":
    print(sentence, flush=True)
  return len(todo) - finished


def _named(workdir: Path, todo: Sequence[Run]) -> dict[str, Run]:
  """Returns the runs by the names of their bars, in the order of work."""
  named = {f"[{n}/{len(todo)}] {r.group} {r.label}": r for n, r in enumerate(todo, 1)}

  def often_killed(item: tuple[str, Run]) -> bool:
    return state.kills(run_folder.folder(workdir, item[1])) >= run_folder.KILLS

  # A run whose process is killed repeatedly comes last: the others finish.
  return dict(sorted(named.items(), key=often_killed))


def _folders(workdir: Path, todo: Sequence[Run]) -> dict[str, Path]:
  runs = _named(workdir, todo)
  return {name: run_folder.folder(workdir, run) for name, run in runs.items()}


class SweepLoop:
  """One command's work on its runs.

  shared   whether other processes worked on some of them
  """

  def __init__(self, request: Request, todo: Sequence[Run], stop: Stop):
    self.shared = False
    self._request, self._stop = request, stop
    named = _named(request.workdir, todo)
    order = hosts.from_leader("the order of the runs", lambda: list(named))
    self._runs = {name: named[name] for name in order}
    self._traced = request.profile.of(todo) if request.profile else None
    self._facts, self._changes = provenance.facts()

  def _folder(self, run: Run) -> Path:
    return run_folder.folder(self._request.workdir, run)

  def outcomes(self) -> Iterator[run_folder.Outcome]:
    """Yields the outcome of each run, until a signal stops the loop."""
    busy = {}
    for name, run in self._runs.items():
      if self._stop:
        return
      outcome = self.attempt(name)
      if outcome.state == run_folder.BUSY:
        busy[name] = self._folder(run)
      else:
        if not outcome.note:  # it took time
          self._print_progress()
        yield outcome
    self.shared = bool(busy)
    waited = functools.partial(self.attempt, waited=True)
    yield from waiting.outcomes(busy, waited, self._stop)

  def _print_progress(self) -> None:
    """Prints how many runs are done and failed, and the time left."""
    if len(self._runs) > 1 and not self._stop:
      ids = {self._folder(run).name for run in self._runs.values()}
      now = sweep_progress.progress(self._request.workdir, ids, idle=1)
      print(sweep_progress.line(now), flush=True)

  def attempt(self, name: str, waited: bool = False) -> run_folder.Outcome:
    """Works on one run; prints how it ended.

    waited   another process worked on it before, whose failure then counts
    """
    run, request = self._runs[name], self._request
    profile = request.profile if run is self._traced else None
    train = functools.partial(_train, run, name, self._stop, profile)
    more = {"allow": ",".join(request.allow)} if request.allow else {}
    more |= {"cores": str(request.cores)} if request.cores else {}
    command = command_line.command(
      "run", request.path, run.overrides, flags=more.items()
    )
    facts = {**self._facts, "command": command, **user_code.facts(run.config)}

    def attempt(train: Callable[[Path], dict[str, Any] | None]) -> run_folder.Outcome:
      return run_folder.perform(
        run,
        request.workdir,
        train,
        facts,
        changes=self._changes,
        retry=request.retry,
        waited=waited,
      )

    outcome = joint_run.perform(attempt, train)
    if profile and outcome.state == "finished" and outcome.note:
      print(f"{name}: no trace, the run has finished; use another --workdir")
    if outcome.note:  # a run that finished now has its progress bar
      print(shown(f"{name}: {outcome.note}"), flush=True)
    return outcome


def _train(
  run: Run, name: str, stop: Stop, profile: ProfiledSteps | None, folder: Path
) -> dict[str, Any] | None:
  from experiments.runner.profiling import tracing
  from experiments.runner.train import run as train

  config = copy.deepcopy(run.config)

  def seeds() -> tuple[int, ...]:
    user_code.check(folder, run.config)
    return seed_blocks.of_config(folder) or config.seeds

  config.seeds = tuple(hosts.from_leader("the seeds", seeds))
  with tracing(profile, folder):
    return train(config, folder, name, stop)
