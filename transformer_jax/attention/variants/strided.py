"""Attention to near tokens and every n-th distant one. Child et al., 2019.

https://arxiv.org/abs/1904.10509
"""

import dataclasses

from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.sparse import Pattern


@attentions.register("strided")
@dataclasses.dataclass(frozen=True)
class Strided(Pattern):
  """A query attends to a window of `stride` tokens and to distances divisible by it.

      w_ij > 0 where |i - j| < stride, or (i - j) mod stride = 0

  Both halves of the Sparse Transformer's pattern are one mask. In the paper, each half
  may also have separate heads. A stride near the root of the length is cheapest.

  stride   tokens in the window, and between distant tokens

  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 5)
  >>> strided = tj.attention.BoundVariant(tj.attentions.build("strided(2)"))
  >>> print(strided.mask(at, at)[0].astype(int))
  [[1 0 0 0 0]
   [1 1 0 0 0]
   [1 1 1 0 0]
   [0 1 1 1 0]
   [1 0 1 1 1]]
  """

  stride: int = 32

  def meet(self, i_BL1, j_B1M):
    apart_BLM = abs(i_BL1 - j_B1M)
    return (apart_BLM < self.stride) | (apart_BLM % self.stride == 0)
