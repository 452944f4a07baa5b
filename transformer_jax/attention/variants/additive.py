"""Additive attention. Bahdanau et al., 2015. https://arxiv.org/abs/1409.0473"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.devices import platform
from transformer_jax.positions.shared.relative import everywhere


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

    if platform() != "cpu":  # tanh costs them little, and a branch two programs
      return _summed(_tanh, q_LK.T, k_MK.T, params["energy_HK"])
    return energies(q_LK, k_MK, params["energy_HK"])

  def refusal(self, encoding):
    if encoding.overrides("rotate") or encoding.overrides("transform_qk"):
      return (
        f"{encoding.name} turns queries and keys for a dot product, which {self.name}"
        " does not take; use an encoding that adds a bias, such as alibi or t5"
      )
    return None


@jax.custom_vjp
def energies(q_LK: jax.Array, k_MK: jax.Array, energy_K: jax.Array) -> jax.Array:
  """Returns the sum over features of energy tanh(q_i + k_j), one head's s_LM.

  With a = exp(2 q) and b = exp(2 k), tanh(q + k) is 1 - 2 / (1 + a b): a division for
  each pair and feature, where tanh is a polynomial of higher degree and a division.
  One feature at a time, again in the backward pass: no array of [L, M, K].
  """

  def by_products():
    a_KL, b_KM = _exponentials(q_LK), _exponentials(k_MK)
    return jnp.sum(energy_K) - _summed(_share, a_KL, b_KM, 2 * energy_K)

  def by_sums():
    return _summed(_tanh, q_LK.T, k_MK.T, energy_K)

  return jax.lax.cond(_finite(q_LK, k_MK), by_products, by_sums)


def _save(*given):
  return energies(*given), given


def _pull(given, d_LM):
  q_LK, k_MK, energy_K = given

  def by_products():
    a_KL, b_KM = _exponentials(q_LK), _exponentials(k_MK)
    ones_L, ones_M = (jnp.ones(len(x)) for x in (q_LK, k_MK))

    def of_feature(_, feature):
      share_LM = _share(*feature)
      d_share_LM = d_LM * share_LM
      d_sum_LM = d_share_LM - d_share_LM * share_LM
      return None, (d_sum_LM @ ones_M, ones_L @ d_sum_LM, ones_L @ d_share_LM @ ones_M)

    found = jax.lax.scan(of_feature, None, (a_KL, b_KM))[1]
    d_q_KL, d_k_KM, d_share_K = found
    d_q_LK, d_k_MK = (4 * energy_K * x.T for x in (d_q_KL, d_k_KM))
    return d_q_LK, d_k_MK, jnp.sum(d_LM) - 2 * d_share_K

  def by_sums():
    def sums(q_LK, k_MK, energy_K):
      return _summed(_tanh, q_LK.T, k_MK.T, energy_K)

    return jax.vjp(sums, *given)[1](d_LM)

  return jax.lax.cond(_finite(q_LK, k_MK), by_products, by_sums)


energies.defvjp(_save, _pull)

FAR = 40.0  # exp(2 FAR) and exp(-2 FAR) are finite and above zero in float32


def _finite(q_LK, k_MK):
  """Returns whether exponentials of all queries and keys keep their digits."""
  largest = jnp.maximum(jnp.max(jnp.abs(q_LK)), jnp.max(jnp.abs(k_MK)))
  return everywhere(largest < FAR)


def _exponentials(x_LK):
  return jnp.exp(2 * x_LK).T


def _share(a_L, b_M):
  return 1 / (1 + a_L[:, None] * b_M)


def _tanh(q_L, k_M):
  return jnp.tanh(q_L[:, None] + k_M)


def _summed(function, q_KL, k_KM, energy_K):
  """Returns the sum over features of energy times a function of a pair."""

  @jax.checkpoint
  def add(s_LM, feature):
    q_L, k_M, energy = feature
    return s_LM + energy * function(q_L, k_M), None

  start_LM = jnp.zeros((q_KL.shape[1], k_KM.shape[1]), jnp.float32)
  return jax.lax.scan(add, start_LM, (q_KL, k_KM, energy_K))[0]
