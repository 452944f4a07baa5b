"""Parts of a batch, whose random numbers are those of the whole batch.

What is drawn for an example must not depend on the examples that are computed with it:
a part draws for the whole batch and takes its own.
"""

import dataclasses

import jax
import jax.numpy as jnp


class BatchPart:
  """Part of a batch that a program computes.

  count   parts of the batch, of equal size

  >>> class FirstHalf(BatchPart):
  ...   count = 2
  ...   def take(self, x):
  ...     return x[: len(x) // 2]
  >>> FirstHalf().take(jnp.arange(4)).tolist()
  [0, 1]
  """

  count: int

  def take(self, x: jax.Array) -> jax.Array:
    """Returns the examples of this part, from those of the whole batch."""
    raise NotImplementedError

  def gather(self, x: jax.Array) -> jax.Array:
    """Returns an array for the whole batch; its examples of this part are those of x.

    Those of other parts may be any, where `take` leaves them out again.
    """
    raise NotImplementedError


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class DevicePart(BatchPart):
  """Part of one device inside `pmap`.

  axis   name of the axis of devices that share the batch

  >>> first = jax.pmap(DevicePart("data").take, "data", devices=jax.devices()[:1])
  >>> first(jnp.arange(4)[None]).tolist()
  [[0, 1, 2, 3]]
  """

  axis: str

  @property
  def count(self) -> int:  # type: ignore[override]
    return jax.lax.axis_size(self.axis)

  def take(self, x: jax.Array) -> jax.Array:
    B = x.shape[0] // self.count
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(self.axis) * B, B)

  def gather(self, x: jax.Array) -> jax.Array:
    return jax.lax.all_gather(x, self.axis, tiled=True)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class MicroBatch(BatchPart):
  """One of the micro-batches that are computed one after another.

  It has every `count`-th example: devices that share the batch share each of them.

  index   number of the micro-batch
  count   micro-batches of a batch

  >>> part = MicroBatch(jnp.int32(1), count=2)
  >>> part.take(jnp.arange(6)).tolist()
  [1, 3, 5]
  """

  index: jax.Array
  count: int = dataclasses.field(metadata={"static": True})

  def take(self, x: jax.Array) -> jax.Array:
    x = x.reshape(-1, self.count, *x.shape[1:])
    return jax.lax.dynamic_index_in_dim(x, self.index, axis=1, keepdims=False)

  def gather(self, x: jax.Array) -> jax.Array:
    return jnp.repeat(x, self.count, axis=0)
