"""Blocks of tokens, counted within each text, as columns of arrays of scores."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.bound_variant import visible
from transformer_jax.positions import Coords


@dataclasses.dataclass(frozen=True)
class BlockColumns:
  """Columns N of blocks of tokens; a block has the column of its first token.

  Blocks of one text begin at least `size` places apart, so those that a query may
  attend to have columns of their own, also where texts are packed: a query has M / size
  of them, not M.

  number_BLN    number of a column's block in the query's text; -1: none
  member_BMN    1 where a key is in a column's block, else 0
  visible_BLM   True where a query may attend to a key

  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.packed(jnp.array([[1, 1, 1, 2, 2, 2]]))
  >>> columns = block_columns(at, at, size=2)
  >>> columns.number_BLN[0, 2].tolist(), columns.number_BLN[0, 5].tolist()
  ([0, 1, -1], [-1, 0, 1])
  >>> columns.mean(jnp.arange(6.0) * jnp.ones((1, 1, 6, 1)))[0, 0, 5].tolist()
  [0.0, 3.5, 5.0]
  >>> columns.spread(jnp.array([0.0, 7, 8]) * jnp.ones((1, 1, 6, 1)))[0, 0, 5].tolist()
  [0.0, 0.0, 7.0, 7.0, 7.0, 8.0]
  """

  number_BLN: jax.Array
  member_BMN: jax.Array
  visible_BLM: jax.Array

  def mean(self, x_BHLM: jax.Array) -> jax.Array:
    """Returns means over the keys of each block that a query may attend to, BHLN."""
    count_BLN = _exact(self.visible_BLM.astype(jnp.float32), self.member_BMN)
    seen_BHLM = jnp.where(self.visible_BLM[:, None], x_BHLM, 0.0)
    sum_BHLN = _exact(seen_BHLM, self.member_BMN[:, None])
    return sum_BHLN / jnp.maximum(count_BLN, 1)[:, None]

  def spread(self, x_BHLN: jax.Array) -> jax.Array:
    """Returns each key's number of its block, BHLM; keys of other texts have some."""
    return _exact(x_BHLN, jnp.swapaxes(self.member_BMN, 1, 2)[:, None])


def block_columns(q_at: Coords, k_at: Coords, size: int) -> BlockColumns:
  """Returns the columns of blocks of `size` tokens.

  q_at, k_at   coordinates of queries and keys
  """
  number_BM = k_at.order_BL // size
  M = number_BM.shape[1]
  same_BMM = number_BM[:, :, None] == number_BM[:, None]
  same_BMM &= k_at.segment_BL[:, :, None] == k_at.segment_BL[:, None]
  first_BM = jnp.argmax(same_BMM & k_at.real_BL[:, None], axis=-1)
  member_BMN = (first_BM // size)[..., None] == jnp.arange(-(-M // size))
  member_BMN &= k_at.real_BL[..., None]
  visible_BLM = visible(q_at, k_at)
  leads_B1M = (first_BM == jnp.arange(M))[:, None]
  number_BLM = jnp.where(visible_BLM & leads_B1M, number_BM[:, None], -1)
  number_BLM = jnp.pad(number_BLM, ((0, 0), (0, 0), (0, -M % size)), constant_values=-1)
  number_BLN = number_BLM.reshape(*number_BLM.shape[:2], -1, size).max(axis=-1)
  return BlockColumns(number_BLN, member_BMN.astype(jnp.float32), visible_BLM)


def _exact(x, y):
  """Returns a product that no device rounds: one factor is 0 or 1."""
  return jnp.matmul(x, y, precision="highest")
