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
from transformer_jax.matmul import project_by
from transformer_jax.normalization import rms_norm


@dataclasses.dataclass(frozen=True)
class DeltaRule(Mixer):
  """Base class of mixers that write what is new of each value.

      S <- a_t (S - b_t k_t (k_t^T S)) + b_t k_t v_t^T,   o_t = S^T q_t / sqrt(K)

  Queries, keys and values pass a short convolution and SiLU, queries and keys then have
  length 1. A subclass may have a decay a_t and a gate of the outputs.

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

  def sized(self, dims):
    own = own_sizes(self, dims)
    # Not `key_heads`, which names axes, too.
    return dataclasses.replace(self, heads=own.H, key_width=own.K, value_width=own.E)

  @property
  def reads(self) -> tuple[str, ...]:
    """Names of the matrices whose products are convolved."""
    return "query", "key", "value"

  def decay(self, params, x_BLD):
    """Returns the logarithm of the decay, [B, L, H, 1] or [B, L, H, K]; None: none."""
    return None

  def gate(self, params, x_BLD):
    """Returns factors on the outputs, gate_BLHE; None: none."""
    return None

  def weights(self, dims):
    own, G = own_sizes(self, dims), "G" if self.key_heads else "H"
    return {
      f"query_D{G}K": ((own.D, own.G, own.K), 1),
      f"key_D{G}K": ((own.D, own.G, own.K), 1),
      "value_DHE": ((own.D, own.H, own.E), 1),
      "strength_DH": ((own.D, own.H), 1),
      "out_HED": ((own.H, own.E, own.D), 2),
    }

  def init(self, key, dims):
    shapes = self.weights(dims)
    read = {name: _matrix(name, shapes) for name in self.reads}
    taps = {f"{n}_mix_{own[-2:]}N": shapes[own][0][1:] for n, own in read.items()}
    gain_E = jnp.ones(own_sizes(self, dims).E)
    return {"norm_gain_E": gain_E} | first_taps(key, taps, self.convolution)

  def inputs(self, params, x_BLD):
    return {
      name: project_by(x_BLD, params, _matrix(name, params)) for name in self.reads
    }

  def taps(self, params):
    mixes = {name.partition("_mix_")[0]: name for name in params if "_mix_" in name}
    return {name: params[own] for name, own in mixes.items()}

  def tokens(self, params, x_BLD, inputs, at):
    return self.update(params, x_BLD, inputs)

  def update(self, params, x_BLD, inputs, n=""):
    """Returns one update for each token: that of the key, value and strength named n.

    n   end of their names, as in "key_1"; "" where there is one
    """
    wide = (inputs[x].astype(jnp.float32) for x in ("query", f"key{n}", f"value{n}"))
    q_BLGK, k_BLGK, v_BLHE = map(jax.nn.silu, wide)
    serves = v_BLHE.shape[2] // k_BLGK.shape[2]
    q_BLHK, k_BLHK = (jnp.repeat(unit(x), serves, axis=2) for x in (q_BLGK, k_BLGK))
    erased, written = self.strengths(params, x_BLD, n)
    decay = self.decay(params, x_BLD)
    return StateUpdates(
      q_BLHK * q_BLHK.shape[-1] ** -0.5,
      k_BLHK,
      written * v_BLHE,
      jnp.zeros_like(k_BLHK[..., :1]) if decay is None else decay,
      erased * k_BLHK,
    )

  def strengths(self, params, x_BLD, n=""):
    """Returns how much of a key's content is erased, and how much of a value written.

    Both float32: [B, L, H, 1 or K] and [B, L, H, 1 or E].
    """
    s_BLH = project_by(x_BLD, params, f"strength{n}_DH").astype(jnp.float32)
    strength_BLH1 = jax.nn.sigmoid(s_BLH)[..., None] * (1 + self.negative)
    return strength_BLH1, strength_BLH1

  def result(self, params, x_BLD, inputs, o_BLHE):
    o_BLHE = rms_norm(o_BLHE, params["norm_gain_E"], self.epsilon)
    gate_BLHE = self.gate(params, x_BLD)
    o_BLHE = o_BLHE if gate_BLHE is None else o_BLHE * gate_BLHE
    return project_by(o_BLHE, params, "out_HED", 2)


def _matrix(name: str, params: dict) -> str:
  """Returns the full name of a matrix of tokens: query_DHK, or query_DGK."""
  return next(own for own in params if own.startswith(f"{name}_D"))
