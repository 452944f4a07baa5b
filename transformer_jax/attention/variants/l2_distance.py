"""Distances between queries and keys. Kim et al., 2021. https://arxiv.org/abs/2006.04710"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions


@attentions.register("l2_distance")
@dataclasses.dataclass(frozen=True)
class L2Distance(Variant):
  """Scores -|q - k|^2 / sqrt(K) of queries and keys.

      s_ij = -|q_i - k_j|^2 / sqrt(K)

  This is x-transformers' form, with separate projections of queries and keys. The
  paper's bound on the Lipschitz constant needs one shared projection.

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> dot = jax.jit(tj.attentions.build("l2_distance").dot)
  >>> print(dot({}, np.array([[1.0, 2]]), np.array([[1.0, 2], [1, 4], [4, 2]]), 1.0))
  [[ 0. -4. -9.]]
  """

  def dot(self, params, q_LK, k_MK, scale):
    product_LM = jnp.matmul(q_LK, k_MK.T, preferred_element_type=jnp.float32)

    def square(x):
      return jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1)

    return scale * (2 * product_LM - square(q_LK)[:, None] - square(k_MK)[None, :])

  def refusal(self, encoding):
    # Rotations keep lengths, and so distances depend on relative positions alone.
    if encoding.overrides("transform_qk") or encoding.overrides("temperature"):
      return (
        f"{encoding.name} rescales queries or keys for a dot product, which {self.name}"
        " does not take; use an encoding that rotates them, such as rope, or one that"
        " adds a bias, such as alibi"
      )
    return None
