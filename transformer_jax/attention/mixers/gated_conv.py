"""Gated short convolution. Amini et al., 2025. https://arxiv.org/abs/2511.23404"""

import dataclasses

import jax

from transformer_jax.attention.convolution import check_kernel
from transformer_jax.attention.mixers.base import Mixer
from transformer_jax.attention.mixers.shared import projected
from transformer_jax.attention.projections import Arrays
from transformer_jax.attention.variants.base import attentions
from transformer_jax.initializers import fan_in_uniform

INWARD = "write", "read", "value"  # B, C and v


@attentions.register("gated_conv")
@dataclasses.dataclass(frozen=True)
class GatedConv(Mixer):
  """Mixes each token with the few before it, between two gates of the token: LFM2.

      y_t = W (C_t * sum over n < kernel of w_n * B_(t-n) * v_(t-n))

  B, C and v are projections of the tokens, as wide as the model. There is no activation
  and no state: a cache keeps the newest products B * v. LFM2 has attention in every
  third or fourth layer.

  kernel   tokens that the convolution reads
  bias     adds learned vectors to the projections and the convolution

  >>> import jax
  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=8, H=2, F=16, L=8)
  >>> arch = tj.Architecture(dims, "none", attention="gated_conv", decoders=1)
  >>> model, token_BL = tj.Transformer(arch), jax.numpy.zeros((1, 4), int)
  >>> params = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  >>> params["decoder"]["layer_0"]["attention"]["mix_FN"].shape
  (8, 3)
  """

  kernel: int = 3
  bias: bool = False

  def __post_init__(self):
    check_kernel(self)

  def weights(self, dims):
    D = dims.D
    inward = {f"{name}_DF": ((D, D), 1) for name in INWARD}
    shifts = {f"{name}_shift_F": ((D,), 0) for name in (*INWARD, "mix")}
    shifts |= {"out_shift_D": ((D,), 0)}
    return inward | {"out_FD": ((D, D), 1)} | (shifts if self.bias else {})

  def init(self, key, dims):
    return {"mix_FN": fan_in_uniform(key, (dims.D, self.kernel), self.kernel)}

  def inputs(self, params, x_BLD):
    write_BLF, value_BLF = (_inward(params, n, x_BLD) for n in ("write", "value"))
    return {"value": write_BLF * value_BLF}

  def taps(self, params):
    return {"value": params["mix_FN"]}

  def recurrence(self, params, x_BLD, inputs, at, state=None, unroll=False):
    return inputs["value"] + params.get("mix_shift_F", 0.0), None

  def result(self, params, x_BLD, inputs, o_BLF):
    o_BLF = _inward(params, "read", x_BLD) * o_BLF
    return projected(params, "out_FD", "out_shift_D", o_BLF)


def _inward(params: Arrays, name: str, x_BLD: jax.Array) -> jax.Array:
  """Returns x_BLF, one of the projections that tokens enter by."""
  return projected(params, f"{name}_DF", f"{name}_shift_F", x_BLD)
