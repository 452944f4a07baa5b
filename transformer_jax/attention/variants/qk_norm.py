"""Normalized queries and keys. Dehghani et al., 2023; Qwen3, 2025.

https://arxiv.org/abs/2302.05442, https://arxiv.org/abs/2505.09388
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variant import Variant, attentions


@attentions.register("qk_norm")
@dataclasses.dataclass(frozen=True)
class QKNorm(Variant):
  """Each head's queries and keys get a mean square of one and learned gains.

  Before they are turned. All heads of a layer share the gains, and 1 / sqrt(K) stays:
  no score is above sqrt(K) times the largest gains of queries and keys.

  centered   takes the mean off first, as a LayerNorm without a shift
  epsilon    is added to the mean square
  """

  centered: bool = False
  epsilon: float = 1e-6

  def init(self, key, dims):
    return {f"{name}_gain_K": jnp.ones(dims.K) for name in ("query", "key")}

  def condition(self, params, q_BLHK, k_BMGK):
    q_BLHK = self.normalize(q_BLHK, params["query_gain_K"])
    return q_BLHK, self.normalize(k_BMGK, params["key_gain_K"])

  def normalize(self, x_BLHK: jax.Array, gain_K: jax.Array) -> jax.Array:
    """Returns vectors with a mean square of one, times the gain."""
    x = x_BLHK.astype(jnp.float32)
    x -= jnp.mean(x, axis=-1, keepdims=True) if self.centered else 0.0
    square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return (x * jax.lax.rsqrt(square + self.epsilon) * gain_K).astype(x_BLHK.dtype)
