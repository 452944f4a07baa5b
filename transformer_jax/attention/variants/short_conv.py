"""Short convolutions of queries, keys and values. Allen-Zhu, 2025.

https://arxiv.org/abs/2512.17351
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.convolution import check_options, finished
from transformer_jax.attention.projections import Arrays
from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.forwarding import computed
from transformer_jax.initializers import fan_in_uniform
from transformer_jax.spec import SpecError

NAMES = {"q": "query", "k": "key", "v": "value"}


@attentions.register("short_conv")
@dataclasses.dataclass(frozen=True)
class ShortConv(Variant):
  """Mixes queries, keys and values of each token with those of the few before it.

      k_t <- f(sum over n < kernel of w_n k_(t-n) + b)

  A weight of each channel and tap, in the order of each text; before norms and
  rotations. It is added to how queries and keys are made: `gqa(2) + short_conv(4)`.
  Such convolutions stand in linear attention, as in
  https://arxiv.org/abs/2006.04152 and https://arxiv.org/abs/2412.06464; with
  `residual=True` they are the paper's Canon layers B.

  kernel       tokens that the convolution reads, itself included
  activation   of its result: none or silu
  residual     the result is added to what was convolved
  bias         adds a learned vector before the activation
  of           which are convolved: "q", "k", "v", or several, as "kv"

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8, E=8, G=2)
  >>> conv = tj.attentions.build("short_conv(4, of='kv')")
  >>> {name: x.shape for name, x in conv.init(jax.random.key(0), dims).items()}
  {'key_mix_GKN': (2, 8, 4), 'value_mix_GEN': (2, 8, 4)}
  """

  kernel: int = 4
  activation: str = "none"
  residual: bool = False
  bias: bool = False
  of: str = "qkv"

  def __post_init__(self):
    check_options(self)
    if not self.of or {*self.of} - {*NAMES} or len({*self.of}) < len(self.of):
      raise SpecError(
        f"{self.name}: of is {self.of!r}; write which are convolved, as 'qkv' or 'k'"
      )

  @computed
  def convolves(self) -> tuple[str, ...]:
    return tuple(NAMES[letter] for letter in NAMES if letter in self.of)

  def init(self, key, dims):
    G = dims.G or dims.H
    features = {
      "query": ((dims.H, dims.K), "HK"),
      "key": ((G, dims.K), "GK"),
      "value": ((G, dims.E), "GE"),
    }
    keys = dict(zip(features, jax.random.split(key, 3), strict=True))
    made = {}
    for name in self.convolves:
      shape, axes = features[name]
      taps = fan_in_uniform(keys[name], (*shape, self.kernel), self.kernel)
      made[f"{name}_mix_{axes}N"] = taps
      if self.bias:
        made[f"{name}_mix_shift_{axes}"] = jnp.zeros(shape)
    return made

  def taps(self, params):
    return {name: _found(params, f"{name}_mix_", ends="N") for name in self.convolves}

  def convolved(self, params, name, x_BLHK, mixed_BLHK):
    shift = _found(params, f"{name}_mix_shift_") if self.bias else None
    return finished(self, x_BLHK, mixed_BLHK, shift)

  def bidirectional(self):
    raise ValueError(
      f"{self.name} reads the tokens before each token, and has no form that looks both"
      " ways; use it in a decoder"
    )

  def cross(self):
    raise ValueError(
      f"{self.name} runs along one text, and attention between two has no such order;"
      " use it in a decoder without an encoder"
    )


def _found(params: Arrays, start: str, ends: str = "") -> jax.Array:
  """Returns the parameter whose name has this start and end."""
  return next(x for n, x in params.items() if n.startswith(start) and n.endswith(ends))
