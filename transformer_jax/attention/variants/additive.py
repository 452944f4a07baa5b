"""Additive attention. Bahdanau et al., 2015. https://arxiv.org/abs/1409.0473"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions


@attentions.register("additive")
@dataclasses.dataclass(frozen=True)
class Additive(Variant):
  """Scores v^T tanh(q + k + b), with learned v and b of each head.

      s_ij = v . tanh(q_i + k_j + b)

  The score is no dot product and is not divided by sqrt(K). Dot products of an
  encoding, such as `shaw`, still are.

  bias   adds b, initialized to zero

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> params = {"energy_HK": np.array([1.0]), "energy_shift_HK": np.array([0.0])}
  >>> dot = jax.jit(tj.attentions.build("additive").dot)
  >>> s_LM = dot(params, np.array([[1.0]]), np.array([[-1.0], [0.0], [9.0]]), 1.0)
  >>> print(np.asarray(s_LM).round(2))
  [[0.   0.76 1.  ]]
  """

  bias: bool = True

  def init(self, key, dims):
    # The paper starts v at zero, where queries and keys would not learn at first.
    energy_HK = jax.random.normal(key, (dims.H, dims.K)) * dims.K**-0.5
    shift = {"energy_shift_HK": jnp.zeros((dims.H, dims.K))} if self.bias else {}
    return {"energy_HK": energy_HK} | shift

  def scale(self, params, K):
    return K**-0.5  # of an encoding's dot products

  def dot(self, params, q_LK, k_MK, scale):
    q_LK, k_MK = q_LK.astype(jnp.float32), k_MK.astype(jnp.float32)
    if self.bias:
      q_LK += params["energy_shift_HK"]

    if len(q_LK) == 1:  # a decoder's step
      return (jnp.tanh(q_LK + k_MK) @ params["energy_HK"])[None]

    # One feature at a time, again in the backward pass: no array of [L, M, K].
    @jax.checkpoint
    def add(s_LM, feature):
      q_L, k_M, energy = feature
      return s_LM + energy * jnp.tanh(q_L[:, None] + k_M[None, :]), None

    start_LM = jnp.zeros((q_LK.shape[0], k_MK.shape[0]), jnp.float32)
    features = q_LK.T, k_MK.T, params["energy_HK"]
    return jax.lax.scan(add, start_LM, features)[0]

  def refusal(self, encoding):
    if encoding.overrides("rotate") or encoding.overrides("transform_qk"):
      return (
        f"{encoding.name} turns queries and keys for a dot product, which {self.name}"
        " does not take; use an encoding that adds a bias, such as alibi or t5"
      )
    return None
