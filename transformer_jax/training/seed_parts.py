"""States of many seeds in parts that are computed by one program each.

XLA divides sums of a program for three seeds otherwise than those of a program for
ten: the last digits of a seed would depend on the seeds beside it. On a CPU a program
therefore has one seed, which takes 5 to 9% longer (docs/design.md), or one for each
device along the mesh axis `seed`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import global_arrays
from transformer_jax.devices import platform
from transformer_jax.mesh_shape import SEED


def together(seeds: int) -> int:
  """Returns the number of seeds in one program: one on a device of a CPU, else all."""
  return seed_devices(seeds) if platform() == "cpu" else seeds


def seed_devices(seeds: int) -> int:
  """Returns over how many devices of the mesh in use a number of seeds is split.

  Seeds that the axis `seed` does not divide are together on all of its devices.
  """
  devices = jax.sharding.get_abstract_mesh().shape.get(SEED, 1)
  return devices if seeds % devices == 0 else 1


def split(tree: Any, size: int) -> list[Any]:
  """Returns a tree whose leaves are stacked by seed in parts of `size` seeds.

  size   seeds of a part; 0: all

  >>> [part["x_S"].tolist() for part in split({"x_S": jnp.arange(3)}, 1)]
  [[0], [1], [2]]
  """
  seeds = jax.tree.leaves(tree)[0].shape[0]
  if size in (0, seeds):
    return [tree]

  def part(first: int) -> Any:
    return jax.tree.map(lambda x: _put(_read(x)[first : first + size], x), tree)

  return [part(first) for first in range(0, seeds, size)]


def join(parts: list[Any]) -> Any:
  """Returns the tree of `split`; the parts stay as they are.

  >>> join([{"x_S": np.array([0])}, {"x_S": np.array([7])}])["x_S"].tolist()
  [0, 7]
  """
  if len(parts) == 1:
    return parts[0]

  def one(*leaves: Any) -> Any:
    return _put(np.concatenate([_read(x) for x in leaves]), leaves[0])

  return jax.tree.map(one, *parts)


def take(tree: Any, places: list[int]) -> Any:
  """Returns a tree of the seeds at these places, in their order.

  >>> take({"x_S": np.array([5, 6, 7])}, [2, 0])["x_S"].tolist()
  [7, 5]
  """
  return jax.tree.map(lambda x: _put(_read(x)[np.array(places)], x), tree)


def _is_key(x: Any) -> bool:
  return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _read(x: Any) -> np.ndarray:
  return np.asarray(global_arrays.read(jax.random.key_data(x) if _is_key(x) else x))


def _put(x: np.ndarray, like: Any) -> Any:
  """Returns an array of the kind of `like`, with memory of its own.

  Programs that cut and join arrays would be compiled for each shape; a CPU's memory is
  read and written by NumPy.
  """
  if not isinstance(like, jax.Array):
    return x
  if _is_key(like):
    data = global_arrays.put(x, jax.random.key_data(like).sharding, may_alias=False)
    return jax.random.wrap_key_data(data)
  return global_arrays.put(x, like.sharding, may_alias=False)
