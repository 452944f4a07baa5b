"""Block-sparse attention to near, global and random blocks.

Zaheer et al., 2020. https://arxiv.org/abs/2007.14062
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.sparse import Pattern
from transformer_jax.spec import check_seed


@attentions.register("bigbird")
@dataclasses.dataclass(frozen=True)
class BigBird(Pattern):
  """A block of queries attends to near, global and random blocks.

      w_ij > 0 where block(i) and block(j) are near, or one is global,
        or one drew the other

  Each block draws from the blocks up to itself, with repetition. Two blocks attend to
  each other if either drew the other. So the pattern depends neither on the length of
  a text nor on how much of it is decoded. The paper draws from all blocks, which a
  decoder cannot. All heads, layers and texts share the draws.

  block    tokens in a block
  near     blocks that a block attends to on one side, itself included
  first    global blocks at the start of a text, as in `global_local`
  random   blocks that each block draws
  seed     seed of the draws

  >>> import jax
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 8)
  >>> bigbird = tj.attentions.build("bigbird(block=1, near=1, first=1, random=1)")
  >>> bound = tj.attention.BoundVariant(bigbird)
  >>> print(jax.jit(bound.mask)(at, at)[0].astype(int))
  [[1 0 0 0 0 0 0 0]
   [1 1 0 0 0 0 0 0]
   [1 0 1 0 0 0 0 0]
   [1 0 0 1 0 0 0 0]
   [1 0 0 0 1 0 0 0]
   [1 0 0 0 1 1 0 0]
   [1 1 0 0 0 0 1 0]
   [1 0 0 0 0 0 0 1]]
  """

  block: int = 64
  near: int = 2
  first: int = 1
  random: int = dataclasses.field(default=3, metadata={"least": 0})
  seed: int = dataclasses.field(default=0, metadata={"least": 0})

  def __post_init__(self):
    super().__post_init__()
    check_seed(self.seed)

  def meet(self, i_BL1, j_B1M):
    i_BL1, j_B1M = i_BL1 // self.block, j_B1M // self.block
    near_BLM = abs(i_BL1 - j_B1M) < self.near
    near_BLM |= (i_BL1 < self.first) | (j_B1M < self.first)
    if not self.random:
      return near_BLM
    mine_BLM = jnp.any(self.drawn(i_BL1) == j_B1M[..., None], axis=-1)
    theirs_BLM = jnp.any(self.drawn(j_B1M) == i_BL1[..., None], axis=-1)
    return near_BLM | mine_BLM | theirs_BLM

  def drawn(self, block: jax.Array) -> jax.Array:
    """Returns the blocks that each block draws, [..., random]."""
    key, shape = jax.random.key(self.seed), (self.random,)

    def draw(n):
      # The block's index is folded into the key; -1, of padding, is set to 0.
      n = jnp.maximum(n, 0)
      return jax.random.randint(jax.random.fold_in(key, n), shape, 0, n + 1)

    return jax.vmap(draw)(block.ravel()).reshape(*block.shape, self.random)
