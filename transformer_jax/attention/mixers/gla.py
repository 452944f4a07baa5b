"""Gated linear attention. Yang et al., 2023. https://arxiv.org/abs/2312.06635"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.mixers.decaying import Decaying
from transformer_jax.attention.mixers.shared import own_sizes
from transformer_jax.attention.variants.base import attentions
from transformer_jax.axes import whole
from transformer_jax.matmul import project_by
from transformer_jax.spec import SpecError


@attentions.register("gla")
@dataclasses.dataclass(frozen=True)
class GatedLinear(Decaying):
  """Adds to a state whose features decay each by itself, as the token says.

      S <- Diag(a_t) S + k_t v_t^T,   o_t = S^T q_t / sqrt(K)
      a_t = sigmoid(W_2 W_1 x_t + c)^(1 / slowness)

  Outputs are normalized in each head and gated by silu(G x_t). Keys have half of the
  width of the model's heads. Other arguments are those of `Decaying`.

  rank       hidden units of the decay
  slowness   the larger, the slower the state decays

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=16, H=2, F=16, L=8)
  >>> shapes = tj.attentions.build("gla").weights(dims)
  >>> shapes["key_DHK"], shapes["value_DHE"], shapes["decay_in_DW"]
  (((16, 2, 4), 1), ((16, 2, 8), 1), ((16, 16), 1))
  """

  rank: int = 16
  slowness: float = 16.0

  def __post_init__(self):
    super().__post_init__()
    if not whole(self.rank, 1):
      raise SpecError(f"{self.name}: rank is {self.rank!r}; write gla(rank=16)")
    if self.slowness <= 0:
      raise SpecError(
        f"{self.name}: slowness is {self.slowness!r}; write a number above 0, as in"
        " gla(slowness=16)"
      )

  def sizes(self, dims):
    own = own_sizes(self, dims)
    return own if self.key_width else dataclasses.replace(own, K=max(1, own.K // 2))

  def weights(self, dims):
    own = self.sizes(dims)
    return super().weights(dims) | {
      "decay_in_DW": ((own.D, self.rank), 1),
      "decay_out_WHK": ((self.rank, own.H, own.K), 1),
      "decay_shift_HK": ((own.H, own.K), 0),
    }

  def decay(self, params, k_BLHK, x_BLD):
    hidden_BLW = project_by(x_BLD, params, "decay_in_DW")
    gate_BLHK = project_by(hidden_BLW, params, "decay_out_WHK").astype(jnp.float32)
    return jax.nn.log_sigmoid(gate_BLHK + params["decay_shift_HK"]) / self.slowness
