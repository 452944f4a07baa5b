"""Many heads, with or without biases. Vaswani et al., 2017.

https://arxiv.org/abs/1706.03762; with biases: GPT-2, BERT
"""

import dataclasses

from transformer_jax.attention.projections import Heads
from transformer_jax.attention.variants.base import Variant, attentions


@attentions.register("multihead")
@dataclasses.dataclass(frozen=True)
class MultiHead(Variant):
  """Multi-head attention: a query, a key and a value for each head.

      o_i = sum over j of softmax_j(q_i . k_j / sqrt(K)) v_j

  bias    queries, keys, values and the output are shifted by learned vectors;
          "in": all but the output, "out": only the output
  value   width of a head's values; 0: that of its keys
  clip    cuts queries, keys and values to -clip .. clip, as in MPT; 0: it does not

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> weights = tj.attentions.build("multihead(bias=True)").projections().weights(dims)
  >>> {name: shape for name, (shape, _) in weights.items() if name.startswith("query")}
  {'query_DHK': (64, 8, 8), 'query_shift_HK': (8, 8)}
  """

  bias: bool | str = False
  value: int = 0
  clip: float = 0.0

  def projections(self):
    return Heads(bias=self.bias, value=self.value, clip=self.clip)

  def overrides(self, hook):
    # Without arguments it overrides nothing: gqa + alternate(window, multihead).
    return bool(self.bias or self.value or self.clip) and super().overrides(hook)

  def refusal(self, encoding):
    if not (self.value and encoding.overrides("values")):
      return None
    return (
      f"{encoding.name} adds to values as wide as keys, and those of multihead are"
      f" {self.value} wide; use multihead(value=0) or another encoding"
    )
