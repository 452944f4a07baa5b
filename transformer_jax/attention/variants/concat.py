"""The form of attention called concat. Luong et al., 2015.

https://arxiv.org/abs/1508.04025
"""

import dataclasses

from transformer_jax.attention.variants.additive import Additive
from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.multiplicative import States


@attentions.register("concat")
@dataclasses.dataclass(frozen=True)
class Concat(Additive):
  """Scores v^T tanh(W [h; g]) of states, with output tanh(W_c [context; h]).

      s_ij = v . tanh(W [h_i; g_j])

  A head compares and mixes one slice of the states. With biases,
  v^T tanh(W [h; g] + b).

  project   False: the output is the context

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=8, H=1, F=8, L=8)
  >>> projections = tj.attentions.build("concat").projections()
  >>> projections.matrices, projections.weights(dims)
  (('query', 'key'), {'out_HKD': ((1, 8, 8), 2), 'state_DD': ((8, 8), 1)})
  """

  bias: bool = False
  project: bool = True

  def projections(self):
    return States(project=self.project, matrices=("query", "key"))
