"""A window, and a few tokens that meet all others. Beltagy et al., 2020.

https://arxiv.org/abs/2004.05150
"""

import dataclasses

from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.sparse import Pattern


@attentions.register("global_local")
@dataclasses.dataclass(frozen=True)
class GlobalLocal(Pattern):
  """The first tokens of a text are global: they see all others and all see them.

      w_ij > 0 where |i - j| < width, or i or j is among the first tokens

  In causal attention global tokens, like all others, see what came before them.
  Longformer projects them with matrices of their own; here they share the others'.

  width    keys that a local query sees on one side, itself included
  tokens   how many tokens at the start of a text are global
  """

  width: int = 256
  tokens: int = 1

  def meet(self, i_BL1, j_B1M):
    is_global_BLM = (i_BL1 < self.tokens) | (j_B1M < self.tokens)
    return is_global_BLM | (abs(i_BL1 - j_B1M) < self.width)
