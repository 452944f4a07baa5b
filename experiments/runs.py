"""One folder per run, named by the run's id: nothing is run twice, nothing is lost.

lock            held while a process works on the run; the kernel drops it when it dies
config.json     what was asked for
status.json     how far it came
result.json     the answer
error.txt       why there is none
made_with.json  commit, versions, device, command; changes.patch is what git diff said
"""

import contextlib
import dataclasses
import fcntl
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.config import flatten
from experiments.plan import FREE, Run
from transformer_jax.training.files import (
  FileError,
  check_same_config,
  read_json,
  warn,
  write_json,
)

CRASHES = 3  # so often the process may die in a row without getting further
BUSY = "busy"  # another process works on it; the other states are in status.json


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a run stands: finished, failed, interrupted or busy."""

  state: str
  note: str = ""  # what the run's own line does not say


def folder(workdir: Path, run: Run) -> Path:
  return workdir / "runs" / run.id


def status(path: Path) -> dict[str, Any]:
  """Returns status.json of a run's folder; {} before the first attempt."""
  return _read(path / "status.json")


def result(path: Path) -> dict[str, Any]:
  """Returns result.json of a finished run, else {}."""
  finished = status(path).get("state") == "finished"
  return _read(path / "result.json") if finished else {}


def _read(path: Path) -> dict[str, Any]:
  """A damaged status or result costs another attempt, which resumes; no more."""
  try:
    return read_json(path)
  except FileNotFoundError:
    return {}
  except FileError as error:
    warn(f"{error}; going on from the run's last checkpoint")
    return {}


def progress(path: Path, step: int) -> None:
  """Records how far a run is; the loop calls it once per dispatch."""
  now = status(path)
  if step > now.get("step", 0):
    # A full disk must not end the training; the record and the checkpoints speak of it.
    with contextlib.suppress(OSError):
      write_json(path / "status.json", {**now, "step": step, "crashes": 0})


@contextlib.contextmanager
def claim(path: Path) -> Iterator[bool]:
  """Yields whether this process alone may work in the folder, and keeps it so."""
  path.mkdir(parents=True, exist_ok=True)
  with open(path / "lock", "w") as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      yield False
      return
    yield True


def perform(
  run: Run,
  workdir: Path,
  train: Callable[[Path], dict[str, Any] | None],
  facts: dict[str, Any],
  changes: str = "",
  retry: bool = False,
) -> Outcome:
  """Brings one run to an end, or says why not; an exception of the run is caught.

  train     called with the folder; returns the result, or None when asked to stop
  facts     what is saved with the result: command, commit, versions, device
  changes   the patch from the commit to the code that runs
  retry     also when its process died too often
  """
  path = folder(workdir, run)
  try:
    with claim(path) as mine:
      if not mine:
        return Outcome(BUSY, f"left to another process, which holds {path / 'lock'}")
      _check_config(run, path)
      if done := result(path):
        return Outcome("finished", _skipped(done, facts))
      return _attempt(run, path, train, facts, changes, retry)
  except (FileError, OSError) as error:  # another config, or a folder that is read-only
    return Outcome("failed", f"failed: {error}")


def _attempt(
  run: Run,
  path: Path,
  train: Callable[[Path], dict[str, Any] | None],
  facts: dict[str, Any],
  changes: str,
  retry: bool,
) -> Outcome:
  try:
    if given_up := _begin(run, path, retry):
      return given_up
    write_json(path / "made_with.json", facts)
    (path / "changes.patch").write_text(changes)
    return _end(run, path, train(path), facts)
  except Exception as error:
    return _fail(path, error)
  except BaseException:
    _mark(path, "interrupted")
    raise


def _begin(run: Run, path: Path, retry: bool) -> Outcome | None:
  """Counts the attempt and says what is run; returns an outcome to give up."""
  before = status(path)
  # Nobody holds the lock, so a run that says it is running died with its process.
  died = before.get("state") == "running"
  crashes = before.get("crashes", 0) + died
  if crashes >= CRASHES and not retry:
    error = f"its process died {crashes} times in a row (killed, or out of memory?)"
    _mark(path, "failed", error, crashes=crashes)
    return Outcome("failed", f"failed: {error}; --retry tries again")
  attempts = before.get("attempts", 0) + 1
  crashes = 0 if crashes >= CRASHES else crashes
  write_json(path / "config.json", flatten(run.config))
  _mark(path, "running", attempts=attempts, crashes=crashes)
  return None


def _check_config(run: Run, path: Path) -> None:
  """Refuses a folder of another config; keys that change no result may differ."""
  file, now = path / "config.json", flatten(run.config)
  there = read_json(file) if file.exists() else {}
  check_same_config(path, now | {key: there.get(key, now[key]) for key in FREE})


def _end(
  run: Run, path: Path, found: dict[str, Any] | None, facts: dict[str, Any]
) -> Outcome:
  if found is None:
    _mark(path, "interrupted")
    return Outcome("interrupted")
  named = {"id": run.id, "label": run.label, "group": run.group}
  write_json(path / "result.json", {**found, **named, **facts})
  _mark(path, "finished")  # only after the result: a kill between the two repeats it
  (path / "error.txt").unlink(missing_ok=True)
  return Outcome("finished")


def _fail(path: Path, error: Exception) -> Outcome:
  """Saves the traceback and shows the last line: the other runs go on."""
  note = f"{type(error).__name__}: {error}"
  try:
    (path / "error.txt").write_text("".join(traceback.format_exception(error)))
    _mark(path, "failed", note)
  except OSError as full:
    warn(f"cannot record the failure of {path}: {full}")
  return Outcome("failed", f"failed: {note}")


def _mark(path: Path, state: str, error: str | None = None, **more: Any) -> None:
  now = {"attempts": 0, "step": 0, "crashes": 0, **status(path), **more}
  write_json(path / "status.json", {**now, "state": state, "error": error})


def _skipped(done: dict[str, Any], facts: dict[str, Any]) -> str:
  """Says that nothing had to be done, and whether the code was another one."""
  then, now = done.get("commit"), facts.get("commit")
  other = f" by other code: commit {then or 'unknown'}, now {now or 'unknown'}"
  return f"finished before{other if then != now else ''}"
