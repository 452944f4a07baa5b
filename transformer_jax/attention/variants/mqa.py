"""One key and value head for all queries. Shazeer, 2019.

https://arxiv.org/abs/1911.02150
"""

import dataclasses

from transformer_jax.attention.projections import Heads
from transformer_jax.attention.variants.base import Variant, attentions


@attentions.register("mqa")
@dataclasses.dataclass(frozen=True)
class MQA(Variant):
  """All query heads read the same keys and values.

      all heads read one key and value

  bias   queries, keys, values and the output are shifted by learned vectors;
         "in": all but the output, "out": only the output

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> weights = tj.attentions.build("mqa").projections().weights(dims)
  >>> weights["query_DHK"], weights["key_DGK"]
  (((64, 8, 8), 1), ((64, 1, 8), 1))
  """

  bias: bool | str = False

  def projections(self):
    return Heads(1, self.bias)
