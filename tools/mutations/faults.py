"""The list of deliberate faults, one TOML file for each room."""

import collections
import dataclasses
import pathlib
import tomllib
from collections.abc import Sequence

HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Fault:
  """A deliberate fault.

  room       name of the .toml file
  name       what is wrong with it in place
  file       the changed file
  old, new   its text, which stands there once, and what replaces it
  tests      arguments of pytest for the tests that should fail
  """

  room: str
  name: str
  file: str
  old: str
  new: str
  tests: str

  def put_into(self, tree: pathlib.Path) -> bool:
    """Changes the file; returns whether the old text stands there exactly once."""
    path = tree / self.file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.count(self.old) != 1:
      return False
    path.write_text(text.replace(self.old, self.new), encoding="utf-8")
    return True


def faults(rooms: Sequence[str] = (), names: Sequence[str] = ()) -> list[Fault]:
  """Returns the faults of some rooms, or of all, in the order of the files."""
  all_faults: list[Fault] = []
  for path in sorted(HERE.glob("*.toml")):
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["fault"]
    all_faults += [Fault(path.stem, **table) for table in tables]
  if twice := [
    x for x, n in collections.Counter(f.name for f in all_faults).items() if n > 1
  ]:
    raise SystemExit(f"two faults have one name: {twice[0]}")
  wanted = [f for f in all_faults if not rooms or f.room in rooms]
  return [f for f in wanted if not names or f.name in names]
