"""Blocks of a run's seeds: those trained first, and those that were added later.

The first block has runs/ID/checkpoints. A later one has a folder that names its number
and its seeds, runs/ID/more_seeds/1_3-9 with checkpoints/. The run's config.json names
the seeds of all blocks, in this order.
"""

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.runner.inputs import has_checkpoint
from transformer_jax.training import seed_parts
from transformer_jax.training.json_files import FileError, read_object

FOLDER = "more_seeds"
LONGEST = 100  # characters of a folder's name
MOST = 10_000  # seeds of a block


@dataclasses.dataclass(frozen=True)
class SeedBlock:
  """Seeds that are trained together.

  folder   that of the run, or one below it; it has the checkpoints

  >>> block = SeedBlock(Path("runs/ID/more_seeds/1_3-4"), (3, 4))
  >>> block.name, block.checkpoints.name
  ('seeds 3-4', 'checkpoints')
  """

  folder: Path
  seeds: tuple[int, ...]

  @property
  def name(self) -> str:
    """Returns the seeds in words."""
    return f"seed{'s' * (len(self.seeds) > 1)} {spelled(self.seeds)}"

  @property
  def checkpoints(self) -> Path:
    """Returns the folder of the checkpoints."""
    return self.folder / "checkpoints"


def spelled(seeds: Sequence[int]) -> str:
  """Returns seeds in few characters, in their order; `read_seeds` reads them.

  >>> spelled((7, 3, 4, 5)), read_seeds("7,3-5")
  ('7,3-5', (7, 3, 4, 5))
  """
  runs: list[list[int]] = []
  for seed in seeds:
    if runs and runs[-1][-1] + 1 == seed:
      runs[-1].append(seed)
    else:
      runs.append([seed])
  ends = [(str(run[0]), str(run[-1])) for run in runs]
  return ",".join(first if first == last else f"{first}-{last}" for first, last in ends)


def read_seeds(text: str) -> tuple[int, ...]:
  """Returns the seeds of `spelled`; () for more than MOST of them."""
  ends = [tuple(map(int, part.split("-"))) for part in text.split(",")]
  if sum(run[-1] - run[0] for run in ends) >= MOST:  # somebody else's folder
    return ()
  return tuple(seed for run in ends for seed in range(run[0], run[-1] + 1))


def blocks(folder: Path, seeds: Sequence[int]) -> list[SeedBlock]:
  """Returns the blocks of a run, in the order of their training.

  folder   of the run
  seeds    of its config: all blocks
  """
  later = [block for block in _later(folder) if {*block.seeds} <= {*seeds}]
  added = {seed for block in later for seed in block.seeds}
  return [SeedBlock(folder, tuple(s for s in seeds if s not in added)), *later]


def extend(folder: Path, seeds: Sequence[int]) -> tuple[int, ...]:
  """Returns all seeds of a run after some are asked for; makes blocks of new ones.

  A run keeps the seeds that it has. Without a checkpoint it has none.

  folder   of the run
  seeds    that are asked for
  """
  later = _later(folder) if has_checkpoint(folder) else []
  begun = [block for block in later if has_checkpoint(block.folder)]
  added = [seed for block in begun for seed in block.seeds]
  never = {seed for block in later if block not in begun for seed in block.seeds}
  for block in _later(folder):
    if block not in begun:
      shutil.rmtree(block.folder, ignore_errors=True)
  if not has_checkpoint(folder):
    return tuple(seeds)
  there = of_config(folder) or tuple(seeds)
  first = [seed for seed in there if seed not in never.union(added)]
  new = [seed for seed in seeds if seed not in {*first, *added}]
  for number, part in enumerate(_parts(new), len(begun) + 1):
    (folder / FOLDER / f"{number}_{spelled(part)}").mkdir(parents=True, exist_ok=True)
  return (*first, *added, *new)


def _parts(seeds: Sequence[int]) -> Iterator[Sequence[int]]:
  """Yields seeds in parts that are short enough for the name of a folder."""
  while seeds:
    most = len(seeds)
    while len(spelled(seeds[:most])) > LONGEST:
      most -= 1
    yield seeds[:most]
    seeds = seeds[most:]


def of_config(folder: Path) -> tuple[int, ...]:
  """Returns the seeds in a run's config.json, () where it cannot be read."""
  try:
    seeds = read_object(folder / "config.json").get("seeds")
  except (FileError, OSError):
    return ()
  if not isinstance(seeds, list) or not all(isinstance(n, int) for n in seeds):
    return ()
  return tuple(seeds)


def joined(folder: Path, seeds: Sequence[int], read: Callable[[SeedBlock], Any]) -> Any:
  """Returns a tree of all seeds, from those of the blocks.

  folder   of the run
  seeds    in their order in the tree
  read     returns a block's tree, stacked by seed
  """
  every = blocks(folder, seeds)
  tree = seed_parts.join([read(block) for block in every])
  order = [seed for block in every for seed in block.seeds]
  places = [order.index(seed) for seed in seeds]
  return tree if order == [*seeds] else seed_parts.take(tree, places)


def _later(folder: Path) -> list[SeedBlock]:
  """Returns the blocks that were added, by their numbers."""
  found = {}
  for path in (folder / FOLDER).glob("*"):
    if match := re.fullmatch(r"(\d+)_(\d+(?:[-,]\d+)*)", path.name):
      found[int(match[1])] = SeedBlock(path, read_seeds(match[2]))
  return [found[number] for number in sorted(found)]
