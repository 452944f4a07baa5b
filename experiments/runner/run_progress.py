"""Progress of one run, read from its folder."""

import dataclasses
import functools
import socket
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.runner import claims, goodput, state
from experiments.runner.owner import started
from transformer_jax import untrusted
from transformer_jax.training.json_files import FileError, read_object
from transformer_jax.untrusted import shown

FINISHED, FAILED, RUNNING = "finished", "failed", "running"
STOPPED, WAITING = "stopped", "waiting"
LATE, LATE_DISPATCHES = 120.0, 5  # seconds, and dispatches, without a sign
TAIL = 4096  # bytes at the end of a metric log, which have the last loss


class Took(NamedTuple):
  """Seconds of a finished run: all of it, and its evaluation alone.

  >>> Took(whole=60.0, evaluation=20.0).evaluation
  20.0
  """

  whole: float
  evaluation: float


@dataclasses.dataclass(frozen=True)
class RunProgress:
  """How far a run is.

  state      finished, failed, running, stopped (it was interrupted, or its process has
             died) or waiting (it never began)
  steps      of its config; None: unknown, as all that follows
  reason     of a failure
  loss       mean over seeds at the last logged step
  dispatch   steps between two signs of a running run
  quiet_s    seconds since the last sign
  per_step   seconds of a step of this attempt
  began      of this attempt, in seconds since 1970
  took       of a finished run

  >>> RunProgress("a1", "rope", "text", RUNNING, step=20, steps=80, per_step=0.5).ahead
  30.0
  """

  id: str
  label: str
  group: str
  state: str
  step: int = 0
  steps: int | None = None
  attempts: int = 0
  reason: str = ""
  host: str = ""
  pid: int | None = None
  loss: float | None = None
  dispatch: int = 1
  quiet_s: float = 0.0
  per_step: float | None = None
  began: float | None = None
  took: Took | None = None

  @property
  def phase(self) -> str:
    """Returns what a running run does: preparing, training or evaluating."""
    if not self.step:
      return "preparing"
    return "evaluating" if self.steps and self.step >= self.steps else "training"

  @property
  def late_s(self) -> float | None:
    """Returns since when a training run gives no sign, None while that is no wonder."""
    usual = LATE_DISPATCHES * self.dispatch * (self.per_step or 0.0)
    late = self.phase == "training" and self.quiet_s > max(LATE, usual)
    return self.quiet_s if late else None

  @property
  def ahead(self) -> float | None:
    """Returns the seconds of the steps that are left, None where they are unknown."""
    if not (self.per_step and self.steps):
      return None
    return max(0, self.steps - self.step) * self.per_step


def run_progress(folder: Path, entry: Mapping[str, Any]) -> RunProgress:
  """Reads a run's folder; `entry` is that of sweep.json."""
  now = state.status(folder, state.quiet)
  process = now.get("process")
  process = process if isinstance(process, dict) else {}
  name = _state(folder, now, process)
  run = RunProgress(
    id=folder.name,
    label=shown(entry.get("label", folder.name)),
    group=shown(entry.get("group", "")),
    state=name,
    step=state.count(now, "step"),
    attempts=state.count(now, "attempts"),
    reason=shown(now.get("error") or ""),
    host=shown(process.get("host", "")),
    pid=process.get("pid"),
  )
  if name == FINISHED:
    return dataclasses.replace(run, took=_took(folder))
  if name == WAITING:
    return run
  run = dataclasses.replace(run, **_planned(folder))
  return dataclasses.replace(run, **_pace(folder)) if name == RUNNING else run


def _state(folder: Path, now: Mapping[str, Any], process: Mapping[str, Any]) -> str:
  name = now.get("state")
  if name == RUNNING and _ended(folder, process):
    return STOPPED
  return name if name in (FINISHED, FAILED, RUNNING) else STOPPED if name else WAITING


def _ended(folder: Path, process: Mapping[str, Any]) -> bool:
  """Returns whether a process has ended; of another machine that is not known."""
  if owner := claims.holder(folder):
    return owner.ended
  pid = process.get("pid")
  if process.get("host") != socket.gethostname() or not isinstance(pid, int):
    return False
  return not started(pid)


def _planned(folder: Path) -> dict[str, Any]:
  """Returns the steps of a run, in all and of a dispatch, as its config has them."""
  config = read_or_empty(folder / "config.json")
  keys = {"steps": "train.steps", "dispatch": "train.steps_per_dispatch"}
  found = {name: config.get(key) for name, key in keys.items()}
  return {name: value for name, value in found.items() if isinstance(value, int)}


def _pace(folder: Path) -> dict[str, Any]:
  """Returns loss, silence, start and time per step of a running run."""
  log = folder / "metrics.jsonl"
  attempts = goodput.recorded(folder)
  trained = attempts[-1]["trained"] if attempts else []
  steps = trained[-1]["to"] - trained[-1]["from"] if trained else 0
  changed = max(_stamp(folder / x)[0] for x in ("status.json", log.name, goodput.FILE))
  return {
    "loss": _last_loss(log),
    "quiet_s": round(max(0.0, time.time() - changed / 1e9), 1),
    "per_step": trained[-1]["seconds"] / steps if steps else None,
    "began": attempts[-1]["began"] if attempts else None,
  }


def _last_loss(log: Path) -> float | None:
  """Returns the mean loss of the seeds at the last step of a metric log."""
  try:
    with open(log, "rb") as file:
      file.seek(max(0, untrusted.size(log) - TAIL))
      lines = file.read().splitlines()
  except OSError:
    return None
  losses: dict[int, list[float]] = {}
  for line in lines:
    try:
      row = untrusted.parsed(line)
      losses.setdefault(int(row["step"]), []).append(float(row["loss"]))
    except (ValueError, KeyError, TypeError):
      continue  # half a line, or a loss that is no number
  last = losses.get(max(losses, default=0))
  return statistics.fmean(last) if last else None


def _took(folder: Path) -> Took | None:
  """Returns the seconds of a finished run; None where they were not recorded."""
  record, result = folder / goodput.FILE, folder / "result.json"
  return _took_at(folder, _stamp(record), _stamp(result))


@functools.lru_cache(maxsize=10_000)  # a page asks every few seconds
def _took_at(folder: Path, *stamps: tuple[int, int]) -> Took | None:
  """Returns `_took` of files as they were at these stamps."""
  if attempts := goodput.recorded(folder):
    spent = goodput.summary(attempts)
    return Took(spent["wall_s"], spent["seconds"]["evaluate"])
  seconds = read_or_empty(folder / "result.json").get("seconds")
  seconds = seconds if isinstance(seconds, dict) else {}
  spent = {k: v for k, v in seconds.items() if isinstance(v, int | float)}
  return Took(sum(spent.values()), spent.get("evaluate", 0.0)) if spent else None


def _stamp(path: Path) -> tuple[int, int]:
  """Returns time and size of a file, (0, 0) without one."""
  try:
    found = path.stat()
  except OSError:
    return 0, 0
  return found.st_mtime_ns, found.st_size


def read_or_empty(path: Path) -> dict[str, Any]:
  """Returns a file's object, {} where it is missing or damaged."""
  try:
    return read_object(path)
  except (OSError, FileError):
    return {}
