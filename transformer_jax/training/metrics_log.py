"""Metric log of a run: JSON lines and TensorBoard events.

metrics.jsonl is the record. TensorBoard shows one run per seed (`tensorboard/seed0`),
so that the seeds of all runs below a folder share one chart per metric. Its events have
checksums: lost rows of metrics.jsonl are restored from them.
"""

import contextlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformer_jax.training import events, rows
from transformer_jax.training.json_files import (
  FileError,
  free_space,
  make_folder,
  make_way,
  replace_file,
  warn,
)

read = rows.read


class MetricLog:
  """Appends rows to `directory`/metrics.jsonl and scalars to `directory`/tensorboard.

  Every call reaches the file, so `kill -9` loses nothing that was written. If the disk
  is full, rows wait in memory; `close` raises FileError if they still do not fit.

  others   seeds whose rows `resume` and `mend` leave as they are

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   with MetricLog(folder) as log:
  ...     log.write(step=5, seed=0, loss=1.5)
  ...   read(Path(folder) / "metrics.jsonl")
  [{'step': 5, 'seed': 0, 'loss': 1.5}]
  """

  def __init__(self, directory: str | Path, others: Sequence[int] = ()):
    self._directory, self._others = Path(directory), {*others}
    self._directory.mkdir(parents=True, exist_ok=True)
    self._path = self._directory / "metrics.jsonl"
    make_way(self._path)
    _drop_half_line(self._path)
    self._rows = Appender(self._path)
    self._boards: dict[str, Appender] = {}
    self._lost_from: int | None = None

  def __enter__(self) -> "MetricLog":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def write(self, step: int, seed: int | None = None, **metrics: Any) -> None:
    """Appends one row; numbers, NaN and infinities included, also go to TensorBoard."""
    which = {} if seed is None else {"seed": int(seed)}
    row = {"step": int(step)} | which | _unwrap(metrics)
    self._rows.append(rows.line(row))
    numbers = {k: v for k, v in row.items() if k in metrics and rows.is_number(v)}
    board = self._board(seed)
    frames = [events.framed(events.scalar(*item), step) for item in numbers.items()]
    board.append(b"".join(frames))

  def resume(self, steps: Sequence[int], seeds: Sequence[int]) -> list[int]:
    """Removes all rows but those of `steps`, as `mend` does; call it after restoring.

    TensorBoard purges the events after the last of these steps.
    """
    lost = self.mend(steps, seeds)
    self._lost_from = max(steps, default=0) + 1
    return lost

  def mend(self, steps: Sequence[int], seeds: Sequence[int]) -> list[int]:
    """Repairs the log to one row per step and seed; returns the steps without one.

    Missing and damaged rows are restored from TensorBoard's copy, whose numbers have
    the precision of float32.
    """
    self._close_files()
    content = self._path.read_bytes() if self._path.is_file() else b""
    there = {(r["step"], r.get("seed")): r for r in rows.parsed(content) if r}
    best = {}
    copies = {seed: events.scalars(self._directory / _run(seed)) for seed in seeds}
    for at in itertools.product(steps, seeds):
      step, seed = at
      best[at] = rows.whole(at, there.get(at), copies[seed].get(step))
    kept = [rows.line(row) for (_, seed), row in there.items() if seed in self._others]
    kept += [rows.line(row) for row in best.values() if row]
    if b"".join(kept) != content:
      replace_file(self._path, b"".join(kept))
    lost = sorted({step for (step, _), row in best.items() if not row})
    self._say(sorted({at[0] for at in best if best[at] != there.get(at)}), lost)
    self._rows = Appender(self._path)
    return lost

  def _say(self, changed: list[int], lost: list[int]) -> None:
    """Warns of damaged steps, restored and lost."""
    restored = sorted({*changed} - {*lost})
    where = f"{self._path} was damaged"
    if restored:
      warn(f"{where}: {_steps(restored)} restored from TensorBoard's copy")
    if lost:
      warn(
        f"{where}: {_steps(lost)} lost, in TensorBoard's copy too; the scores do not"
        " depend on them, the training curves have a gap"
      )

  def close(self) -> None:
    """Closes the files; raises FileError if rows could not be written."""
    self._close_files()

  def _close_files(self) -> None:
    with contextlib.ExitStack() as stack:  # all of them, also if one raises
      for file in (self._rows, *self._boards.values()):
        stack.callback(file.close)
    self._boards = {}

  def _board(self, seed: int | None) -> "Appender":
    """Opens the event file of one seed."""
    run = _run(seed)
    if run not in self._boards:
      folder = self._directory / run
      make_folder(folder.parent)
      make_folder(folder)
      # Quiet: the same failure is reported for metrics.jsonl.
      self._boards[run] = Appender(folder / events.file_name(folder), quiet=True)
      self._boards[run].append(events.opening(self._lost_from))
    return self._boards[run]


def _run(seed: int | None) -> str:
  return "tensorboard" if seed is None else f"tensorboard/seed{seed}"


class Appender:
  """Appends whole chunks to a file; retries chunks that a full disk refused.

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   rows = Appender(Path(folder, "metrics.jsonl"))
  ...   rows.append(b'{"step": 1}')
  ...   rows.close()
  ...   Path(folder, "metrics.jsonl").read_bytes()
  b'{"step": 1}'
  """

  def __init__(self, path: Path, quiet: bool = False):
    self._path, self._quiet = path, quiet
    self._file = open(path, "ab", buffering=0)  # noqa: SIM115
    self._size = os.path.getsize(path)
    self._waiting = b""

  def append(self, chunk: bytes) -> None:
    """Writes the chunk, or buffers it and warns once, unless `quiet`."""
    was_stuck = bool(self._waiting)
    self._waiting += chunk
    error = self._flush()
    if error and not was_stuck and not self._quiet:
      warn(f"{self._complaint(error)}; rows wait in memory and are tried again")

  def close(self) -> None:
    """Retries the buffered chunks and closes; raises FileError if they do not fit."""
    if self._file.closed:
      return
    error = self._flush()
    self._file.close()
    if error:
      raise FileError(f"{self._complaint(error)}; free some space and run again")

  def _flush(self) -> OSError | None:
    left = self._waiting
    try:
      while left:
        left = left[self._file.write(left) :]
    except OSError as error:
      self._file.truncate(self._size)  # half a chunk would spoil the next
      return error
    self._size += len(self._waiting)
    self._waiting = b""
    return None

  def _complaint(self, error: OSError) -> str:
    space = free_space(self._path.parent)
    return f"{self._path} cannot be written ({error.strerror}; {space})"


def _steps(steps: list[int]) -> str:
  """Returns "step 8 is" or "4 steps from 8 to 64 are"."""
  first, last = steps[0], steps[-1]
  many = f"{len(steps)} steps from {first} to {last} are"
  return f"step {first} is" if len(steps) == 1 else many


def _unwrap(metrics: dict[str, Any]) -> dict[str, Any]:
  """Returns metrics with array scalars as Python numbers."""
  return {k: v.item() if hasattr(v, "item") else v for k, v in metrics.items()}


def _drop_half_line(path: Path) -> None:
  """Truncates a file after its last newline; a killed process may leave half a line."""
  if path.exists():
    whole = path.read_bytes().rfind(b"\n") + 1
    if whole < path.stat().st_size:
      os.truncate(path, whole)
