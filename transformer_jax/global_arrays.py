"""Arrays whose parts are on the devices of several processes: to the host and back.

In one process they are JAX's own `device_get` and `device_put`.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def read(tree: Any) -> Any:
  """Returns a tree as NumPy arrays; every process gets the whole of each.

  All processes must call it, in the same order. Keys of random numbers are not read.

  >>> read({"x_S": jax.numpy.arange(3)})["x_S"].tolist()
  [0, 1, 2]
  """
  return jax.device_get(jax.tree.map(_here, tree))


def _here(x: Any) -> Any:
  """Returns an array whose value this process has."""
  if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
    return x
  return multihost_utils.process_allgather(x, tiled=True)


def put(
  x: Any, sharding: jax.sharding.Sharding, may_alias: bool | None = None
) -> jax.Array:
  """Returns an array on the devices of a sharding; every process has all of `x`.

  may_alias   False: in memory of its own; None: as JAX does

  Between processes `jax.device_put` would compare the whole array.

  >>> put(np.arange(3), jax.sharding.SingleDeviceSharding(jax.devices()[0])).tolist()
  [0, 1, 2]
  """
  if sharding.is_fully_addressable:
    return jax.device_put(x, sharding, may_alias=may_alias)
  x = np.asarray(read(x))
  return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
