"""Sliding window with a few global tokens. Beltagy et al., 2020.

https://arxiv.org/abs/2004.05150
"""

import dataclasses

from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.sparse import Pattern


@attentions.register("global_local")
@dataclasses.dataclass(frozen=True)
class GlobalLocal(Pattern):
  """The first tokens of a text attend to all others, and all attend to them.

      w_ij > 0 where |i - j| < width, or i or j is among the first tokens

  Under a causal mask, global tokens attend to earlier tokens only. Longformer projects
  them with separate matrices; here all tokens share the matrices.

  width    keys that a local query attends to on one side, itself included
  tokens   number of global tokens at the start of a text

  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 5)
  >>> longformer = tj.attentions.build("global_local(width=2, tokens=1)")
  >>> print(tj.attention.BoundVariant(longformer).mask(at, at)[0].astype(int))
  [[1 0 0 0 0]
   [1 1 0 0 0]
   [1 1 1 0 0]
   [1 0 1 1 0]
   [1 0 0 1 1]]
  """

  width: int = 256
  tokens: int = 1

  def meet(self, i_BL1, j_B1M):
    is_global_BLM = (i_BL1 < self.tokens) | (j_B1M < self.tokens)
    return is_global_BLM | (abs(i_BL1 - j_B1M) < self.width)
