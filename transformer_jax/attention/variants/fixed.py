"""Attention to a query's block and the last tokens of all blocks. Child et al., 2019.

https://arxiv.org/abs/1904.10509
"""

import dataclasses

from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.sparse import Pattern
from transformer_jax.spec import SpecError


@attentions.register("fixed")
@dataclasses.dataclass(frozen=True)
class Fixed(Pattern):
  """A query attends to its block and to the summary tokens of other blocks.

      w_ij > 0 where j is in i's block, or among the last `summary` tokens of a block

  Both halves of the Sparse Transformer's pattern are one mask. In the paper, each half
  may also have separate heads.

  block     tokens in a block
  summary   tokens at the end of a block that other blocks attend to

  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 5)
  >>> fixed = tj.attentions.build("fixed(block=2, summary=1)")
  >>> print(tj.attention.BoundVariant(fixed).mask(at, at)[0].astype(int))
  [[1 0 0 0 0]
   [1 1 0 0 0]
   [0 1 1 0 0]
   [0 1 1 1 0]
   [0 1 0 1 1]]
  """

  block: int = 32
  summary: int = 4

  def __post_init__(self):
    super().__post_init__()
    if self.summary > self.block:
      raise SpecError(
        f"fixed: {self.summary} tokens of a block of {self.block} cannot sum it up;"
        " choose a summary no longer than the block"
      )

  def meet(self, i_BL1, j_B1M):
    own_BLM = i_BL1 // self.block == j_B1M // self.block
    return own_BLM | (j_B1M % self.block >= self.block - self.summary)
