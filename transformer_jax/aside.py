"""Renames damaged files instead of deleting them: `status.json.damaged`."""

import itertools
import os
from pathlib import Path


def set_aside(path: Path) -> str:
  """Renames a file or folder that is damaged or in the way; returns its new name.

  The second one becomes `status.json.damaged-2`.
  """
  numbered = (f"{path.name}.damaged-{n}" for n in itertools.count(2))
  names = itertools.chain([f"{path.name}.damaged"], numbered)
  free = next(name for name in names if not os.path.lexists(path.with_name(name)))
  os.rename(path, path.with_name(free))
  return free
