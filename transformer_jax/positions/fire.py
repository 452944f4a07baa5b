"""Functional interpolation for relative positions. Li et al., 2024.

https://arxiv.org/abs/2310.04418
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.initializers import fan_in_uniform
from transformer_jax.positions.base import PositionalEncoding, positions


@positions.register("fire")
@dataclasses.dataclass(frozen=True)
class Fire(PositionalEncoding):
  """Learns a bias of the distance relative to the query's position.

      s_ij = q_i . k_j / sqrt(K) + MLP(psi(|i - j|) / psi(max(T, i))),
        psi(x) = ln(c x + 1), c and T learned

  The ratio stays between 0 and 1 at any length, so a longer text only interpolates.
  Past and future are alike: the bias ignores the sign of the distance.

  width       hidden units of the network from ratio to bias
  threshold   initial value of the position T, below which the denominator is constant

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> network = {"in_W": np.ones(1), "in_shift_W": np.zeros(1), "out_HW": np.ones(1)}
  >>> params = {"growth": 0.1, "stretch": 1.0, "out_shift_H": 0.0} | network
  >>> bias = jax.jit(tj.positions.build("fire(threshold=2)").bias)
  >>> print(np.asarray(bias(params, np.array([4]), np.arange(4))).round(2))
  [[1.   0.78 0.54 0.28]]
  """

  width: int = 32
  threshold: float = 512.0
  relative = False
  per_layer = True

  def init(self, key, dims):
    keys = jax.random.split(key, 4)
    # As in the authors' listing. Shifts of zero would start every unit as a straight
    # line or dead, because the share is never negative.
    return {
      "growth": jnp.float32(0.1),
      "stretch": jnp.float32(1.0),
      "in_W": fan_in_uniform(keys[0], (self.width,), 1),
      "in_shift_W": fan_in_uniform(keys[1], (self.width,), 1),
      "out_HW": fan_in_uniform(keys[2], (dims.H, self.width), self.width),
      "out_shift_H": fan_in_uniform(keys[3], (dims.H,), self.width),
    }

  def bias(self, params, pos_L, pos_M):
    def squash(x):
      return jnp.log1p(jnp.abs(params["growth"]) * x.astype(jnp.float32))

    distance_LM = jnp.abs(pos_L[:, None] - pos_M[None, :])
    threshold = jnp.abs(params["stretch"] * self.threshold)
    largest_LM = jnp.maximum(threshold, jnp.maximum(pos_L[:, None], distance_LM))
    share_LM = squash(distance_LM) / (squash(largest_LM) + 1e-6)
    in_W, shift_W, out_W = params["in_W"], params["in_shift_W"], params["out_HW"]
    return _network(share_LM, in_W, shift_W, out_W) + params["out_shift_H"]


@jax.custom_vjp
def _network(x_LM, in_W, shift_W, out_W):
  """Returns out . relu(in x + shift), for one head."""
  hidden_WLM = jax.nn.relu(_column(in_W) * x_LM + _column(shift_W))
  return jnp.tensordot(out_W, hidden_WLM, 1)


def _save(*inputs):
  return _network(*inputs), inputs


def _gradients(inputs, d_LM):
  """Returns the gradients of `_network`, from the mask of active hidden units.

  A unit is linear where it is active, so all gradients are products with that mask.
  JAX's gradients sum over every hidden activation: attention forward and backward takes
  a third more time with them on CPUs.
  """
  x_LM, in_W, shift_W, out_W = inputs
  on_WLM = (_column(in_W) * x_LM + _column(shift_W) > 0).astype(d_LM.dtype)
  d_W, d_x_W = jnp.tensordot(jnp.stack([d_LM, d_LM * x_LM]), on_WLM, ((1, 2), (1, 2)))
  d_x_LM = d_LM * jnp.tensordot(out_W * in_W, on_WLM, 1)
  return d_x_LM, out_W * d_x_W, out_W * d_W, in_W * d_x_W + shift_W * d_W


_network.defvjp(_save, _gradients)


def _column(x_W):
  return x_W[:, None, None]
