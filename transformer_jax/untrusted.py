"""Limits on untrusted files, and text without control characters."""

import errno
import json
import os
import pathlib
import re
import stat
from typing import Any

JSON_BYTES = 4 * 2**20
JSON_DEPTH = 100
# Bounds that are none, as Transformers 5 writes them; older releases wrote Infinity.
INFINITY = {"__float__": "Infinity"}
# Control characters and bidirectional controls, which a terminal executes instead of
# showing; without newlines and tabs.
CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
FORMULA = re.compile(r"[=+\-@\t\r]")  # at the start of a cell, in a spreadsheet
DIGITS = 18  # of a whole number in JSON: it fits into 64 bits


def size(path: str | os.PathLike) -> int:
  """Returns a file's size in bytes; raises OSError for a pipe or a device.

  Reading such a file may never end. A link is followed.
  """
  found = os.stat(path)
  if stat.S_ISDIR(found.st_mode):
    raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
  if not stat.S_ISREG(found.st_mode):
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
  return found.st_size


def content(path: str | os.PathLike, most: int | None = None) -> bytes:
  """Returns a file's content; raises OSError if it exceeds `most` bytes."""
  found = size(path)
  if most is not None and found > most:
    why = f"it has {found:,} bytes, and {most:,} are read at most"
    raise OSError(errno.EFBIG, why, str(path))
  return pathlib.Path(path).read_bytes()


def parsed(text: bytes | str, finite: bool = False) -> Any:
  """Returns the value of a JSON text; raises ValueError, also beyond a limit.

  finite   refuses NaN and -Infinity, which Python accepts and JSON does not; Infinity
           becomes `INFINITY`
  """
  try:
    value = json.loads(
      text, parse_int=_whole, parse_constant=_refuse if finite else None
    )
  except RecursionError as error:
    raise ValueError(f"more than {JSON_DEPTH} levels of brackets") from error
  if _depth(value) > JSON_DEPTH:
    raise ValueError(f"more than {JSON_DEPTH} levels of brackets")
  return value


def _whole(digits: str) -> int:
  if len(digits.lstrip("-")) > DIGITS:
    raise ValueError(f"{digits[:DIGITS]}... has more than {DIGITS} digits")
  return int(digits)


def _refuse(name: str) -> dict[str, str]:
  if name == "Infinity":
    return dict(INFINITY)
  raise ValueError(f"{name} is no number of JSON")


def _depth(value: Any) -> int:
  """Returns the depth of nested lists and dicts, without recursion."""
  level, depth = [value], 0
  while level := [x for x in level if isinstance(x, (dict, list))]:
    inner = (x.values() if isinstance(x, dict) else x for x in level)
    level, depth = [x for some in inner for x in some], depth + 1
  return depth


def shown(text: object) -> str:
  """Returns text for a terminal, with escape sequences written out, as in \\x1b[2J."""
  return CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(text))


def cell(value: Any) -> Any:
  """Returns a cell of a CSV file that no spreadsheet evaluates as a formula.

  A text that starts like a formula gets an apostrophe, which spreadsheets hide.
  Numbers stay as they are: negative ones too, and numbers written as text.
  """
  if not isinstance(value, str) or not FORMULA.match(value):
    return value
  try:
    float(value)
  except ValueError:
    return f"'{value}"
  return value
