"""Mamba-2. Dao and Gu, 2024. https://arxiv.org/abs/2405.21060"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from transformer_jax.attention.linear_recurrence import StateUpdates
from transformer_jax.attention.mixers.base import Mixer
from transformer_jax.attention.mixers.shared import (
  check_convolution,
  check_sizes,
  first_log_rate,
  first_step_shift,
  first_taps,
  projected,
)
from transformer_jax.attention.variants.base import attentions
from transformer_jax.normalization import rms_norm
from transformer_jax.spec import SpecError

# C, B and X of the paper, which are convolved.
CONVOLVED = {"read": "read_DGK", "write": "write_DGK", "value": "value_DHE"}


@attentions.register("mamba2")
@dataclasses.dataclass(frozen=True)
class Mamba2(Mixer):
  """A state space with one decay a head, and steps of time that tokens choose.

      S <- exp(-rate d_t) S + B_t (d_t X_t)^T,   o_t = S^T C_t + D X_t
      d_t = softplus(w x_t + c)

  X, B and C pass a short convolution with a shift, and SiLU; B and C of a group serve
  heads that follow each other. Outputs are gated by silu(z x_t) and normalized.

  heads         0: twice those of the model
  width         of a head's values; 0: that of the model's heads
  state         features of B and C, for each of which the state has a head's values;
                0: likewise
  groups        heads of B and C
  convolution   tokens that a convolution reads; 1: there is none
  shift         convolutions have a learned shift
  bias          projections have a learned shift
  norm_groups   parts of all heads' outputs which are normalized each by itself; 0: as
                many as groups
  gate_first    the gate comes before the norm; False: after it
  least_step    bound of d_t from below
  largest_step  bound of d_t from above; 0: there is none
  epsilon       of the norm

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=16, H=2, F=16, L=8)
  >>> shapes = tj.attentions.build("mamba2(state=5)").weights(dims)
  >>> shapes["write_DGK"], shapes["value_DHE"]
  (((16, 1, 5), 1), ((16, 4, 8), 1))
  """

  heads: int = 0
  width: int = 0
  state: int = 0
  groups: int = 1
  convolution: int = 4
  shift: bool = True
  bias: bool = False
  norm_groups: int = 0
  gate_first: bool = True
  least_step: float = 0.0
  largest_step: float = 0.0
  epsilon: float = 1e-5

  def __post_init__(self):
    check_convolution(self)
    check_sizes(self, "heads", "width", "state", "norm_groups")
    check_sizes(self, "groups", least=1)
    if not 0 <= self.least_step < (self.largest_step or math.inf):
      raise SpecError(
        f"{self.name}: steps from {self.least_step} to {self.largest_step} are none;"
        " write least_step below largest_step, and 0 or above"
      )

  def sizes(self, dims):
    """Returns the sizes of this mixer; K is that of B and C."""
    H, K, E = self.heads or 2 * dims.H, self.state or dims.K, self.width or dims.K
    for name in "groups", "norm_groups":
      if (parts := getattr(self, name)) and H % parts:
        raise ValueError(f"{parts} {name} do not divide {H} heads; change one of them")
    return dataclasses.replace(dims, H=H, G=self.groups, K=K, E=E)

  def sized(self, dims):
    own = self.sizes(dims)
    return dataclasses.replace(self, heads=own.H, state=own.K, width=own.E)

  def weights(self, dims):
    own = self.sizes(dims)
    shapes = {
      "gate_DHE": ((own.D, own.H, own.E), 1),
      "value_DHE": ((own.D, own.H, own.E), 1),
      "write_DGK": ((own.D, own.G, own.K), 1),
      "read_DGK": ((own.D, own.G, own.K), 1),
      "step_DH": ((own.D, own.H), 1),
      "out_HED": ((own.H, own.E, own.D), 2),
    }
    shifts = {
      _named(name, "_in_shift"): (shape[1:], 0)
      for name, (shape, _) in shapes.items()
      if name != "out_HED"
    } | {"out_shift_D": ((own.D,), 0)}
    mixes = {
      _named(name, "_mix_shift"): (shapes[name][0][1:], 0)
      for name in CONVOLVED.values()
    }
    return shapes | (shifts if self.bias else {}) | (mixes if self.shift else {})

  def init(self, key, dims):
    own, shapes, keys = self.sizes(dims), self.weights(dims), jax.random.split(key, 3)
    taps = {f"{_named(x, '_mix')}N": shapes[x][0][1:] for x in CONVOLVED.values()}
    return first_taps(keys[0], taps, self.convolution) | {
      "log_rate_H": first_log_rate(keys[1], (own.H,)),
      "step_shift_H": first_step_shift(keys[2], (own.H,)),
      "skip_H": jnp.ones(own.H),
      "norm_gain_HE": jnp.ones((own.H, own.E)),
    }

  def inputs(self, params, x_BLD):
    return {name: _inward(params, own, x_BLD) for name, own in CONVOLVED.items()}

  def taps(self, params):
    mixes = {name: f"{_named(own, '_mix')}N" for name, own in CONVOLVED.items()}
    return {name: params[own] for name, own in mixes.items() if own in params}

  def activated(self, params, inputs, name):
    """Returns C, B or X of the paper: shifted, and after SiLU."""
    x = inputs[name].astype(jnp.float32)
    return jax.nn.silu(x + params.get(_named(CONVOLVED[name], "_mix_shift"), 0.0))

  def tokens(self, params, x_BLD, inputs, at):
    c_BLGK, b_BLGK, x_BLHE = (self.activated(params, inputs, n) for n in CONVOLVED)
    serves = x_BLHE.shape[2] // b_BLGK.shape[2]
    step_BLH = _inward(params, "step_DH", x_BLD).astype(jnp.float32)
    step_BLH = jax.nn.softplus(step_BLH + params["step_shift_H"])
    step_BLH = jnp.clip(step_BLH, self.least_step, self.largest_step or None)
    decay_BLH = -jnp.exp(params["log_rate_H"]) * step_BLH
    return StateUpdates(
      query_BLHK=jnp.repeat(c_BLGK, serves, axis=2),
      key_BLHK=jnp.repeat(b_BLGK, serves, axis=2),
      value_BLHE=step_BLH[..., None] * x_BLHE,
      decay=decay_BLH[..., None],
    )

  def result(self, params, x_BLD, inputs, o_BLHE):
    x_BLHE = self.activated(params, inputs, "value").astype(o_BLHE.dtype)
    o_BLHE += params["skip_H"][:, None].astype(o_BLHE.dtype) * x_BLHE
    gate_BLHE = jax.nn.silu(_inward(params, "gate_DHE", x_BLD))
    if self.gate_first:
      o_BLHE = self.normalized(params, o_BLHE * gate_BLHE)
    else:
      o_BLHE = self.normalized(params, o_BLHE) * gate_BLHE
    return projected(params, "out_HED", "out_shift_D", o_BLHE, inputs=2)

  def normalized(self, params, o_BLHE):
    """Returns outputs whose mean square is one over the heads of each part."""
    B, L, H, E = o_BLHE.shape
    parts = self.norm_groups or self.groups
    grouped = o_BLHE.reshape(B, L, parts, H // parts, E)
    gain = params["norm_gain_HE"].reshape(parts, H // parts, E)
    return rms_norm(grouped, gain, self.epsilon, axis=(-2, -1)).reshape(o_BLHE.shape)


def _named(matrix: str, what: str) -> str:
  """Returns the name of a parameter of a matrix's outputs.

  >>> _named("read_DGK", "_mix")
  'read_mix_GK'
  """
  start, _, axes = matrix.rpartition("_")
  return f"{start}{what}_{axes[1:]}"


def _inward(params: dict, name: str, x_BLD: jax.Array) -> jax.Array:
  """Returns one of the projections that tokens enter by."""
  return projected(params, name, _named(name, "_in_shift"), x_BLD)
