"""Log-linear attention. Guo et al., 2025. https://arxiv.org/abs/2506.04761"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.axes import whole
from transformer_jax.matmul import einsum
from transformer_jax.positions import Coords
from transformer_jax.positions.shared.sums import add_exactly, of_tokens
from transformer_jax.spec import SpecError

SUMS = "kept_BLH", "kept_low_BLH"


@attentions.register("log_linear")
@dataclasses.dataclass(frozen=True)
class LogLinear(Variant):
  """Linear attention with a decay, and with a factor for each level of distance.

      w_ij = q_i . k_j / sqrt(K) times the decays of tokens j + 1 to i
             times softplus(L_n W_n x_i), n the level of j

  A query's past is cut as in a Fenwick tree: level 0 is its token, and level n a block
  of 2^(n - 1) tokens, the larger the further away. So a state of each level would be
  enough, their number the logarithm of the length. This is the definition, which
  computes all weights, and no faster form. Decays are sigmoids of W x + b.

  levels   that have a factor of their own, the last one for all beyond; 0: those of a
           training sequence

  >>> import jax
  >>> import numpy as np
  >>> from transformer_jax.attention.variants.log_linear import level
  >>> print(jax.jit(level)(np.arange(5)[:, None], np.arange(5))[-1], "of the fifth")
  [3 3 3 3 0] of the fifth
  """

  levels: int = 0
  signed = True

  def __post_init__(self):
    if not whole(self.levels, 0):
      raise SpecError(
        f"log_linear: levels is {self.levels!r}; write a whole number, or 0 for those"
        " of a training sequence"
      )

  def weights(self, dims):
    N = self.levels or (dims.L - 1).bit_length() + 1
    return {
      "decay_DH": ((dims.D, dims.H), 1),
      "level_DHN": ((dims.D, dims.H, N), 1),
    }

  def init(self, key, dims):
    N = self.levels or (dims.L - 1).bit_length() + 1
    tokens_H = jnp.geomspace(2.0, max(dims.L, 2), dims.H)  # that heads remember
    return {
      "decay_shift_H": -jnp.log(jnp.expm1(1 / tokens_H)),
      "level_scale_HN": jnp.ones((dims.H, N)),
    }

  def token_data(self, params, x_BLD, q_BLHK):
    x_BLD = x_BLD.astype(jnp.float32)
    logit_BLH = einsum("BLD,DH->BLH", x_BLD, params["decay_DH"])
    factor_BLHN = einsum("BLD,DHN->BLHN", x_BLD, params["level_DHN"])
    return {
      "decay_BLH": jax.nn.log_sigmoid(logit_BLH + params["decay_shift_H"]),
      "level_BLHN": jax.nn.softplus(params["level_scale_HN"] * factor_BLHN),
    }

  def accumulate(self, params, data, at):
    sums = sums_of_text(of_tokens(data["decay_BLH"], at), at)
    return dict(zip(SUMS, sums, strict=True)) | {"level_BLHN": data["level_BLHN"]}

  def weigh_at(self, params, s_BHLM, mask_B1LM, q_at, k_at):
    def between(name):
      late_BHL, early_BHM = (jnp.moveaxis(at.data[name], 2, 1) for at in (q_at, k_at))
      return late_BHL[..., None] - early_BHM[..., None, :]

    kept_BHLM = jnp.where(mask_B1LM, between(SUMS[0]) + between(SUMS[1]), 0.0)
    factor_BHLN = jnp.moveaxis(q_at.data["level_BLHN"], 2, 1)
    level_BLM = level(q_at.order_BL[:, :, None], k_at.order_BL[:, None])
    level_BLM = jnp.minimum(level_BLM, factor_BHLN.shape[-1] - 1)
    factor_BHLM = jnp.take_along_axis(factor_BHLN, level_BLM[:, None], axis=-1)
    return jnp.where(mask_B1LM, s_BHLM * jnp.exp(kept_BHLM) * factor_BHLM, 0.0)

  def bidirectional(self):
    raise SpecError(
      "log_linear cuts the past of a query into levels, and in bidirectional attention"
      " there are later keys too; use it in a decoder"
    )


def sums_of_text(x_BLH: jax.Array, at: Coords) -> tuple[jax.Array, jax.Array]:
  """Returns running sums that begin with each text, and their rounding errors.

  Nothing of other texts is in them, and with the errors they do not depend on where in
  a row the text stands.
  """
  begins_BL1 = (at.order_BL == 0)[..., None]

  def add(before, here):
    high, lost = add_exactly(before[0], here[0])
    low = before[1] + here[1] + lost
    alone = here[2]
    high, low = jnp.where(alone, here[0], high), jnp.where(alone, here[1], low)
    return high, low, before[2] | alone

  each = x_BLH, jnp.zeros_like(x_BLH), begins_BL1
  high_BLH, low_BLH, _ = jax.lax.associative_scan(add, each, axis=1)
  return high_BLH, low_BLH


def level(i: jax.Array, j: jax.Array) -> jax.Array:
  """Returns the level of token j for a query at i: the bits that they do not share."""
  differ = jnp.bitwise_xor(*jnp.broadcast_arrays(jnp.int32(i), jnp.int32(j)))
  return 32 - jax.lax.clz(differ)
