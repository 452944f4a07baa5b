"""Looks of a sweep that adds seeds until it is resolved: a schedule and its error.

It is declared before the first look and recorded as `looks` in sweep.json. It is no
part of a run's id. docs/statistics.md explains and calibrates the method.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.setup.validate import MOST_SEEDS, ConfigError
from transformer_jax.spec import nearest
from transformer_jax.training.json_files import (
  FileError,
  read_object,
  reason,
  write_json,
)

RESOLVED = "resolved"  # the word of --until
FILE = "looks.json"  # in a sweep's folder: a copy that outlives a damaged sweep.json
MOST = 20  # seeds, unless --max_seeds says another number
GROWTH = 1.4  # of the number of seeds from one look to the next, about


@dataclasses.dataclass(frozen=True)
class Look:
  """One look.

  seeds    those that each run of a comparison has
  weight   share of the error that the look may spend

  >>> Look((0, 1, 2), 0.5).weight
  0.5
  """

  seeds: tuple[int, ...]
  weight: float


@dataclasses.dataclass(frozen=True)
class Looks:
  """Schedule of looks.

  seeds     in the order in which runs get them
  counts    number of seeds at each look, growing
  weights   share of the error that each look may spend; at most 1 in all
  late      whether results were there when it was declared

  Raises ConfigError for a schedule that is impossible.

  >>> looks = declared((0, 1, 2), 8)
  >>> looks.counts, [look.seeds for look in looks.each][1]
  ((3, 4, 6, 8), (0, 1, 2, 3))
  """

  seeds: tuple[int, ...]
  counts: tuple[int, ...]
  weights: tuple[float, ...]
  late: bool = False

  def __post_init__(self):
    counts, weights = self.counts, self.weights
    growing = all(a < b for a, b in itertools.pairwise(counts))
    fits = counts and growing and 1 <= counts[0] and counts[-1] <= len(self.seeds)
    if not fits or len({*self.seeds}) < len(self.seeds):
      raise ConfigError(f"looks: {counts} of seeds {self.seeds}; write growing counts")
    shared = all(0 < x <= 1 for x in weights) and sum(weights) <= 1 + 1e-9
    if not shared or len(weights) != len(counts):
      raise ConfigError(
        f"looks: weights {weights} of {len(counts)} looks; write one share for each,"
        " 1 in all"
      )

  @property
  def each(self) -> list[Look]:
    """Returns the looks, the first one first."""
    pairs = zip(self.counts, self.weights, strict=True)
    return [Look(self.seeds[:count], weight) for count, weight in pairs]

  def reached(self, seeds: Iterable[int]) -> int:
    """Returns the number of looks whose seeds are all among these."""
    there = {*seeds}
    return sum({*look.seeds} <= there for look in self.each)

  def to_json(self) -> dict[str, Any]:
    """Returns the values as sweep.json has them."""
    return dataclasses.asdict(self)


def schedule(first: int, last: int) -> tuple[int, ...]:
  """Returns numbers of seeds from the first to the last, in nearly equal ratios.

  >>> schedule(3, 20)
  (3, 4, 6, 8, 11, 15, 20)
  """
  steps = max(1, round(math.log(last / first) / math.log(GROWTH)))
  counts = [round(first * (last / first) ** (n / steps)) for n in range(steps + 1)]
  return tuple(dict.fromkeys(counts))


def shares(counts: Sequence[int]) -> tuple[float, ...]:
  """Returns the share of the error that each look may spend: as its seeds.

  Few seeds tell little, and p values of few are the least exact: docs/statistics.md.
  """
  return tuple(count / sum(counts) for count in counts)


def declared(seeds: Sequence[int], most: int, late: bool = False) -> Looks:
  """Returns the schedule from a plan's seeds to `most` seeds; raises ConfigError.

  late   whether results are there already

  After the plan's seeds come the smallest numbers that are not among them. The first
  look has at least two seeds: one has no test.
  """
  least = max(2, len(seeds))
  if not least <= most <= MOST_SEEDS:
    raise ConfigError(
      f"--max_seeds={most}: the plan has {len(seeds)} seeds; write a number from"
      f" {least} to {MOST_SEEDS}"
    )
  others = (n for n in itertools.count() if n not in seeds)
  every = (*seeds, *itertools.islice(others, most - len(seeds)))
  counts = schedule(least, len(every))
  return Looks(every, counts, shares(counts), late)


def from_json(values: Any) -> Looks | None:
  """Returns the looks of sweep.json; None, as in a plain sweep: none.

  Raises ConfigError for values that are none.
  """
  if values is None:
    return None
  try:
    seeds, counts, weights = (values[x] for x in ("seeds", "counts", "weights"))
    whole = all(type(n) is int for n in (*seeds, *counts))
    numbers = whole and all(type(x) in (int, float) for x in weights)
    late = values.get("late", False)
  except (TypeError, KeyError, AttributeError):
    numbers = False
  if not numbers:
    raise ConfigError(f"looks {values!r:.80} are no object with seeds, counts, weights")
  return Looks(tuple(seeds), tuple(counts), tuple(weights), bool(late))


def keep(workdir: Path, looks: Looks) -> None:
  """Writes the looks into a file of their own, once."""
  if not (workdir / FILE).exists():
    write_json(workdir / FILE, looks.to_json())


def recorded(workdir: Path) -> Looks | None:
  """Returns the looks of a sweep's folder, of looks.json or else sweep.json.

  None: there are none. Raises ConfigError for a file that cannot be read and for values
  that are no looks.
  """
  path = workdir / FILE
  try:
    return from_json(read_object(path))
  except (FileNotFoundError, NotADirectoryError):
    pass
  except (OSError, FileError) as error:
    raise ConfigError(
      f"{path}: {reason(error)}; it has the looks that verdicts depend on. Copy `looks`"
      " of sweep.json into it, or start in another --workdir"
    ) from error
  try:
    return from_json(read_object(workdir / "sweep.json").get("looks"))
  except (OSError, FileError):
    return None


def check_flags(until: str | None, most: int | None) -> None:
  """Raises ConfigError for values of --until and --max_seeds that say nothing."""
  if until not in (None, RESOLVED):
    near = nearest(until, [RESOLVED])
    raise ConfigError(f"--until={until}:{near} Write --until={RESOLVED}")
  if most is not None and not until:
    raise ConfigError(
      f"--max_seeds={most} is the limit of --until={RESOLVED}: write both, or"
      " --config.seeds"
    )
