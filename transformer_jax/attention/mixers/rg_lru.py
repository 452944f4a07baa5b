"""Real-gated linear recurrent unit. De et al., 2024. https://arxiv.org/abs/2402.19427"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.linear_recurrence import elementwise
from transformer_jax.attention.mixers.base import Mixer
from transformer_jax.attention.mixers.shared import (
  check_convolution,
  check_sizes,
  first_taps,
  projected,
)
from transformer_jax.attention.projections import Arrays, Weights
from transformer_jax.attention.variants.base import attentions

INWARD = "value", "gate"
GATES = "recurrence", "input"  # r and i
SHARPNESS = 8.0  # the paper's c
DECAYS = (0.9, 0.999)  # a^c in the first parameters
STEEPEST = 1000.0  # slope of the square root near zero, as in the authors' code


@attentions.register("rg_lru")
@dataclasses.dataclass(frozen=True)
class RGLRU(Mixer):
  """Adds to a state of each channel, which decays by a gate of the token: Griffin.

      h_t = a_t h_(t-1) + sqrt(1 - a_t^2) (i_t * x_t),   a_t = exp(-c r_t softplus(p))

  x_t is projected and passes a short convolution. The gates r_t and i_t are of each
  channel, sigmoids of x_t projected within blocks, one a head; c is 8. The first token
  of a text is added as it is. The output is gated by GELU of another projection.
  RecurrentGemma has attention in every third layer: `alternate(rg_lru, mqa + window(8),
  3)`.

  width         channels of the state; 0: as many as the model is wide
  convolution   tokens that the convolution reads; 1: there is none
  bias          adds learned vectors to the projections and the convolution

  >>> import jax
  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=8, H=2, F=16, L=8)
  >>> mixer = tj.attentions.build("rg_lru(width=12)")
  >>> mixer.cache(dims, B=3, dtype="float32").state.shape
  (3, 2, 6)
  """

  width: int = 0
  convolution: int = 4
  bias: bool = True

  def __post_init__(self):
    check_convolution(self)
    check_sizes(self, "width")

  def check(self, dims):
    if (width := self.width or dims.D) % dims.H:
      raise ValueError(
        f"{width} channels do not divide into a block for each of {dims.H} heads;"
        " change the width or the heads"
      )
    super().check(dims)

  def sized(self, dims):
    return dataclasses.replace(self, width=self.width or dims.D)

  def weights(self, dims):
    D, H, E = dims.D, dims.H, (self.width or dims.D) // dims.H
    shapes: Weights = {f"{name}_DHE": ((D, H, E), 1) for name in INWARD}
    shapes |= {"out_HED": ((H, E, D), 2)}
    shifted = (*GATES, *INWARD, "mix") if self.bias else GATES
    shapes |= {f"{name}_shift_HE": ((H, E), 0) for name in shifted}
    return shapes | ({"out_shift_D": ((D,), 0)} if self.bias else {})

  def init(self, key, dims):
    H, E = dims.H, (self.width or dims.D) // dims.H
    keys = jax.random.split(key, 4)
    blocks = {
      f"{name}_HKE": jax.random.normal(own, (H, E, E)) * E**-0.5
      for name, own in zip(GATES, keys, strict=False)
    }
    rate = {"rate_HE": _first_rate(keys[2], (H, E))}
    return blocks | rate | first_taps(keys[3], {"mix_HEN": (H, E)}, self.convolution)

  def inputs(self, params, x_BLD):
    return {"value": _inward(params, "value", x_BLD)}

  def taps(self, params):
    return {"value": params["mix_HEN"]} if "mix_HEN" in params else {}

  def recurrence(self, params, x_BLD, inputs, at, state=None, unroll=False):
    x_BLHE = inputs["value"].astype(jnp.float32) + params.get("mix_shift_HE", 0.0)
    recurrence_BLHE, input_BLHE = (_gate(params, name, x_BLHE) for name in GATES)
    decay_BLHE = -SHARPNESS * recurrence_BLHE * jax.nn.softplus(params["rate_HE"])
    factor_BLHE = root(-jnp.expm1(2 * decay_BLHE))
    real_BL11, first_BL11 = (
      x_BL[..., None, None] for x_BL in (at.real_BL, at.order_BL == 0)
    )
    factor_BLHE = jnp.where(first_BL11, 1.0, factor_BLHE)
    value_BLHE = jnp.where(real_BL11, factor_BLHE * input_BLHE * x_BLHE, 0.0)
    decay_BLHE = jnp.where(real_BL11, decay_BLHE, 0.0)
    return elementwise(jnp.where(first_BL11, -jnp.inf, decay_BLHE), value_BLHE, state)

  def result(self, params, x_BLD, inputs, o_BLHE):
    gate_BLHE = jax.nn.gelu(_inward(params, "gate", x_BLD), approximate=True)
    o_BLHE = o_BLHE * gate_BLHE
    return projected(params, "out_HED", "out_shift_D", o_BLHE, inputs=2)


def _inward(params: Arrays, name: str, x_BLD: jax.Array) -> jax.Array:
  """Returns x_BLHE, one of the projections that tokens enter by."""
  return projected(params, f"{name}_DHE", f"{name}_shift_HE", x_BLD)


def _gate(params: Arrays, name: str, x_BLHE: jax.Array) -> jax.Array:
  """Returns a gate of each channel, which reads its block."""
  gate_BLHE = jnp.einsum("BLHK,HKE->BLHE", x_BLHE, params[f"{name}_HKE"])
  return jax.nn.sigmoid(gate_BLHE + params[f"{name}_shift_HE"])


def _first_rate(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns p with which decays a^c are uniform, where the gate is open."""
  low, high = DECAYS
  decay = jax.random.uniform(key, shape, minval=low, maxval=high)
  return jnp.log(jnp.expm1(-jnp.log(decay) / SHARPNESS))  # softplus undone


@jax.custom_jvp
def root(x: jax.Array) -> jax.Array:
  """Returns the square root, whose slope is at most `STEEPEST`, also at 0."""
  return jnp.sqrt(x)


@root.defjvp
def _slope(primals, tangents):
  (x,), (d,) = primals, tangents
  return jnp.sqrt(x), d * jax.lax.rsqrt(jnp.maximum(4 * x, STEEPEST**-2))
