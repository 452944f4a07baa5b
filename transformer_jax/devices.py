"""Devices that a program is made for, which may be none of this machine's."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from transformer_jax.mesh_shape import MATRIX_RULES, ROWS, RULES, SEED, SEQUENCE


def platform() -> str:
  """Returns cpu, gpu or tpu: that of the mesh in use, without one JAX's default.

  Programs are compiled ahead of time for a mesh of devices that are not here.

  >>> import numpy as np
  >>> with jax.set_mesh(jax.sharding.Mesh(np.array(jax.devices("cpu")[:1]), ("data",))):
  ...   print(platform())
  cpu
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device else jax.default_backend()


def split_rows(x_BL: jax.Array, mesh: Mesh | None = None) -> jax.Array:
  """Splits rows over the axes `data` and `fsdp`, and tokens over `sequence`.

  Axes that do not divide stay together, and an array without a mesh stays as it is.
  Called on the input of the layers: else the compiler may split the width of states, as
  that of parameters, and send states from device to device.

  mesh   devices where no mesh is in use
  """
  here = jax.sharding.get_abstract_mesh()
  used: Any = mesh if mesh and here.empty else here
  free = free_axes(used)
  if math.prod(free.values()) == 1:
    return x_BL
  spec = [dividing(free, x_BL.shape[0], *ROWS)]
  spec += [dividing(free, x_BL.shape[1], SEQUENCE)] if x_BL.ndim > 1 else []
  split = NamedSharding(used, PartitionSpec(*spec))
  return jax.lax.with_sharding_constraint(x_BL, split)


def gather_width(table_VD: jax.Array) -> jax.Array:
  """Returns a table of vectors that are whole, where not only their width is split.

  The compiler looks up parts of vectors well. Where a mesh splits rows of the table or
  tokens too, it would send the vectors of the whole batch to every device.
  """
  mesh, free = jax.sharding.get_abstract_mesh(), free_axes()
  width, others = MATRIX_RULES["D"], (RULES["V"], SEQUENCE)
  if free.get(width, 1) == 1 or all(free.get(axis, 1) == 1 for axis in others):
    return table_VD
  split = PartitionSpec(dividing(free, table_VD.shape[0], RULES["V"]), None)
  return jax.lax.with_sharding_constraint(table_VD, NamedSharding(mesh, split))


def gather_matrix(w: jax.Array, letters: str) -> jax.Array:
  """Returns a weight matrix that is whole along the mesh axis `fsdp`.

  Left to itself the compiler for TPUs divides a product with a split matrix into one
  for each device, each of which adds to all results in memory.

  letters   axis letters of the matrix; "": unknown, and it stays as it is
  """
  mesh, free = jax.sharding.get_abstract_mesh(), free_axes()
  if not letters or free.get(MATRIX_RULES["D"], 1) == 1:
    return w
  pairs = zip(letters, w.shape, strict=True)
  axes = [dividing(free, n, RULES[a]) if a in RULES else None for a, n in pairs]
  split = PartitionSpec(*(axis or None for axis in axes))
  return jax.lax.with_sharding_constraint(w, NamedSharding(mesh, split))


def free_axes(mesh: Any = None) -> dict[str, int]:
  """Returns {axis: size} of a mesh, without the axes that `shard_map` has taken.

  mesh   None: that in use
  """
  mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
  kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
  return {axis: mesh.shape[axis] for axis, kind in kinds if kind == AxisType.Auto}


def seed_axes() -> tuple[str, ...]:
  """Returns the mesh axis of seeds, if there is one.

  `vmap` over seeds adds it to the specs of a `shard_map`, which has to take it then.
  """
  return tuple(axis for axis in free_axes() if axis == SEED)


def text_parts() -> int:
  """Returns the number of devices that split the tokens of a text; 1 without a mesh.

  >>> text_parts()
  1
  """
  return free_axes().get(SEQUENCE, 1)


def along_text(function: Callable[..., Any]) -> Callable[..., Any]:
  """Returns (tokens, shared) -> (tokens, shared), run on parts of a text.

  tokens   arrays [B, L, ...]: each device has its part of L
  shared   arrays that all devices have, and return alike
  """
  tokens, everywhere = PartitionSpec(None, SEQUENCE), PartitionSpec()
  return jax.shard_map(
    function,
    in_specs=(tokens, everywhere),
    out_specs=(tokens, everywhere),
    axis_names={SEQUENCE, *seed_axes()},
    check_vma=False,
  )


def dividing(free: dict[str, int], size: int, *axes: str) -> tuple[str, ...] | None:
  """Returns those of some mesh axes that are there; None if they do not divide.

  >>> dividing({"data": 2, "fsdp": 4}, 8, "data", "fsdp")
  ('data', 'fsdp')
  """
  axes = tuple(axis for axis in axes if axis in free)
  return None if size % math.prod(free[axis] for axis in axes) else axes
