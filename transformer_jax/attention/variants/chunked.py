"""Attention within chunks, as in Llama 4, 2025.

https://ai.meta.com/blog/llama-4-multimodal-intelligence/
"""

import dataclasses

from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.sparse import Pattern


@attentions.register("chunked")
@dataclasses.dataclass(frozen=True)
class Chunked(Pattern):
  """A query attends to the tokens of its chunk of the text.

      w_ij > 0 where floor(i / size) = floor(j / size)

  Other layers must attend across chunks: `alternate(chunked(8192), multihead, 4)` is
  Llama 4's.

  size   tokens in a chunk

  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 5)
  >>> chunked = tj.attention.BoundVariant(tj.attentions.build("chunked(2)"))
  >>> print(chunked.mask(at, at)[0].astype(int))
  [[1 0 0 0 0]
   [1 1 0 0 0]
   [0 0 1 0 0]
   [0 0 1 1 0]
   [0 0 0 0 1]]
  """

  size: int = 256

  def meet(self, i_BL1, j_B1M):
    return i_BL1 // self.size == j_B1M // self.size
