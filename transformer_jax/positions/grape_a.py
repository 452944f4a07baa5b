"""Additive group representations (GRAPE-A). Zhang et al., 2025.

https://arxiv.org/abs/2512.07805
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from transformer_jax.positions.alibi import slopes
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.selective_rope import direction
from transformer_jax.spec import SpecError

GATES = {"key": ("key",), "query": ("query",), "both": ("query", "key")}


@positions.register("grape_a")
@dataclasses.dataclass(frozen=True)
class GrapeA(PositionalEncoding):
  """Penalizes a score by its distance, at a rate computed from the key or the query.

      s_ij = q_i . k_j / sqrt(K) - w softplus(u . k_j / sqrt(K)) |i - j|

  The rate is a learned number times softplus(u . k / sqrt(K)), u of length one; its
  initial value is ALiBi's. Past and future are alike; the paper leaves that undefined.

  gate   key, query, or both: the sum of the two

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> tile = tj.positions.Tile(
  ...   q_LK=None, k_MK=np.array([[8.0], [0], [8]]), pos_L=np.array([3]),
  ...   pos_M=np.arange(3), mask_LM=None, q_data={}, k_data={}, scale=1.0,
  ... )
  >>> params = {"key_HK": np.ones(1), "rate_H": np.log(np.e - 1), "slope_H": 0.5}
  >>> score = jax.jit(tj.positions.build("grape_a").score)
  >>> print(np.asarray(score(params, np.zeros((1, 3)), tile)).round(2))
  [[-12.    -0.69  -4.  ]]
  """

  gate: str = "key"
  per_layer = True
  extrapolation = "decays"

  def __post_init__(self):
    if self.gate not in GATES:
      raise SpecError(f"grape_a: gate is key, query or both, not {self.gate!r}")

  def init(self, key, dims):
    keys = jax.random.split(key)

    def vector(key):
      return jax.random.normal(key, (dims.H, dims.K)) * dims.K**-0.5

    rate = math.log(math.expm1(1.0))  # softplus of it is 1
    gates = zip(GATES[self.gate], keys, strict=False)
    return {f"{name}_HK": vector(key) for name, key in gates} | {
      "rate_H": jnp.full(dims.H, rate)
    }

  def constants(self, dims):
    return {"slope_H": jnp.array(slopes(dims.H))}

  def score(self, params, s_LM, tile):
    gate = {"query": lambda: tile.q_LK, "key": lambda: tile.k_MK}
    axis = {"query": 1, "key": 0}
    chosen_LM = sum(
      jnp.expand_dims(gated(gate[name](), params[f"{name}_HK"]), axis[name])
      for name in GATES[self.gate]
    )
    rate = jax.nn.softplus(params["rate_H"]) * params["slope_H"]
    distance_LM = jnp.abs(tile.pos_L[:, None] - tile.pos_M[None, :])
    return s_LM - rate * chosen_LM * distance_LM


def gated(x_LK, u_K):
  """Returns the decay rate of each query or key."""
  x_L = x_LK.astype(jnp.float32) @ direction(u_K)
  return jax.nn.softplus(x_L * u_K.shape[0] ** -0.5)
