"""Gated DeltaNet. Yang et al., 2024. https://arxiv.org/abs/2412.06464"""

import dataclasses

import jax

from transformer_jax.attention.mixers.delta_rule import DeltaRule
from transformer_jax.attention.mixers.shared import (
  first_log_rate,
  first_step_shift,
  log_decay,
  own_sizes,
)
from transformer_jax.attention.variants.base import attentions
from transformer_jax.matmul import project_by


@attentions.register("gated_delta")
@dataclasses.dataclass(frozen=True)
class GatedDelta(DeltaRule):
  """Writes what is new of each value into a state that decays.

      S <- a_t (S - b_t k_t (k_t^T S)) + b_t k_t v_t^T,   o_t = S^T q_t / sqrt(K)

  The decay a_t = exp(-rate softplus(w x_t + c)) and the strength b_t = sigmoid(u x_t)
  are of each head. Outputs are normalized and gated. Arguments are those of
  `DeltaRule`.

  `gated_delta(heads=32, key_heads=16, key_width=128, value_width=128)` is Qwen3-Next's,
  `gated_delta(negative=True)` is OLMo Hybrid's.

  >>> import jax
  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=8, H=2, F=16, L=8)
  >>> arch = tj.Architecture(dims, "none", attention="gated_delta", decoders=1)
  >>> model, token_BL = tj.Transformer(arch), jax.numpy.zeros((1, 4), int)
  >>> params = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  >>> params["decoder"]["layer_0"]["attention"]["log_rate_H"].shape
  (2,)
  """

  def weights(self, dims):
    own = own_sizes(self, dims)
    return super().weights(dims) | {
      "gate_DHE": ((own.D, own.H, own.E), 1),
      "decay_DH": ((own.D, own.H), 1),
    }

  def init(self, key, dims):
    H, keys = own_sizes(self, dims).H, jax.random.split(key, 3)
    return super().init(keys[0], dims) | {
      "log_rate_H": first_log_rate(keys[1], (H,)),
      "step_shift_H": first_step_shift(keys[2], (H,)),
    }

  def decay(self, params, x_BLD):
    step_BLH = project_by(x_BLD, params, "decay_DH")
    return log_decay(params["log_rate_H"], step_BLH, params["step_shift_H"])[..., None]

  def gate(self, params, x_BLD):
    return jax.nn.silu(project_by(x_BLD, params, "gate_DHE"))
