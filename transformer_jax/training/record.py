"""What a run measured: one JSON object per line, and the same for TensorBoard.

metrics.jsonl is the record. TensorBoard shows one run per seed (`tensorboard/seed0`),
so that the seeds of all runs below a folder share one chart per metric.
"""

import json
import math
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from transformer_jax.training.files import (
  FileError,
  free_space,
  plain,
  replace_file,
  warn,
)

NOT_FINITE = "not_finite"


class Record:
  """Appends rows to `directory`/metrics.jsonl and scalars to `directory`/tensorboard.

  Every call reaches the file, so `kill -9` loses nothing that was written. What a full
  disk refuses waits in memory; `close` raises FileError if it never got through.
  """

  def __init__(self, directory: str | Path):
    self._directory = Path(directory)
    self._directory.mkdir(parents=True, exist_ok=True)
    self._path = self._directory / "metrics.jsonl"
    _drop_half_line(self._path)
    self._rows = Appender(self._path)
    self._boards: dict[str, Appender] = {}
    self._lost_from: int | None = None

  def __enter__(self) -> "Record":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def write(self, step: int, seed: int | None = None, **metrics: Any) -> None:
    """Appends one row; numbers also go to TensorBoard. NaN and infinities are kept."""
    which = {} if seed is None else {"seed": int(seed)}
    row = {"step": int(step)} | which | _unwrap(metrics)
    self._rows.append(_line(row))
    numbers = {k: v for k, v in row.items() if k in metrics and _is_number(v)}
    board = self._board("" if seed is None else f"seed{seed}")
    board.append(b"".join(_framed(_scalar(*item), step) for item in numbers.items()))

  def truncate(self, step: int) -> None:
    """Forgets every row after `step`; call it after restoring (or with 0)."""
    self._close_files()
    if self._path.exists():
      kept = [row for row in _rows(self._path) if row.get("step", 0) <= step]
      replace_file(self._path, b"".join(_line(row) for row in kept))
    self._rows = Appender(self._path)
    self._lost_from = step + 1

  def close(self) -> None:
    """Closes the files; raises FileError if rows could not be written."""
    self._close_files()

  def _close_files(self) -> None:
    for file in (self._rows, *self._boards.values()):
      file.close()
    self._boards = {}

  def _board(self, run: str) -> "Appender":
    """Opens the event file of one run; TensorBoard reads a run's files by name."""
    if run not in self._boards:
      folder = self._directory / "tensorboard" / run
      folder.mkdir(parents=True, exist_ok=True)
      count = len(list(folder.glob("events.out.tfevents.*")))
      name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{count:04}"
      # What is missing there is missing in metrics.jsonl too, which says so.
      self._boards[run] = Appender(folder / name, quiet=True)
      self._boards[run].append(self._opening())
    return self._boards[run]

  def _opening(self) -> bytes:
    """Tells the format and, after a restore, which steps TensorBoard shall forget."""
    opening = _framed(Event(file_version="brain.Event:2"), 0)
    if self._lost_from is None:
      return opening
    start = Event(session_log=SessionLog(status=SessionLog.START))
    return opening + _framed(start, self._lost_from)


class Appender:
  """Appends whole chunks to a file; a chunk that a full disk refuses is tried again."""

  def __init__(self, path: Path, quiet: bool = False):
    self._path, self._quiet = path, quiet
    self._file = open(path, "ab", buffering=0)  # noqa: SIM115
    self._size = os.path.getsize(path)
    self._waiting = b""

  def append(self, chunk: bytes) -> None:
    """Writes the chunk, or keeps it and says so once, unless it is to be quiet."""
    was_stuck = bool(self._waiting)
    self._waiting += chunk
    error = self._flush()
    if error and not was_stuck and not self._quiet:
      warn(f"{self._complaint(error)}; rows wait in memory and are tried again")

  def close(self) -> None:
    """Tries once more what is waiting; raises FileError if it is refused again."""
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


def read(path: str | Path) -> list[dict[str, Any]]:
  """Returns the rows; a half-written last line is left out, NaN is a float again."""
  return [_restored(row) for row in _rows(Path(path))]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
  *lines, _ = path.read_bytes().split(b"\n")  # after the last newline: half a line
  for number, line in enumerate(lines, start=1):
    try:
      row = json.loads(line)
    except ValueError:
      warn(f"{path}:{number} is not JSON and is left out: {line[:60]!r}")
      continue
    yield row


def _restored(row: dict[str, Any]) -> dict[str, Any]:
  words = row.pop(NOT_FINITE, {})
  return row | {name: float(word) for name, word in words.items()}


def _line(row: dict[str, Any]) -> bytes:
  """Returns one line of valid JSON: NaN is null, and a note says which word it was."""
  words = {k: str(v) for k, v in row.items() if _is_number(v) and not math.isfinite(v)}
  note = {NOT_FINITE: words} if words else {}
  return json.dumps(plain(row) | note, allow_nan=False).encode() + b"\n"


def _unwrap(metrics: dict[str, Any]) -> dict[str, Any]:
  """Turns array scalars into Python numbers."""
  return {k: v.item() if hasattr(v, "item") else v for k, v in metrics.items()}


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _drop_half_line(path: Path) -> None:
  """Cuts what a killed process left after the last newline."""
  if path.exists():
    whole = path.read_bytes().rfind(b"\n") + 1
    if whole < path.stat().st_size:
      os.truncate(path, whole)


def _scalar(tag: str, value: float) -> Event:
  # Not tensorboardX's own function: it logs a warning for each NaN.
  return Event(summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))


def _framed(event: Event, step: int) -> bytes:
  """Returns the bytes of one TFRecord: length, data and their checksums.

  Written here rather than by tensorboardX's SummaryWriter, whose thread keeps events
  in memory for two minutes: `kill -9` would lose them.
  """
  event.step = int(step)
  event.wall_time = time.time()
  data = event.SerializeToString()
  size = struct.pack("<Q", len(data))
  check = lambda part: struct.pack("<I", masked_crc32c(part))
  return size + check(size) + data + check(data)
