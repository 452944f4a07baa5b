"""Many heads, with or without biases. Vaswani et al., 2017.

https://arxiv.org/abs/1706.03762; with biases: GPT-2, BERT
"""

import dataclasses

from transformer_jax.attention.projections import Heads
from transformer_jax.attention.variant import Variant, attentions


@attentions.register("multihead")
@dataclasses.dataclass(frozen=True)
class MultiHead(Variant):
  """A query, a key and a value for each head.

  bias   queries, keys, values and the output are shifted by learned vectors;
         "in": all but the output, "out": only the output
  """

  bias: bool | str = False

  def projections(self):
    return Heads(bias=self.bias)

  def overrides(self, hook):
    # Without biases it is what others start from: gqa + alternate(window, multihead).
    return bool(self.bias) and super().overrides(hook)
