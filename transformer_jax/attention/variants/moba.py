"""Mixture of block attention. Lu et al., 2025. https://arxiv.org/abs/2502.13189"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.block_columns import block_columns
from transformer_jax.attention.variants.bound_variant import PLAIN, by_heads
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
  gradient. This is the definition: scores of other blocks are computed, and masked.

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
    columns = block_columns(q_at, k_at, self.block)
    gate_BHLN = columns.mean(PLAIN.dot(q_BLHK, k_BMHK, 1.0))
    own_BL1, block_B1M = self.blocks(q_at)[:, :, None], self.blocks(k_at)[:, None]
    past_BLN = (columns.number_BLN >= 0) & (columns.number_BLN < own_BL1)
    rival_BHLN = jnp.where(past_BLN[:, None], gate_BHLN, -jnp.inf)
    chosen_BHLN = rival_BHLN >= nth_largest(rival_BHLN, self.k - 1)
    chosen_BHLN &= past_BLN[:, None]
    chosen_BHLM = columns.spread(chosen_BHLN.astype(jnp.float32)) > 0
    return chosen_BHLM | by_heads(block_B1M == own_BL1)

  def blocks(self, at: Coords) -> jax.Array:
    """Returns block_BL, the number of each token's block in its text."""
    return at.order_BL // self.block

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
