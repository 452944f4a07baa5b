"""Selective rotary embedding. Movahedi et al., 2025. https://arxiv.org/abs/2511.17388"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.initializers import fan_in_uniform
from transformer_jax.matmul import einsum
from transformer_jax.positions.base import positions
from transformer_jax.positions.rope import Rope
from transformer_jax.positions.shared.short_convolution import mix, neighbours
from transformer_jax.positions.shared.sums import of_tokens, running, turns


@positions.register("selective_rope")
@dataclasses.dataclass(frozen=True)
class SelectiveRope(Rope):
  """Rotates each pair by cumulative angles computed from the queries, in every head.

      angle_m(i) = theta_m sum over t <= i of g_t (W * q / |q|)_tm

  A step is a projection of the query's direction, mixed with the three before it, times
  a gate of the token; RoPE's frequencies scale the sum of the steps. The paper's code
  projects the token instead of the query in one form. Convolution and projection are
  initialized as in PyTorch; the paper leaves that open.

  width   number of queries that a step mixes

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at, step_BLHR = tj.positions.coords.consecutive(1, 4), np.full((1, 4, 1, 1), 0.5)
  >>> data = {"step_BLHR": step_BLHR, "gate_BLH": np.array([[[1.0], [0], [0], [1]]])}
  >>> accumulate = jax.jit(tj.positions.build("selective_rope(width=1)").accumulate)
  >>> print(accumulate({"mix_HRN": np.ones((1, 1, 1))}, data, at)["angle_BLHR"].ravel())
  [0.5 0.5 0.5 1. ]
  """

  base: float = 500_000.0
  width: int = 4
  per_layer = True

  def init(self, key, dims):
    R, keys = self.pairs(dims.K), jax.random.split(key, 3)
    return {
      "step_HKR": fan_in_uniform(keys[0], (dims.H, dims.K, R), dims.K),
      "mix_HRN": fan_in_uniform(keys[1], (dims.H, R, self.width), self.width),
      "gate_DH": fan_in_uniform(keys[2], (dims.D, dims.H), dims.D),
      "gate_shift_H": jnp.zeros(dims.H),
    }

  def token_data(self, params, x_BLD, q_BLHK):
    step_BLHR = jnp.einsum("BLHK,HKR->BLHR", direction(q_BLHK), params["step_HKR"])
    logit_BLH = einsum("BLD,DH->BLH", direction(x_BLD), params["gate_DH"])
    return {
      "step_BLHR": step_BLHR,
      "gate_BLH": jax.nn.sigmoid(logit_BLH + params["gate_shift_H"]),
    }

  def accumulate(self, params, data, at):
    near = neighbours(at, self.width)
    step_BLHR = mix(data["step_BLHR"], params["mix_HRN"], near)
    step_BLHR *= data["gate_BLH"][..., None]
    # Only differences within a text count, so sums may run on through other texts.
    frequency_R = self.frequencies(params, step_BLHR.shape[-1])
    steps_BLHR = step_BLHR * jnp.asarray(frequency_R, jnp.float32)
    return {"angle_BLHR": turns(*running(of_tokens(steps_BLHR, at)))}

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    def turned(x, at):
      return self.turn(x, at.data["angle_BLHR"])

    return turned(q_BLHK, q_at), turned(k_BMHK, k_at)


def direction(x):
  """Returns vectors along the last axis with a length of one, in float32."""
  x = x.astype(jnp.float32)
  return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
