"""Gated DeltaNet. Yang et al., 2024. https://arxiv.org/abs/2412.06464"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.linear_recurrence import StateUpdates
from transformer_jax.attention.mixers.base import Mixer
from transformer_jax.attention.mixers.shared import (
  first_log_rate,
  first_step_shift,
  log_decay,
  unit,
)
from transformer_jax.attention.variants.base import attentions
from transformer_jax.axes import whole
from transformer_jax.initializers import fan_in_uniform
from transformer_jax.matmul import project
from transformer_jax.normalization import rms_norm
from transformer_jax.spec import SpecError

EPSILON = 1e-6


@attentions.register("gated_delta")
@dataclasses.dataclass(frozen=True)
class GatedDelta(Mixer):
  """Writes what is new of each value into a state that decays.

      S <- a_t (S - b_t k_t (k_t^T S)) + b_t k_t v_t^T,   o_t = S^T q_t / sqrt(K)

  Queries, keys and values pass a short convolution and SiLU, queries and keys then have
  length 1. The decay a_t = exp(-rate softplus(w x_t + c)) and the strength
  b_t = sigmoid(u x_t) are of each head. Outputs are normalized and gated.

  convolution   tokens that a convolution reads; 1: there is none
  negative      strengths up to 2, with which a state may change its sign

  >>> import jax
  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=8, H=2, F=16, L=8)
  >>> arch = tj.Architecture(dims, "none", attention="gated_delta", decoders=1)
  >>> model, token_BL = tj.Transformer(arch), jax.numpy.zeros((1, 4), int)
  >>> params = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  >>> params["decoder"]["layer_0"]["attention"]["log_rate_H"].shape
  (2,)
  """

  convolution: int = 4
  negative: bool = False

  def __post_init__(self):
    if not whole(self.convolution, 1):
      raise SpecError(
        f"{self.name}: convolution is {self.convolution!r}; write how many tokens it"
        " reads, as in gated_delta(convolution=4), or 1 for none"
      )

  def weights(self, dims):
    D, H, K, E = dims.D, dims.H, dims.K, dims.E or dims.K
    return {
      "query_DHK": ((D, H, K), 1),
      "key_DHK": ((D, H, K), 1),
      "value_DHE": ((D, H, E), 1),
      "gate_DHE": ((D, H, E), 1),
      "decay_DH": ((D, H), 1),
      "strength_DH": ((D, H), 1),
      "out_HED": ((H, E, D), 2),
    }

  def init(self, key, dims):
    H, K, E, N = dims.H, dims.K, dims.E or dims.K, self.convolution
    keys = jax.random.split(key, 5)
    taps = {"query_mix_HKN": K, "key_mix_HKN": K, "value_mix_HEN": E}
    if N == 1:
      taps = {}
    return {
      "log_rate_H": first_log_rate(keys[0], (H,)),
      "step_shift_H": first_step_shift(keys[1], (H,)),
      "norm_gain_E": jnp.ones(E),
    } | {
      name: fan_in_uniform(own, (H, width, N), N)
      for own, (name, width) in zip(keys[2:], taps.items(), strict=False)
    }

  def inputs(self, params, x_BLD):
    names = {"query": "query_DHK", "key": "key_DHK", "value": "value_DHE"}
    return {name: project(x_BLD, params[own], 1) for name, own in names.items()}

  def taps(self, params):
    names = {"query": "query_mix_HKN", "key": "key_mix_HKN", "value": "value_mix_HEN"}
    return {name: params[own] for name, own in names.items() if own in params}

  def tokens(self, params, x_BLD, inputs):
    names = "query", "key", "value"
    wide = (inputs[name].astype(jnp.float32) for name in names)
    q_BLHK, k_BLHK, v_BLHE = map(jax.nn.silu, wide)
    q_BLHK, k_BLHK = unit(q_BLHK) * q_BLHK.shape[-1] ** -0.5, unit(k_BLHK)
    step_BLH = project(x_BLD, params["decay_DH"], 1)
    strength_BLH = project(x_BLD, params["strength_DH"], 1).astype(jnp.float32)
    strength_BLH1 = jax.nn.sigmoid(strength_BLH)[..., None] * (1 + self.negative)
    return StateUpdates(
      q_BLHK,
      k_BLHK,
      strength_BLH1 * v_BLHE,
      log_decay(params["log_rate_H"], step_BLH, params["step_shift_H"])[..., None],
      strength_BLH1 * k_BLHK,
    )

  def result(self, params, x_BLD, o_BLHE):
    o_BLHE = rms_norm(o_BLHE, params["norm_gain_E"], EPSILON)
    gate_BLHE = jax.nn.silu(project(x_BLD, params["gate_DHE"], 1))
    return project(o_BLHE * gate_BLHE, params["out_HED"], 2)
