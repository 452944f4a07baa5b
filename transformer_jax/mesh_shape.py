"""Shape of a device mesh: the one list of its axes. No JAX here."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

AXES = ("seed", "data", "fsdp", "tensor", "sequence")  # slowest first
ROWS = ("data", "fsdp")  # axes over which the examples of a batch are split
# Mesh axes that split the axis of a letter in a parameter's name.
RULES = {"H": "tensor", "F": "tensor", "V": "tensor"}
MATRIX_RULES = {"D": "fsdp"}  # of names with two letters or more: vectors stay whole
SEQUENCE = "sequence"  # axis over which tokens are split
SEED = "seed"  # axis over which states are split that are stacked by seed


@dataclasses.dataclass(frozen=True)
class MeshShape:
  """Number of devices along each axis of a mesh.

  data       split the examples of a batch; -1: all devices that are left
  tensor     split heads, feed-forward units and the vocabulary
  sequence   split the tokens of a text
  fsdp       split the examples of a batch, and parameters and moments by width
  seed       split the seeds, which exchange nothing
  pmap       split the examples of a batch by `jax.pmap`, and nothing else

  >>> shape = MeshShape(data=-1, tensor=2)
  >>> shape.least, shape.filled(devices=8).data
  (2, 4)
  >>> print(MeshShape(data=2, fsdp=4))
  mesh.data=2 x mesh.fsdp=4
  >>> MeshShape(tensor=2).parts("H")
  ('tensor', 2)
  """

  data: int = 1
  tensor: int = 1
  sequence: int = 1
  fsdp: int = 1
  seed: int = 1
  pmap: bool = False

  @classmethod
  def of(cls, flat: Mapping[str, Any]) -> "MeshShape":
    """Returns the shape in a flat config, `{"mesh.data": 2, ...}`."""
    axes = {axis: flat[f"mesh.{axis}"] for axis in AXES}
    return cls(**axes, pmap=flat["mesh.pmap"])

  @property
  def sizes(self) -> dict[str, int]:
    """Sizes by axis, slowest first: neighbours in `sequence` are next to each other."""
    return {axis: getattr(self, axis) for axis in AXES}

  @property
  def others(self) -> int:
    """Devices of all axes besides `data`."""
    return self.seed * self.fsdp * self.tensor * self.sequence

  @property
  def least(self) -> int:
    """Devices that this mesh needs at least."""
    return max(1, self.data) * self.others

  def parts(self, letter: str) -> tuple[str, int]:
    """Returns the axis that splits an axis letter of matrices, and its size."""
    axis = (RULES | MATRIX_RULES)[letter]
    return axis, self.sizes[axis]

  @property
  def rows(self) -> int:
    """Parts that a batch is split into, at least."""
    return max(1, self.data) * self.fsdp

  def filled(self, devices: int) -> "MeshShape":
    """Returns the shape with `data` for so many devices, where it is -1."""
    if self.data != -1:
      return self
    return dataclasses.replace(self, data=max(1, devices // self.others))

  def problems(self, devices: int | None) -> Iterator[str]:
    """Yields a sentence for each reason against this mesh.

    devices   number of devices here; None: unknown
    """
    for axis, size in self.sizes.items():
      if size < 1 and not (axis == "data" and size == -1):
        left = ", or -1 for all devices that are left" if axis == "data" else ""
        yield f"mesh.{axis}={size}: write 1 or more{left}"
        return
    others = [axis for axis, size in self.sizes.items() if size > 1 and axis != "data"]
    if self.pmap and others:
      yield (
        f"mesh.pmap=True splits batches alone, by mesh.data: write mesh.{others[0]}=1,"
        " or mesh.pmap=False"
      )
      return
    if devices is None:
      return
    have = f"{devices} devices" if devices > 1 else "1 device"
    if devices < self.least:
      yield f"{self}: only {have} here; write less"
    elif self.data == -1 and devices % self.others:
      rest = dataclasses.replace(self, data=1)
      yield f"{rest}: {have} are not a multiple of {self.others}; write less"

  def __str__(self) -> str:
    """Axes that are not 1, as keys of a config."""
    sizes = {axis: size for axis, size in self.sizes.items() if size != 1}
    return " x ".join(f"mesh.{axis}={size}" for axis, size in sizes.items()) or "a mesh"
