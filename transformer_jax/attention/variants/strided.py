"""The near past, and every n-th token of the far one. Child et al., 2019.

https://arxiv.org/abs/1904.10509
"""

import dataclasses

from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.sparse import Pattern


@attentions.register("strided")
@dataclasses.dataclass(frozen=True)
class Strided(Pattern):
  """A query sees a window of `stride` tokens and every token a multiple of it away.

      w_ij > 0 where |i - j| < stride, or (i - j) mod stride = 0

  Both halves of the Sparse Transformer's pattern in one mask, where the paper also
  gives each half to heads of its own. A stride near the root of the length is cheapest.

  stride   tokens in the window, and from one far token to the next
  """

  stride: int = 32

  def meet(self, i_BL1, j_B1M):
    apart_BLM = abs(i_BL1 - j_B1M)
    return (apart_BLM < self.stride) | (apart_BLM % self.stride == 0)
