"""Delta rule, which several mixers share. Yang et al., 2024.

https://arxiv.org/abs/2406.06484
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.linear_recurrence import StateUpdates
from transformer_jax.attention.mixers.base import Mixer
from transformer_jax.attention.mixers.shared import (
  check_convolution,
  check_sizes,
  first_taps,
  own_sizes,
  unit,
)
from transformer_jax.matmul import project
from transformer_jax.normalization import rms_norm

READ = "query", "key", "value"


@dataclasses.dataclass(frozen=True)
class DeltaRule(Mixer):
  """Base class of mixers that write what is new of each value.

      S <- a_t (S - b_t k_t (k_t^T S)) + b_t k_t v_t^T,   o_t = S^T q_t / sqrt(K)

  Queries, keys and values pass a short convolution and SiLU, queries and keys then have
  length 1. A subclass has the decay a_t and the gate of the outputs.

  convolution   tokens that a convolution reads; 1: there is none
  negative      strengths b_t up to 2, with which a state may change its sign
  heads         heads of values; 0: those of the model
  key_heads     heads of queries and keys, each of which serves heads of values that
                follow each other; 0: as many
  key_width     width of queries and keys; 0: that of the model's heads
  value_width   width of values; 0: that of the model's values
  epsilon       of the norm of outputs

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=8, H=2, F=16, L=8)
  >>> mixer = tj.attentions.build("gated_delta(heads=4, key_heads=2, value_width=6)")
  >>> isinstance(mixer, DeltaRule), mixer.weights(dims)["value_DHE"]
  (True, ((8, 4, 6), 1))
  """

  convolution: int = 4
  negative: bool = False
  heads: int = 0
  key_heads: int = 0
  key_width: int = 0
  value_width: int = 0
  epsilon: float = 1e-6

  def __post_init__(self):
    check_convolution(self)
    check_sizes(self, "heads", "key_heads", "key_width", "value_width")

  def sizes(self, dims):
    """Returns the sizes of this mixer; G are heads of queries and keys."""
    return own_sizes(self, dims)

  def decay(self, params, x_BLD):
    """Returns the logarithm of the decay, [B, L, H, 1] or [B, L, H, K]."""
    return jnp.zeros((*x_BLD.shape[:2], params["strength_DH"].shape[1], 1))

  def gate(self, params, x_BLD):
    """Returns factors on the outputs, gate_BLHE."""
    return 1.0

  def weights(self, dims):
    own, G = self.sizes(dims), "G" if self.key_heads else "H"
    return {
      f"query_D{G}K": ((own.D, own.G, own.K), 1),
      f"key_D{G}K": ((own.D, own.G, own.K), 1),
      "value_DHE": ((own.D, own.H, own.E), 1),
      "strength_DH": ((own.D, own.H), 1),
      "out_HED": ((own.H, own.E, own.D), 2),
    }

  def init(self, key, dims):
    own, shapes = self.sizes(dims), self.weights(dims)
    read = {name: shapes[_of(name, shapes)] for name in READ}
    taps = {
      f"{name}_mix_{_of(name, shapes)[-2:]}N": shape[1:]
      for name, (shape, _) in read.items()
    }
    return {"norm_gain_E": jnp.ones(own.E)} | first_taps(key, taps, self.convolution)

  def inputs(self, params, x_BLD):
    return {name: project(x_BLD, params[_of(name, params)], 1) for name in READ}

  def taps(self, params):
    mixes = {name: name.partition("_mix_")[0] for name in params if "_mix_" in name}
    return {name: params[own] for own, name in mixes.items()}

  def tokens(self, params, x_BLD, inputs, at):
    wide = (inputs[name].astype(jnp.float32) for name in READ)
    q_BLGK, k_BLGK, v_BLHE = map(jax.nn.silu, wide)
    serves = v_BLHE.shape[2] // k_BLGK.shape[2]
    q_BLHK, k_BLHK = (jnp.repeat(unit(x), serves, axis=2) for x in (q_BLGK, k_BLGK))
    strength_BLH1 = self.strength(params, x_BLD)[..., None]
    return StateUpdates(
      q_BLHK * q_BLHK.shape[-1] ** -0.5,
      k_BLHK,
      strength_BLH1 * v_BLHE,
      self.decay(params, x_BLD),
      strength_BLH1 * k_BLHK,
    )

  def strength(self, params, x_BLD):
    """Returns how much of a key's content is replaced, float32 strength_BLH."""
    s_BLH = project(x_BLD, params["strength_DH"], 1).astype(jnp.float32)
    return jax.nn.sigmoid(s_BLH) * (1 + self.negative)

  def result(self, params, x_BLD, inputs, o_BLHE):
    o_BLHE = rms_norm(o_BLHE, params["norm_gain_E"], self.epsilon)
    return project(o_BLHE * self.gate(params, x_BLD), params["out_HED"], 2)


def _of(name: str, params: dict) -> str:
  """Returns the name of the matrix of queries, keys or values."""
  return next(own for own in params if own.startswith(f"{name}_D"))
