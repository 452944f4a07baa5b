"""DeltaNet. Yang et al., 2024. https://arxiv.org/abs/2406.06484"""

import dataclasses

from transformer_jax.attention.mixers.delta_rule import DeltaRule
from transformer_jax.attention.variants.base import attentions


@attentions.register("delta_net")
@dataclasses.dataclass(frozen=True)
class DeltaNet(DeltaRule):
  """Writes what is new of each value into a state that does not decay.

      S <- S - b_t k_t (k_t^T S) + b_t k_t v_t^T,   o_t = S^T q_t / sqrt(K)

  The strength b_t = sigmoid(u x_t) is of each head. Outputs are normalized. Arguments
  are those of `DeltaRule`.

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=16, H=2, F=16, L=8)
  >>> sorted(tj.attentions.build("delta_net").weights(dims))
  ['key_DHK', 'out_HED', 'query_DHK', 'strength_DH', 'value_DHE']
  """
