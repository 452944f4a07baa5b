"""TPU chips and their slices: published figures, each with its source."""

import dataclasses
import math

from experiments.setup.validate import ConfigError
from transformer_jax.spec import nearest

GIB = 2**30
V5E = "https://docs.cloud.google.com/tpu/docs/v5e"
V5P = "https://docs.cloud.google.com/tpu/docs/v5p-training"
V6E = "https://docs.cloud.google.com/tpu/docs/v6e"
COMPILER = "libtpu 0.0.42.1, which names it where a program does not fit"


@dataclasses.dataclass(frozen=True)
class Figure:
  """A number and where it was published.

  >>> Figure(197e12, V5E).value
  197000000000000.0
  """

  value: float
  source: str


@dataclasses.dataclass(frozen=True)
class Chip:
  """Figures of one chip. Those per second are peaks.

  flops           products and sums in bfloat16, per second
  hbm_bytes       memory that a program may use
  hbm_bandwidth   bytes/s between memory and the chip
  ici_bandwidth   bytes/s of all links to other chips, both directions together
  cores           TensorCores; a jax device may be several of them
  slices          shapes that are offered, smallest first

  >>> CHIPS["v5e"].cores.value
  1
  """

  name: str
  flops: Figure
  hbm_bytes: Figure
  hbm_bandwidth: Figure
  ici_bandwidth: Figure
  cores: Figure
  slices: tuple[str, ...]


FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")  # 2D torus
# The most common ones; the page says that there are others.
SOLID = ("2x2x1", "2x2x2", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")

CHIPS = {
  # A later edition of the page says 800 GiB/s of memory, 5% more.
  "v5e": Chip(
    name="v5e",
    flops=Figure(197e12, V5E),
    hbm_bytes=Figure(15.75 * GIB, COMPILER),
    hbm_bandwidth=Figure(819e9, V5E),
    ici_bandwidth=Figure(400e9, V5E),
    cores=Figure(1, V5E),
    slices=FLAT,
  ),
  "v5p": Chip(
    name="v5p",
    flops=Figure(459e12, V5P),
    hbm_bytes=Figure(95.74 * GIB, COMPILER),
    hbm_bandwidth=Figure(2765e9, V5P),
    ici_bandwidth=Figure(1200e9, V5P),
    cores=Figure(2, V5P),
    slices=(*SOLID, "8x16x16", "16x16x16", "16x16x24"),
  ),
  "v6e": Chip(
    name="v6e",
    flops=Figure(918e12, V6E),
    hbm_bytes=Figure(31.25 * GIB, COMPILER),
    hbm_bandwidth=Figure(1638e9, V6E),
    ici_bandwidth=Figure(800e9, V6E),
    cores=Figure(1, V6E),
    slices=FLAT,
  ),
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """A slice of chips, named as jax names it.

  >>> Topology(CHIPS["v5p"], "4x4x8").chips
  128
  """

  chip: Chip
  shape: str

  @property
  def name(self) -> str:
    """Returns the name that jax knows, as in v5e:4x4."""
    return f"{self.chip.name}:{self.shape}"

  @property
  def chips(self) -> int:
    """Returns the number of chips."""
    return math.prod(map(int, self.shape.split("x")))


def family(chip: Chip) -> list[Topology]:
  """Returns all slices of a chip, smallest first."""
  return [Topology(chip, shape) for shape in chip.slices]


def topology(name: str) -> Topology:
  """Returns a slice by its name; raises ConfigError with the nearest names.

  >>> topology("v5e:4x4").chips
  16
  """
  known = {each.name: each for chip in CHIPS.values() for each in family(chip)}
  if name in known:
    return known[name]
  chip = name.partition(":")[0]
  names = [each for each in known if each.startswith(f"{chip}:")] or [*known]
  raise ConfigError(
    f"--topology={name}: there is no such slice.{nearest(name, known)}"
    f" Write one of {', '.join(names)}."
  )
