"""Linear attention. Katharopoulos et al., 2020.

https://arxiv.org/abs/2006.16236
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.kernelized import Kernel


@attentions.register("linear")
@dataclasses.dataclass(frozen=True)
class LinearAttention(Kernel):
  """Features are elu(x) + 1: x + 1 above zero and exp(x) below; no scale.

      w_ij = phi(q_i) . phi(k_j) / sum over t of phi(q_i) . phi(k_t)
      phi(x) = elu(x) + 1

  With products of features, time is linear in the length.

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> features = jax.jit(tj.attentions.build("linear").features)
  >>> x_BLHK = np.array([[[[-2.0, -1.0, 0.0, 2.0]]]])
  >>> print(np.asarray(features({}, x_BLHK, x_BLHK, 1.0)[0]).round(2))
  [[[[0.14 0.37 1.   3.  ]]]]
  """

  def scale(self, params, K):
    return 1.0

  def features(self, params, q_BLHK, k_BMHK, scale):
    def phi(x):
      return jax.nn.elu(x.astype(jnp.float32)) + 1

    return phi(q_BLHK), phi(k_BMHK)
