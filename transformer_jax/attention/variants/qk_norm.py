"""Normalized queries and keys. Dehghani et al., 2023; Qwen3, 2025.

https://arxiv.org/abs/2302.05442, https://arxiv.org/abs/2505.09388
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.projections import Arrays
from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.normalization import rms_norm
from transformer_jax.spec import SpecError


@attentions.register("qk_norm")
@dataclasses.dataclass(frozen=True)
class QKNorm(Variant):
  """RMS norm of each head's queries and keys, with learned gains.

      s_ij = rms_norm(q_i) . rms_norm(k_j) / sqrt(K)

  The norm precedes the rotation, or follows it. All heads of a layer share the gains.
  The factor 1 / sqrt(K) stays: no score is above sqrt(K) times the largest gains of
  queries and keys.

  centered   subtracts the mean first, as a LayerNorm without a shift
  epsilon    added to the mean square
  together   one mean over the features of all heads, and gains for each head: OLMo 2,
             https://arxiv.org/abs/2501.00656
  per_head   a mean and gains for each head: Cohere's Command R+
  offset     added to the gains: 1 in Gemma 3, whose learned gains are near zero
  gain       False: no gains, as in nanochat and Llama 4
  after      the norm follows the rotation, and whatever else the encoding does to
             queries and keys, as in nanochat and Llama 4
  queries    False: keys alone
  keys       False: queries alone, where an earlier layer has normed the keys

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> normalize = jax.jit(tj.attentions.build("qk_norm").normalize)
  >>> x_BLHK = np.array([[[[3.0, 4.0], [30.0, 40.0]]]])
  >>> print(np.asarray(normalize(x_BLHK, np.ones(2)))[0, 0].round(2))
  [[0.85 1.13]
   [0.85 1.13]]
  """

  centered: bool = False
  epsilon: float = 1e-6
  together: bool = False
  per_head: bool = False
  offset: float = 0.0
  gain: bool = True
  after: bool = False
  queries: bool = True
  keys: bool = True

  def __post_init__(self):
    if self.offset and not self.gain:
      raise SpecError("qk_norm: offset is added to gains; write gain=True, or offset=0")
    if not (self.queries or self.keys):
      raise SpecError("qk_norm: queries or keys are normed; leave one of them True")

  def init(self, key, dims):
    if not self.gain:
      return {}

    def start(*shape):
      return jnp.ones(shape) - self.offset

    normed = ("query",) * self.queries + ("key",) * self.keys
    if not (self.together or self.per_head):
      return {f"{name}_gain_K": start(dims.K) for name in normed}
    sizes = {"key_gain_GK": dims.G} if dims.G else {"key_gain_HK": dims.H}
    sizes = sizes if self.keys else {}
    sizes = ({"query_gain_HK": dims.H} if self.queries else {}) | sizes
    return {name: start(heads, dims.K) for name, heads in sizes.items()}

  def condition(self, params, q_BLHK, k_BMGK):
    return (q_BLHK, k_BMGK) if self.after else self.both(params, q_BLHK, k_BMGK)

  def rotated(self, params, q_BLHK, k_BMGK):
    return self.both(params, q_BLHK, k_BMGK) if self.after else (q_BLHK, k_BMGK)

  def both(
    self, params: Arrays, q_BLHK: jax.Array, k_BMGK: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Returns normalized queries and keys."""

    def gain(which):
      return next((x for n, x in params.items() if n.startswith(which)), None)

    if self.queries:
      q_BLHK = self.normalize(q_BLHK, gain("query_gain_"))
    if self.keys:
      k_BMGK = self.normalize(k_BMGK, gain("key_gain_"))
    return q_BLHK, k_BMGK

  def normalize(self, x_BLHK: jax.Array, gain: jax.Array | None) -> jax.Array:
    """Returns vectors with a mean square of one, times gain_K or gain_HK."""
    x, axes = x_BLHK.astype(jnp.float32), (-2, -1) if self.together else -1
    x -= jnp.mean(x, axis=axes, keepdims=True) if self.centered else 0.0
    if gain is not None and self.offset:
      gain = gain + self.offset
    return rms_norm(x, gain, self.epsilon, axes).astype(x_BLHK.dtype)
