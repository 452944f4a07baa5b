"""Sums over the micro-batches of a batch, computed one after another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.batch_part import MicroBatch
from transformer_jax.data.base import Batch


def sum_of_parts(
  function: Callable[[Batch, MicroBatch], Any], batch: Batch, count: int
) -> Any:
  """Returns the sum of a function's trees over micro-batches, in one loop.

  function   of a micro-batch and its place in the batch
  count      number of micro-batches, which divides the examples

  >>> from transformer_jax.positions import coords
  >>> token_BL, at = jnp.arange(8).reshape(4, 2), coords.consecutive(1, 2)
  >>> batch = Batch(token_BL, token_BL, jnp.ones((4, 2)), at)
  >>> def largest(micro_batch, part):
  ...   return micro_batch.input_BL.max()
  >>> int(sum_of_parts(largest, batch, 2))  # of examples 0 and 2, and of 1 and 3
  12
  """

  def one(own: Batch, index: jax.Array) -> Any:
    return function(own, MicroBatch(index, count))

  def add(sums: Any, own: tuple[Batch, jax.Array]) -> tuple[Any, None]:
    return jax.tree.map(jnp.add, sums, one(*own)), None

  every = _cut(batch, count), jnp.arange(count)
  shapes = jax.eval_shape(one, *jax.tree.map(lambda x: x[0], every))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  return jax.lax.scan(add, zeros, every)[0]


def map_parts(
  function: Callable[[Batch, MicroBatch], Any], batch: Batch, count: int
) -> Any:
  """Returns the trees of a function of each micro-batch, stacked; as `sum_of_parts`."""

  def one(own: tuple[Batch, jax.Array]) -> Any:
    return function(own[0], MicroBatch(own[1], count))

  return jax.lax.map(one, (_cut(batch, count), jnp.arange(count)))


def _cut(batch: Batch, count: int) -> Batch:
  """Returns the micro-batches of a batch, stacked."""
  B = batch.input_BL.shape[0]

  def cut(x: jax.Array) -> jax.Array:
    # Coordinates that all examples share are those of every micro-batch.
    whole = x.shape[0] == B
    return micro_batches(x, count) if whole else jnp.broadcast_to(x, (count, *x.shape))

  return jax.tree.map(cut, batch)


def micro_batches(x: jax.Array, count: int) -> jax.Array:
  """Returns the examples of each micro-batch, stacked: those that its `take` returns.

  >>> micro_batches(jnp.arange(6), 2).tolist()
  [[0, 2, 4], [1, 3, 5]]
  """
  return jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0)
