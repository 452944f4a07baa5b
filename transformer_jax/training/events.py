"""TensorBoard event files, whose records carry checksums.

A file is a sequence of TFRecords: length, its masked CRC-32C, data, their CRC-32C.
"""

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

HEAD, TAIL = 12, 4  # bytes around the data of a record
NAME = "events.out.tfevents."


def file_name(folder: Path) -> str:
  """Returns the name of the next event file of a run: TensorBoard reads by name."""
  there = [path.name.split(".")[3] for path in folder.glob(f"{NAME}*")]
  # If the clock was set back, the newest file must still sort last.
  after = [int(number) + 1 for number in there if number.isdigit()]
  seconds = max([int(time.time()), *after])
  return f"{NAME}{seconds}.{socket.gethostname()}.{len(there):04}"


def opening(lost_from: int | None) -> bytes:
  """Returns the version record and, after a restore, the first step to purge."""
  version = framed(Event(file_version="brain.Event:2"), 0)
  if lost_from is None:
    return version
  start = Event(session_log=SessionLog(status=SessionLog.START))
  return version + framed(start, lost_from)


def scalar(tag: str, value: float) -> Event:
  # tensorboardX's function would log a warning for each NaN.
  return Event(summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))


def framed(event: Event, step: int) -> bytes:
  """Returns the bytes of one TFRecord: length, data and their checksums.

  Written here rather than by tensorboardX's SummaryWriter, whose thread keeps events
  in memory for two minutes: `kill -9` would lose them.
  """
  event.step = int(step)
  event.wall_time = time.time()
  data = event.SerializeToString()
  size = struct.pack("<Q", len(data))
  return size + _check(size) + data + _check(data)


def _check(part: bytes) -> bytes:
  """Returns the checksum that follows each part of a record."""
  return struct.pack("<I", masked_crc32c(part))


def scalars(folder: Path) -> dict[int, dict[str, float]]:
  """Returns {step: {tag: value}} as TensorBoard shows a run; damage is left out."""
  found: dict[int, dict[str, float]] = {}
  for path in sorted(folder.glob(f"{NAME}*")):
    for event in _events(path.read_bytes()) if path.is_file() else ():
      if event.HasField("session_log"):
        found = {step: tags for step, tags in found.items() if step < event.step}
      for value in event.summary.value:
        found.setdefault(event.step, {})[value.tag] = value.simple_value
  return found


def _events(content: bytes) -> Iterator[Event]:
  """Yields the events whose checksums hold, until a length is damaged."""
  at = 0
  while at + HEAD <= len(content):
    head = content[at : at + HEAD]
    size, check = struct.unpack("<QI", head)
    data = content[at + HEAD : at + HEAD + size]
    tail = content[at + HEAD + size : at + HEAD + size + TAIL]
    if masked_crc32c(head[:8]) != check or len(tail) < TAIL:
      return
    if struct.unpack("<I", tail)[0] == masked_crc32c(data):
      yield Event.FromString(data)
    at += HEAD + size + TAIL
