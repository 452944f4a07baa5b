"""Kimi Delta Attention. Zhang et al., 2025. https://arxiv.org/abs/2510.26692"""

import dataclasses

import jax

from transformer_jax.attention.mixers.delta_rule import DeltaRule
from transformer_jax.attention.mixers.shared import (
  check_choice,
  check_sizes,
  first_log_rate,
  first_step_shift,
  log_decay,
  own_sizes,
)
from transformer_jax.attention.variants.base import attentions
from transformer_jax.matmul import project_by

GATES = {"sigmoid": jax.nn.sigmoid, "silu": jax.nn.silu}


@attentions.register("kda")
@dataclasses.dataclass(frozen=True)
class KimiDelta(DeltaRule):
  """Delta rule on a state whose features decay each by itself.

      S <- Diag(a_t) S,   S <- S - b_t k_t (k_t^T S) + b_t k_t v_t^T
      o_t = S^T q_t / sqrt(K),   a_t = exp(-rate softplus(W_2 W_1 x_t + c))

  `rate` is of each head, the decay of each feature of a key. Outputs are normalized,
  then times sigmoid(U_2 U_1 x_t). Other arguments are those of `DeltaRule`.

  output_gate   sigmoid, or silu
  rank          hidden units of the decay and of the gate; 0: the width of values

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=16, H=2, F=16, L=8)
  >>> shapes = tj.attentions.build("kda(rank=3)").weights(dims)
  >>> shapes["decay_in_DW"], shapes["decay_out_WHK"]
  (((16, 3), 1), ((3, 2, 8), 1))
  """

  epsilon: float = 1e-5
  output_gate: str = "sigmoid"
  rank: int = 0

  def __post_init__(self):
    super().__post_init__()
    check_sizes(self, "rank")
    check_choice(self, "output_gate", GATES)

  def weights(self, dims):
    own = own_sizes(self, dims)
    W = self.rank or own.E
    return super().weights(dims) | {
      "decay_in_DW": ((own.D, W), 1),
      "decay_out_WHK": ((W, own.H, own.K), 1),
      "gate_in_DW": ((own.D, W), 1),
      "gate_out_WHE": ((W, own.H, own.E), 1),
    }

  def init(self, key, dims):
    own, keys = own_sizes(self, dims), jax.random.split(key, 3)
    return super().init(keys[0], dims) | {
      "log_rate_H": first_log_rate(keys[1], (own.H,)),
      "step_shift_HK": first_step_shift(keys[2], (own.H, own.K)),
    }

  def decay(self, params, x_BLD):
    hidden_BLW = project_by(x_BLD, params, "decay_in_DW")
    step_BLHK = project_by(hidden_BLW, params, "decay_out_WHK")
    return log_decay(params["log_rate_H"][:, None], step_BLHK, params["step_shift_HK"])

  def gate(self, params, x_BLD):
    hidden_BLW = project_by(x_BLD, params, "gate_in_DW")
    return GATES[self.output_gate](project_by(hidden_BLW, params, "gate_out_WHE"))
