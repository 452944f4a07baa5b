"""Gated DeltaNet-2. Hatamizadeh et al., 2026. https://arxiv.org/abs/2605.22791"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.mixers.kda import KimiDelta
from transformer_jax.attention.mixers.shared import own_sizes
from transformer_jax.attention.variants.base import attentions
from transformer_jax.matmul import project_by


@attentions.register("gated_delta2")
@dataclasses.dataclass(frozen=True)
class GatedDelta2(KimiDelta):
  """Erases features of a key and writes features of a value each by its own gate.

      S <- Diag(a_t) S,   S <- S - k_t ((b_t k_t)^T S) + k_t (w_t v_t)^T

  with the decay a_t of `kda`, b_t = sigmoid(W x_t) of the features of keys and
  w_t = sigmoid(U x_t) of those of values; `negative` doubles b_t alone. With b_t = w_t
  one number it is `kda`. Arguments are those of `kda`.

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=16, H=2, F=16, L=8, E=6)
  >>> shapes = tj.attentions.build("gated_delta2").weights(dims)
  >>> shapes["erase_DHK"], shapes["write_DHE"]
  (((16, 2, 8), 1), ((16, 2, 6), 1))
  """

  def weights(self, dims):
    own, shapes = own_sizes(self, dims), super().weights(dims)
    del shapes["strength_DH"]
    return shapes | {
      "erase_DHK": ((own.D, own.H, own.K), 1),
      "write_DHE": ((own.D, own.H, own.E), 1),
    }

  def strengths(self, params, x_BLD, n=""):
    names = "erase_DHK", "write_DHE"
    erase_BLHK, write_BLHE = (
      jax.nn.sigmoid(project_by(x_BLD, params, name).astype(jnp.float32))
      for name in names
    )
    return erase_BLHK * (1 + self.negative), write_BLHE
