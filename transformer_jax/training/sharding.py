"""Sharding of arrays over a device mesh, read from their names.

The second axis of `query_DHK` is heads, which are split over the mesh axis `tensor`.
Its first axis is the model's width, which is split over `fsdp`. Adam's moments have the
names of the parameters and are split with them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from transformer_jax import global_arrays
from transformer_jax.axes import axes_of
from transformer_jax.data.base import Batch
from transformer_jax.devices import split_rows
from transformer_jax.mesh_shape import MATRIX_RULES, ROWS, RULES, SEED, MeshShape
from transformer_jax.training.seed_parts import seed_devices


def make_mesh(
  data: int = 1,
  tensor: int = 1,
  sequence: int = 1,
  fsdp: int = 1,
  seed: int = 1,
  pmap: bool = False,
  devices: Sequence[Any] | None = None,
) -> Mesh:
  """Returns a mesh of the first devices; the arguments are those of a `MeshShape`.

  devices   those to use, also of a described topology; None: all that there are

  Raises ValueError if the devices do not suffice or do not divide.
  """
  shape = MeshShape(data, tensor, sequence, fsdp, seed, pmap)
  devices = jax.devices() if devices is None else list(devices)
  for problem in shape.problems(len(devices)):
    raise ValueError(problem)
  sizes = shape.filled(len(devices)).sizes
  used = devices[: math.prod(sizes.values())]
  types = (AxisType.Auto,) * len(sizes)
  return jax.make_mesh(tuple(sizes.values()), tuple(sizes), types, devices=used)


def split(mesh: Mesh, tree: Any) -> Any:
  """Returns the sharding of every array of a tree, by the axes in its name.

  Leading axes that the name does not have (seeds, layers) are not split.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, x: NamedSharding(mesh, PartitionSpec(*_spec(mesh, path, x.shape))),
    tree,
  )


def split_stacked(mesh: Mesh, tree: Any) -> Any:
  """Returns the sharding of a training state, stacked over seeds: as `split`, by seed.

  Seeds that the axis `seed` does not divide are on all of its devices. Moments of other
  shapes than their parameter, such as factors of Adafactor, are split by seed alone.
  """
  params = jax.tree_util.tree_leaves_with_path(getattr(tree, "params", tree))
  shapes = {(_name(path), x.shape) for path, x in params}

  def one(path, x) -> NamedSharding:
    named = (_name(path), x.shape) in shapes
    by_name = _spec(mesh, path, x.shape)
    axes: list[str | None] = [*by_name] if named else [None] * len(x.shape)
    axes[0] = None if x.shape[0] % mesh.shape[SEED] else SEED
    return NamedSharding(mesh, PartitionSpec(*axes))

  return jax.tree_util.tree_map_with_path(one, tree)


def _name(path: Any) -> str:
  """Returns the name of an array, "" without one."""
  name = getattr(path[-1], "key", "") if path else ""
  return name if isinstance(name, str) else ""


def _spec(mesh: Mesh, path: Any, shape: tuple[int, ...]) -> Iterator[str | None]:
  """Yields the mesh axis of each axis of an array, by its name."""
  name = _name(path)
  letters = axes_of(name)
  rules = RULES | MATRIX_RULES if len(letters) > 1 else RULES
  axes = [None] * (len(shape) - len(letters)) + [rules.get(a) for a in letters]
  used: set[str] = set()
  for axis, size in zip(axes, shape, strict=True):
    if axis is None or axis in used:  # a mesh axis splits one axis of an array
      yield None
      continue
    if size % mesh.shape[axis]:
      raise ValueError(
        f"mesh.{axis}={mesh.shape[axis]} does not divide the axis of {size} in"
        f" {name} {shape}; choose a {axis} that does"
      )
    used.add(axis)
    yield axis


def map_seeds(
  function: Callable[..., Any], in_axes: Sequence[int | None]
) -> Callable[..., Any]:
  """Returns `jax.vmap` of a function of one seed; devices have seeds of their own.

  Whatever the function splits over a mesh, it splits over the devices of its seed. Not
  by `shard_map`: XLA of jax 0.10 aborts where it splits other axes by itself inside.

  function   of one seed
  in_axes    0 for an argument that is stacked over seeds, None for a shared one
  """

  def run(*args: Any) -> Any:
    seeds = jax.tree.leaves(args[in_axes.index(0)])[0].shape[0]
    axis = SEED if seed_devices(seeds) > 1 else None
    return jax.vmap(function, in_axes, spmd_axis_name=axis)(*args)

  return run


def whole(mesh: Mesh, tree: Any) -> Any:
  """Puts a copy of each array on every device."""
  everywhere = NamedSharding(mesh, PartitionSpec())
  return jax.tree.map(lambda x: global_arrays.put(x, everywhere), tree)


def num_rows(mesh: Mesh) -> int:
  """Returns the number of parts that a batch is split into."""
  return math.prod(mesh.shape[axis] for axis in ROWS)


def of_windows(mesh: Mesh, seeds: int) -> NamedSharding:
  """Returns the sharding of windows [S, steps, B, size]: of seeds and rows."""
  by_seed = None if seeds % mesh.shape[SEED] else SEED
  return NamedSharding(mesh, PartitionSpec(by_seed, None, ROWS))


def place_rows(mesh: Mesh, x_BL: Any) -> jax.Array:
  """Puts rows on the devices along `data` and `fsdp`, outside of jit.

  Rows that these do not divide are all on every device.
  """
  spec = PartitionSpec() if len(x_BL) % num_rows(mesh) else PartitionSpec(ROWS)
  return global_arrays.put(x_BL, NamedSharding(mesh, spec))


def split_batch(mesh: Mesh, batch: Batch) -> Batch:
  """Splits the rows of a batch, but not coordinates that all rows share."""
  B = batch.input_BL.shape[0]
  return jax.tree.map(lambda x: split_rows(x, mesh) if x.shape[0] == B else x, batch)
