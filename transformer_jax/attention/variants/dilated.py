"""Dilated sliding window. Beltagy et al., 2020. https://arxiv.org/abs/2004.05150"""

import dataclasses

from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.sparse import Pattern


@attentions.register("dilated")
@dataclasses.dataclass(frozen=True)
class Dilated(Pattern):
  """A query attends to itself and every `gap`-th token near it.

      w_ij > 0 where (i - j) mod gap = 0 and |i - j| < width gap

  In Longformer each head has a gap. Here all heads of a layer share one, and
  `alternate(dilated(64, 4), window(64))` has different gaps in different layers.

  width   keys that a query attends to on one side, itself included
  gap     tokens from one of them to the next; 1 is `window`

  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 5)
  >>> dilated = tj.attentions.build("dilated(width=2, gap=2)")
  >>> print(tj.attention.BoundVariant(dilated).mask(at, at)[0].astype(int))
  [[1 0 0 0 0]
   [0 1 0 0 0]
   [1 0 1 0 0]
   [0 1 0 1 0]
   [0 0 1 0 1]]
  """

  width: int = 64
  gap: int = 2

  def meet(self, i_BL1, j_B1M):
    apart_BLM = abs(i_BL1 - j_B1M)
    return (apart_BLM < self.width * self.gap) & (apart_BLM % self.gap == 0)
