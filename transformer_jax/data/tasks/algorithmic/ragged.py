"""Base class of tasks whose texts of one length differ in their number of tokens."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch, Task
from transformer_jax.data.tasks.algorithmic.base import PAD, shifted
from transformer_jax.positions import coords

RaggedRow = tuple[jax.Array, jax.Array, dict[str, jax.Array]]
LEAST = 3  # the shortest length of training


@dataclasses.dataclass(frozen=True, kw_only=True)
class RaggedTask(Task):
  """Base class of tasks whose texts of one length differ in their number of tokens.

  fixed   train on exactly the task length; False: on lengths n from 3 up to it, N, with
          weights 1 / (n + sqrt(N))

  >>> from transformer_jax.data.base import tasks
  >>> task = tasks.build("depo")
  >>> isinstance(task, RaggedTask), task.size(20) == task.tokens(20) + 1
  (True, True)
  """

  fixed: bool = False

  def size(self, length: int) -> int:
    """Returns the most tokens that a text may have, the last one included."""
    raise NotImplementedError

  def tokens(self, length: int) -> int:
    """All tokens of a text but the last, which is predicted and never read."""
    return self.size(length) - 1

  def row(
    self, key: jax.Array, length: Any, max_length: int, scored: bool
  ) -> RaggedRow:
    """Returns one text: tokens, their weights as targets, and ids of the targets.

    key          draws the text, the same one for every `max_length`
    length       its task length
    max_length   the task length that sets the shapes, `size(max_length)`
    scored       whether the text is one of evaluation; training may draw others

    All are padded on the right with zeros. Ids become `Coords.data` of evaluation, for
    measures.
    """
    raise NotImplementedError

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns texts padded on the right. Arguments: see `Task.batch`.

    Padding needs no mask: under a causal mask no counted token attends to it.
    """

    def one(key):
      length_key, key = jax.random.split(key)
      drawn = length if self.fixed else draw_length(length_key, length)
      return self.row(key, drawn, length, scored=False)[:2]

    token_BL, weight_BL = jax.vmap(one)(row_keys(key, batch_size))
    at = coords.consecutive(1, self.tokens(length))
    return shifted(token_BL, weight_BL, at)

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns texts of exactly `length`, padded left. Arguments: see `Task.score`."""

    def one(key):
      token_L, weight_L, ids = self.row(key, length, bucket, scored=True)
      absent = jnp.sum(token_L == PAD)
      return jax.tree.map(lambda x: jnp.roll(x, absent), (token_L, weight_L, ids))

    token_BL, weight_BL, ids = jax.vmap(one)(row_keys(key, batch_size))
    at = coords.padded(token_BL[:, :-1] != PAD)
    at = at.replace(data={f"{name}_BL": id_BL[:, 1:] for name, id_BL in ids.items()})
    return shifted(token_BL, weight_BL, at)


def row_keys(key: jax.Array, rows: int) -> jax.Array:
  """Returns a key for each row, whatever the number of rows."""
  return jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(rows))


def draw_length(key: jax.Array, longest: int) -> jax.Array:
  """Returns a length n from 3 up to the longest, N, with weight 1 / (n + sqrt(N))."""
  length_N = jnp.arange(min(LEAST, longest), longest + 1)
  weight_N = 1 / (length_N + math.sqrt(longest))
  return length_N[jax.random.categorical(key, jnp.log(weight_N))]


def numbers(key: jax.Array, size: int) -> jax.Array:
  """Returns random uint32 numbers; the n-th does not depend on their number."""
  draw = lambda n: jax.random.bits(jax.random.fold_in(key, n))  # noqa: E731
  return jax.vmap(draw)(jnp.arange(size))


def joined(size: int, token_T: jax.Array, *other_T: jax.Array) -> list[jax.Array]:
  """Returns the tokens without the padding among them, and other arrays likewise.

  size      tokens of the result, padded on the right
  token_T   tokens of all parts of a text, one after another
  other_T   arrays of as many numbers
  """
  real_T = token_T != PAD
  place_T = jnp.where(real_T, jnp.cumsum(real_T) - 1, size)

  def put(x_T):
    return jnp.zeros(size, x_T.dtype).at[place_T].set(x_T, mode="drop")

  return [put(x_T) for x_T in (token_T, *other_T)]
