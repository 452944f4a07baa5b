"""Mixture of block attention. Lu et al., 2025. https://arxiv.org/abs/2502.13189"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.bound_variant import by_heads, visible
from transformer_jax.attention.variants.selection import nth_largest
from transformer_jax.axes import check_whole
from transformer_jax.positions import Coords
from transformer_jax.spec import SpecError


@attentions.register("moba")
@dataclasses.dataclass(frozen=True)
class MoBA(Variant):
  """A query attends to its block and to the blocks whose mean keys it is nearest to.

      gate_in = q_i . mean of k_j over block n
      w_ij > 0 where j's block is i's, or among the k - 1 past blocks of highest gate

  Each head chooses by itself, from queries and keys as rotated and without a bias of
  the encoding. Blocks are counted within a text, and masked as usual within the query's
  block. Blocks that tie with the last chosen one are chosen too. The choice has no
  gradient. This is the definition, which computes all scores, not a faster form.

  block   tokens in a block
  k       number of chosen blocks, the query's own included

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 6)
  >>> k_BMHK = np.array([1.0, 1, 5, 5, 0, 0]).reshape(1, 6, 1, 1)
  >>> moba = tj.attention.BoundVariant(tj.attentions.build("moba(block=2, k=2)"))
  >>> args = np.ones((1, 6, 1, 1)), k_BMHK, at, at, moba.mask(at, at)
  >>> print(jax.jit(moba.select)(*args)[0, 0].astype(int))
  [[1 0 0 0 0 0]
   [1 1 0 0 0 0]
   [1 1 1 0 0 0]
   [1 1 1 1 0 0]
   [0 0 1 1 1 0]
   [0 0 1 1 1 1]]
  """

  block: int = 64
  k: int = 3

  def __post_init__(self):
    check_whole(self, block=1, k=1)

  def select(self, params, q_BLHK, k_BMHK, q_at, k_at, mask_BLM):
    own_BL1, block_B1M = self.blocks(q_at)[:, :, None], self.blocks(k_at)[:, None]
    past_BLM = visible(q_at, k_at) & (block_B1M < own_BL1)
    first_BM, gate_BHLM = self.gates(q_BLHK, k_BMHK, k_at)
    # One key stands for its block.
    leads_B1M = (first_BM == jnp.arange(first_BM.shape[1]))[:, None]
    rival_BHLM = jnp.where(by_heads(past_BLM & leads_B1M), gate_BHLM, -jnp.inf)
    chosen_BHLM = gate_BHLM >= nth_largest(rival_BHLM, self.k - 1)
    return by_heads(past_BLM) & chosen_BHLM | by_heads(block_B1M == own_BL1)

  def blocks(self, at: Coords) -> jax.Array:
    """Returns block_BL, the number of each token's block in its text."""
    return at.order_BL // self.block

  def gates(
    self, q_BLHK: jax.Array, k_BMHK: jax.Array, k_at: Coords
  ) -> tuple[jax.Array, jax.Array]:
    """Returns first_BM, the first key of each key's block, and its gate_BHLM.

    q_BLHK, k_BMHK   queries and keys, rotated
    k_at             coordinates of the keys
    """
    _, same_BMM = blocks_of(k_at, self.block)
    first_BM = jnp.argmax(same_BMM, axis=-1)
    keys_BM1 = jnp.maximum(jnp.sum(same_BMM, axis=-1, keepdims=True), 1)
    k_BHMK = jnp.moveaxis(k_BMHK.astype(jnp.float32), 2, 1)
    mean_BHMK = jnp.matmul(same_BMM[:, None].astype(jnp.float32), k_BHMK)
    mean_BHMK /= keys_BM1[:, None]
    gate_BHLM = jnp.einsum("BLHK,BHMK->BHLM", q_BLHK.astype(jnp.float32), mean_BHMK)
    # The gates of a block's keys are one number, not as many that were rounded apart.
    return first_BM, jnp.take_along_axis(gate_BHLM, first_BM[:, None, None], axis=-1)

  def bidirectional(self):
    raise SpecError(
      "moba chooses among the blocks before the query's own, and in bidirectional"
      " attention there are others; use it in a decoder"
    )

  def cross(self):
    raise SpecError(
      "moba counts blocks from the query's own, and another text has none; use it in a"
      " decoder, without an encoder"
    )


def blocks_of(at: Coords, size: int) -> tuple[jax.Array, jax.Array]:
  """Returns block_BL, the number of each token's block in its text, and same_BLL.

  The latter is True where two tokens share a block; padding shares none.

  at     coordinates of the tokens
  size   tokens of a block
  """
  block_BL = at.order_BL // size
  same_BLL = block_BL[:, :, None] == block_BL[:, None]
  same_BLL &= at.segment_BL[:, :, None] == at.segment_BL[:, None]
  return block_BL, same_BLL & at.real_BL[:, None]
