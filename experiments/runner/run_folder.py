"""Folder of one run, named by the run's id: nothing is run twice, nothing is lost.

lock            held while a process works on the run; the kernel drops it when it dies
.claim.N        the same for processes of other machines: see claims.py
config.json     the config
status.json     state, last step, process, checksums of a finished run's files
result.json     scores and cost of a finished run
examples.npz    the scores of its single examples: see evaluation/example_scores.py
error.txt       traceback of a failed run
made_with.json  commit, versions, device, command; changes.patch leads to the code
more_seeds/     checkpoints of seeds that were added later: see seed_blocks.py
inputs.json     fingerprints of its data, weights and user code; own_code/ has the code

If any of these files is damaged, a run resumes from its last intact checkpoint.
"""

import contextlib
import dataclasses
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.runner import history, seed_blocks, tensorboard
from experiments.runner.inputs import ChangedError, has_checkpoint
from experiments.runner.locks import LostError, check, claim, this_process
from experiments.runner.state import (
  checksum,
  checksums,
  count,
  damaged,
  quiet,
  result,
  status,
)
from experiments.setup.identity import identity
from experiments.setup.runs import Run
from experiments.setup.validate import flatten
from transformer_jax.training.json_files import (
  FileError,
  check_same_config,
  read_object,
  reason,
  replace_file,
  warn,
  write_json,
)
from transformer_jax.training.signals import fatal_errors_in

FAULTS = 3  # fatal errors (SIGSEGV, SIGABRT, ...) in a row without progress
KILLS = 3  # kills in a row without progress: the run comes last
BUSY = "busy"  # another process works on it; the other states are in status.json


@dataclasses.dataclass(frozen=True)
class Outcome:
  """State of a run after an attempt.

  state   finished, failed, interrupted or busy
  note    details for the user, "" for none
  """

  state: str
  note: str = ""


class RemovedError(FileError):
  """A run's folder was removed while the run trained."""


def folder(workdir: Path, run: Run) -> Path:
  """Returns the run's folder below that of the sweep."""
  return workdir / "runs" / run.id


def recorder(path: Path) -> Callable[[int], None]:
  """Returns a function that records the step in status.json, once per dispatch.

  It raises RemovedError when the folder is no longer the one that the run began in, and
  LostError when another process took it over; a folder without a lock is outside a
  sweep, and is not compared.
  """
  locked = (path / "lock").exists()

  def progress(step: int) -> None:
    check(path)
    now = status(path)
    if locked:
      _check_there(path, now)
    if step > count(now, "step"):
      # A full disk must not end the training; log and checkpoints report it.
      with contextlib.suppress(OSError):
        now = {"state": "running", "process": this_process(), **now}
        write_json(path / "status.json", {**now, "step": step, "kills": 0, "faults": 0})

  return progress


def _check_there(path: Path, now: dict[str, Any]) -> None:
  mine = this_process()
  if not (path / "lock").exists() or now.get("process", mine) != mine:
    raise RemovedError(
      f"{path} was removed while the run trained, with what it had written;"
      " the same command starts the run again"
    )


def perform(
  run: Run,
  workdir: Path,
  train: Callable[[Path], dict[str, Any] | None],
  facts: dict[str, Any],
  changes: bytes = b"",
  retry: bool = False,
  waited: bool = False,
) -> Outcome:
  """Trains and scores one run, unless it is finished; catches its exceptions.

  workdir   folder of the sweep
  train     called with the run's folder; returns the result, or None when stopped
  facts     saved with the result: command, commit, versions, device
  changes   the patch from the commit to the code that runs
  retry     also where its process crashed FAULTS times
  waited    another process worked on it before, whose failure then counts
  """
  path = folder(workdir, run)
  try:
    with claim(path) as mine:
      if not mine:
        return Outcome(BUSY)
      _check_config(run, path)
      if done := _finished(path):
        if history.same_code(done, facts):
          if not (lacks := history.lacking(path, run.config, done, facts)):
            return Outcome("finished", history.note(done, facts))
          if refused := history.refusal(path, lacks, done, facts):
            return Outcome("failed", f"failed: {refused}")
          extends = checksum(path / "result.json")
          return _attempt(
            run, workdir, train, facts, changes, retry, step=0, extends=extends
          )
        aside = history.set_aside(path)
        warn(f"{run.label}: its own code changed; its earlier results are in {aside}")
        return perform(run, workdir, train, facts, changes, retry, waited)
      if waited and (now := status(path)).get("state") == "failed":
        return Outcome("failed", f"failed in another process: {now.get('error')}")
      return _attempt(run, workdir, train, facts, changes, retry)
  except LostError as error:
    warn(str(error))
    return Outcome(BUSY)
  except (FileError, OSError) as error:  # another config, or a folder that is read-only
    return Outcome("failed", f"failed: {error}")


def _finished(path: Path) -> dict[str, Any]:
  """Returns the result, {} where a part of the run must be repeated."""
  done = result(path)
  lost = damaged(path, status(path)) if done else []
  if lost:
    damage = f"{path}: {' and '.join(lost)} not what was written"
    again = has_checkpoint(path)
    warn(f"{damage}; {'made again' if again else 'no checkpoint to make them again'}")
    return {} if again else done
  return done


def _attempt(
  run: Run,
  workdir: Path,
  train: Callable[[Path], dict[str, Any] | None],
  facts: dict[str, Any],
  changes: bytes,
  retry: bool,
  **marks: Any,
) -> Outcome:
  """Trains and scores a run.

  marks   written into the status of a finished run that gets seeds or scores; it stays
          finished where its inputs have changed
  """
  path = folder(workdir, run)
  finished = path / "status.json" if marks else None
  kept = {finished: finished.read_bytes()} if finished else {}
  try:
    if given_up := _begin(path, retry, **marks):
      return given_up
    before = history.remember(path)
    seeds = seed_blocks.extend(path, run.config.seeds)
    write_json(path / "config.json", {**flatten(run.config), "seeds": seeds})
    tensorboard.link(workdir, run)
    facts = {**facts, **history.earlier(path, facts)}
    write_json(path / "made_with.json", facts)
    replace_file(path / "changes.patch", changes)
    with fatal_errors_in(path / "error.txt"):
      scores = train(path)
    return _end(run, path, scores, facts)
  except ChangedError as error:
    history.restore(before | kept)
    return Outcome("failed", f"failed: {error}") if kept else _fail(path, error)
  except LostError:
    raise
  except Exception as error:
    return _fail(path, error)
  except BaseException:
    with contextlib.suppress(OSError, LostError):
      _mark(path, "interrupted")
    raise


def _begin(path: Path, retry: bool, **marks: Any) -> Outcome | None:
  """Counts the attempt; returns an outcome to give up.

  The lock was free, so the process of a run in state `running` has died. A fatal error
  of the program leaves its stack in error.txt, a kill from outside nothing.
  """
  before = status(path, quiet)  # `result` has warned of damage
  died = before.get("state") == "running"
  fatal = _fatal_error(path)
  kills = count(before, "kills") + (died and not fatal)
  faults = count(before, "faults") + (died and bool(fatal))
  if faults >= FAULTS and not retry:
    error = f"its process crashed {faults} times in a row ({fatal or 'see error.txt'})"
    _mark(path, "failed", error, faults=faults)
    return Outcome("failed", f"failed: {error}; --retry tries again")
  if died and kills >= KILLS:
    warn(
      f"{path}: its process was killed {kills} times without progress (preempted,"
      " or out of memory?); it is tried again"
    )
  for draft in path.glob(".*.tmp"):  # of a process that died while it wrote
    draft.unlink(missing_ok=True)
  _mark(
    path,
    "running",
    attempts=count(before, "attempts") + 1,
    kills=kills,
    faults=0 if faults >= FAULTS else faults,
    process=this_process(),
    checksums={},
    **marks,
  )
  return None


def _fatal_error(path: Path) -> str:
  """Returns Python's message on a fatal signal, "" for none."""
  try:
    first = (path / "error.txt").read_text(errors="replace").partition("\n")[0]
  except OSError:
    return ""
  return first if first.startswith("Fatal Python error") else ""


def _check_config(run: Run, path: Path) -> None:
  """Raises FileError for another config; keys that change no result may differ.

  The folder's name is the id of the config, so a damaged file is written again.
  """
  file, now = path / "config.json", flatten(run.config)
  try:
    there = read_object(file)
  except FileNotFoundError:
    return write_json(file, now)
  except (FileError, OSError) as error:
    warn(f"{file} is not readable ({reason(error)}); written again from the plan")
    return write_json(file, now)
  try:
    check_same_config(path, identity(there), identity(now))
  except FileError as error:
    raise FileError(
      f"{error} If only {file} was changed, delete that file: the run's id holds its"
      " config, and it goes on from its checkpoints."
    ) from error


def _end(
  run: Run, path: Path, scores: dict[str, Any] | None, facts: dict[str, Any]
) -> Outcome:
  """Writes the result; scores are None where the run was stopped."""
  check(path)
  _check_there(path, status(path, quiet))
  if scores is None:
    _mark(path, "interrupted")
    return Outcome("interrupted")
  named = {"id": run.id, "label": run.label, "group": run.group}
  write_json(path / "result.json", {**scores, **named, **facts})
  tensorboard.write_scores(path, run, scores)
  # Only after the result: a kill between the two repeats it.
  _mark(path, "finished", checksums=checksums(path))
  (path / "error.txt").unlink(missing_ok=True)
  return Outcome("finished")


def _fail(path: Path, error: Exception) -> Outcome:
  """Saves the traceback and shows the last line: the other runs go on."""
  if isinstance(error, RemovedError):
    return Outcome("failed", f"failed: {error}")
  check(path)
  kind = "" if isinstance(error, ChangedError) else f"{type(error).__name__}: "
  note = f"{kind}{error}"
  try:
    text = "".join(traceback.format_exception(error))
    replace_file(path / "error.txt", text.encode(errors="replace"))
    _mark(path, "failed", note)
  except OSError as full:
    warn(f"cannot record the failure of {path}: {full}")
  return Outcome("failed", f"failed: {note}")


def _mark(path: Path, state: str, error: str | None = None, **more: Any) -> None:
  """Writes the run's state; raises LostError where it is another process's now."""
  check(path)
  now = {
    "attempts": 0,
    "step": 0,
    "kills": 0,
    "faults": 0,
    **status(path, quiet),
    **more,
  }
  write_json(path / "status.json", {**now, "state": state, "error": error})
