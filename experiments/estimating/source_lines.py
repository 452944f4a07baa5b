"""Source lines of instructions, from the tables at the start of a program's text."""

import functools
import re
from pathlib import Path

SECTIONS = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
ENTRY = re.compile(r"(\d+) (.+)")
FIELD = re.compile(r"(\w+)=(\d+)")


class SourceLines:
  '''Lines of Python by the number of a stack frame, innermost first.

  >>> lines = SourceLines("""FileNames
  ... 1 "/home/me/transformer_jax/matmul.py"
  ... FileLocations
  ... 1 {file_name_id=1 function_name_id=1 line=7}
  ... StackFrames
  ... 1 {file_location_id=1 parent_frame_id=1}
  ... """)
  >>> lines.of_frame(1, "transformer_jax"), lines.of_frame(1, "flax")
  ('transformer_jax/matmul.py:7', '')
  '''

  def __init__(self, text: str):
    """Reads the tables of a program's text; without them no line is known."""
    self.tables: dict[str, dict[int, str]] = {name: {} for name in SECTIONS}
    table: dict[int, str] | None = None
    for line in text.splitlines():
      if line in SECTIONS:
        table = self.tables[line]
      elif table is not None and (entry := ENTRY.fullmatch(line)):
        table[int(entry[1])] = entry[2]
      elif line.startswith(("%", "ENTRY")):
        break

  @functools.cache  # noqa: B019, lives as long as a program's text
  def of_frame(self, frame: int, package: str) -> str:
    """Returns file:line of the innermost caller inside a package, "" if there is none.

    package   name of the folder that paths are shortened to
    """
    seen = set()
    while frame in self.tables["StackFrames"] and frame not in seen:
      seen.add(frame)
      fields = _fields(self.tables["StackFrames"][frame])
      place = _fields(self.tables["FileLocations"][fields["file_location_id"]])
      path = Path(self.tables["FileNames"][place["file_name_id"]].strip('"'))
      if package in path.parts:
        inside = path.parts[len(path.parts) - 1 - path.parts[::-1].index(package) :]
        return f"{Path(*inside)}:{place['line']}"
      # The table counts a parent from 1, and 0 or the frame itself ends a stack.
      frame = fields.get("parent_frame_id", 0) - 1
    return ""


def _fields(text: str) -> dict[str, int]:
  return {name: int(value) for name, value in FIELD.findall(text)}
