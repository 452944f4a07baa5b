"""Sharding of arrays over a device mesh, read from their names.

The second axis of `query_DHK` is heads, which are split over the mesh axis `tensor`.
Adam's moments have the names of the parameters and are split with them.
"""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from transformer_jax.axes import axes_of
from transformer_jax.data.base import Batch

RULES = {"H": "tensor", "F": "tensor", "V": "tensor"}


def make_mesh(data: int = 1, tensor: int = 1, sequence: int = 1) -> Mesh:
  """Returns a mesh of data x tensor x sequence devices; data -1: all remaining ones.

  Raises ValueError if the devices do not suffice or do not divide.
  """
  devices, others = jax.devices(), tensor * sequence
  if data == -1:
    data = max(1, len(devices) // others)
  if data * others > len(devices):
    raise ValueError(
      f"mesh of data={data} x tensor={tensor} x sequence={sequence} needs"
      f" {data * others} devices and this machine has {len(devices)}; lower mesh.data,"
      " mesh.tensor or mesh.sequence"
    )
  shape, names = (data, tensor, sequence), ("data", "tensor", "sequence")
  types, used = (AxisType.Auto,) * 3, devices[: data * others]
  return jax.make_mesh(shape, names, types, devices=used)


def split(mesh: Mesh, tree: Any) -> Any:
  """Returns the sharding of every array of a tree, by the axes in its name.

  Leading axes that the name does not have (seeds, layers) are not split.
  """

  def one(path, x) -> NamedSharding:
    name = getattr(path[-1], "key", "") if path else ""
    letters = axes_of(name) if isinstance(name, str) else ""
    spec = [None] * (len(x.shape) - len(letters)) + [RULES.get(a) for a in letters]
    for axis, size in zip(spec, x.shape, strict=True):
      if axis and size % mesh.shape[axis]:
        raise ValueError(
          f"mesh.{axis}={mesh.shape[axis]} does not divide the axis of {size} in"
          f" {name} {x.shape}; choose a {axis} that does"
        )
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree_util.tree_map_with_path(one, tree)


def whole(mesh: Mesh, tree: Any) -> Any:
  """Puts a copy of each array on every device."""
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_rows(mesh: Mesh, x_BL: jax.Array) -> jax.Array:
  """Splits rows over the axis `data` and tokens over `sequence`, inside of jit.

  Tokens that `sequence` does not divide stay together.
  """
  if mesh.size == 1:
    return x_BL
  even = x_BL.ndim > 1 and x_BL.shape[1] % mesh.shape["sequence"] == 0
  rows = PartitionSpec("data", "sequence") if even else PartitionSpec("data")
  return jax.lax.with_sharding_constraint(x_BL, NamedSharding(mesh, rows))


def place_rows(mesh: Mesh, x_BL: Any) -> jax.Array:
  """Puts rows on the devices along `data`, outside of jit; all rows if uneven."""
  even = len(x_BL) % mesh.shape["data"] == 0
  spec = PartitionSpec("data") if even else PartitionSpec()
  return jax.device_put(x_BL, NamedSharding(mesh, spec))


def split_batch(mesh: Mesh, batch: Batch) -> Batch:
  """Splits the rows of a batch, but not coordinates that all rows share."""
  B = batch.input_BL.shape[0]
  return jax.tree.map(lambda x: split_rows(mesh, x) if x.shape[0] == B else x, batch)
