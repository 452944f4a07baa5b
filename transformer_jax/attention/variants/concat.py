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
  """Scores v' tanh(W [h; g]) of states, with output tanh(W_c [context; h]).

      s_ij = v . tanh(W [h_i; g_j])

  A head compares and mixes one slice of the states. With biases, v' tanh(W [h; g] + b).

  project   False: the output is the context
  """

  bias: bool = False
  project: bool = True

  def projections(self):
    return States(project=self.project, matrices=("query", "key"))
