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
  """Learns a bias of the distance as a share of the query's position.

      s_ij = q_i . k_j / sqrt(K) + MLP(psi(i - j) / psi(max(L, i))), psi(x) = ln(c x +
        1)

  The share stays between 0 and 1 at any length, so a longer text only interpolates.
  Between past and future the sign of the distance makes no difference.

  width       hidden units of the small network from share to bias
  threshold   the first guess of the position below which the share is of a constant
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
    squash = lambda x: jnp.log1p(jnp.abs(params["growth"]) * x.astype(jnp.float32))
    distance_LM = jnp.abs(pos_L[:, None] - pos_M[None, :])
    threshold = jnp.abs(params["stretch"] * self.threshold)
    largest_LM = jnp.maximum(threshold, jnp.maximum(pos_L[:, None], distance_LM))
    share_LM = squash(distance_LM) / (squash(largest_LM) + 1e-6)
    inward = params["in_W"], params["in_shift_W"]
    return _network(share_LM, *inward, params["out_HW"]) + params["out_shift_H"]


@jax.custom_vjp
def _network(x_LM, in_W, shift_W, out_W):
  """Returns out . relu(in x + shift), for one head."""
  hidden_WLM = jax.nn.relu(_column(in_W) * x_LM + _column(shift_W))
  return jnp.tensordot(out_W, hidden_WLM, 1)


def _save(*inputs):
  return _network(*inputs), inputs


def _gradients(inputs, d_LM):
  """Needs nothing of the hidden layer but which units are on.

  A unit is linear where it is on, so all gradients are products with those ones and
  zeros. JAX's own sum gradients of every hidden number: attention with them and its
  gradients takes a third more time on CPUs.
  """
  x_LM, in_W, shift_W, out_W = inputs
  on_WLM = (_column(in_W) * x_LM + _column(shift_W) > 0).astype(d_LM.dtype)
  d_W, d_x_W = jnp.tensordot(jnp.stack([d_LM, d_LM * x_LM]), on_WLM, ((1, 2), (1, 2)))
  d_x_LM = d_LM * jnp.tensordot(out_W * in_W, on_WLM, 1)
  return d_x_LM, out_W * d_x_W, out_W * d_W, in_W * d_x_W + shift_W * d_W


_network.defvjp(_save, _gradients)


def _column(x_W):
  return x_W[:, None, None]
