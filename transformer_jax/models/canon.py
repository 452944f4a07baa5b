"""Convolutions along the text at places of a layer. Allen-Zhu, 2025.

https://arxiv.org/abs/2512.17351
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.attention import Variant
from transformer_jax.attention.convolution import (
  Recent,
  check_options,
  convolve,
  finished,
  none_yet,
)
from transformer_jax.attention.variants.short_conv import ShortConv
from transformer_jax.attention.variants.variant_sum import Sum
from transformer_jax.initializers import fan_in_uniform
from transformer_jax.models.parameters import parameter
from transformer_jax.positions import Coords
from transformer_jax.spec import Registry, SpecError

ATTENTION, QKV, FEEDFORWARD, UNITS = PLACES = "ABCD"


@dataclasses.dataclass(frozen=True)
class Convolution:
  """Layers without convolutions, but for those of their attention or mixer.

  places   of a layer that have one: of `PLACES`

  >>> convolutions.build("none").places
  ''
  """

  places = ""

  @property
  def name(self) -> str:
    """Name in specs and messages."""
    return convolutions.name_of(self)

  def variant(self, variant: Variant) -> Variant:
    """Returns the attention of a layer, with what stands on its queries and keys."""
    return variant


convolutions = Registry("convolution", Convolution)
convolutions.register("none")(Convolution)


@convolutions.register("canon")
@dataclasses.dataclass(frozen=True)
class Canon(Convolution):
  """Adds to each token a weighted sum of it and the few before it: Canon layers.

      x_t <- x_t + sum over n < kernel of w_n x_(t-n),  a weight of each channel and tap

  Places are A: the input of attention, after its norm; B: queries, keys and values, as
  `short_conv` with residual; C: the input of the feed-forward part, after its norm; D:
  its hidden units, before the activation. B is of attention: mixers have convolutions
  of their own. Taps start as in PyTorch, as those of the authors' code do.

  places       those of a layer that have one
  kernel       tokens that a convolution reads, itself included
  activation   of the sums: none or silu
  residual     False: the sums replace what they are of
  bias         adds a learned vector before the activation

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=11, D=8, H=2, F=16, L=8)
  >>> arch = tj.Architecture(dims, "none", convolution="canon('AD')", decoders=1)
  >>> model, token_BL = tj.Transformer(arch), jnp.zeros((1, 4), int)
  >>> params = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  >>> layer = params["decoder"]["layer_0"]
  >>> layer["attention_canon"]["mix_DN"].shape, list(layer["feedforward"]["in_canon"])
  ((8, 4), ['mix_FN'])
  """

  places: str = PLACES
  kernel: int = 4
  activation: str = "none"
  residual: bool = True
  bias: bool = False

  def __post_init__(self):
    check_options(self)
    if not self.places or sorted({*self.places} & {*PLACES}) != sorted(self.places):
      raise SpecError(
        f"{self.name}: places is {self.places!r}; write which of {PLACES} have a"
        " convolution, as in canon('ABCD') or canon('AC')"
      )

  def variant(self, variant):
    if QKV not in self.places or variant.mixer or variant.kv_from:
      return variant
    own = ShortConv(self.kernel, self.activation, self.residual, self.bias)
    parts = variant.parts if isinstance(variant, Sum) else (variant,)
    return Sum((*parts, own))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConvolvedCache:
  """Cache of a layer whose input or hidden units are convolved.

  attention   cache of its attention or mixer
  recent      what each convolution keeps of the newest tokens, by name

  >>> ConvolvedCache(None, {}).recent
  {}
  """

  attention: Any
  recent: dict[str, Recent]


class Along(nn.Module):
  """A convolution along the text, with its parameters.

  kind   its options
  axis   letter of the features: D or F

  >>> from transformer_jax.positions import coords
  >>> layer, at = Along(convolutions.build("canon"), "F"), coords.consecutive(1, 3)
  >>> shapes = jax.eval_shape(layer.init, jax.random.key(0), jnp.ones((1, 3, 5)), at)
  >>> shapes["params"]["mix_FN"].shape
  (5, 4)
  """

  kind: Any
  axis: str

  @nn.compact
  def __call__(self, x, at: Coords, recent: Recent | None = None):
    """Returns (x, what to keep of it)."""
    shape = x.shape[-1], self.kind.kernel
    taps = parameter(self, f"mix_{self.axis}N", _start(shape))
    shift = None
    if self.kind.bias:
      shift = parameter(
        self, f"mix_shift_{self.axis}", lambda key: jnp.zeros(shape[:1])
      )
    sums, recent = convolve({"x": x}, {"x": taps}, at, recent)
    return finished(self.kind, x, sums["x"], shift), recent


def no_convolution(place: str, name: str, x: jax.Array) -> jax.Array:
  """Returns x: what `LayerConvolutions` does without any."""
  return x


class LayerConvolutions:
  """The convolutions of one layer, made where they are asked for, and their cache.

  kind    the model's convolutions
  at      coordinates of the tokens
  cache   of the layer, or None

  >>> LayerConvolutions(Convolution(), None, None)("A", "attention", 4.0)
  4.0
  """

  def __init__(self, kind: Convolution, at: Coords, cache: Any):
    self.kind, self.at = kind, at
    self.before = cache.recent if isinstance(cache, ConvolvedCache) else {}
    self.attention_cache = cache.attention if self.before else cache
    self.after: dict[str, Recent] = {}

  def __call__(self, place: str, name: str, x: jax.Array) -> jax.Array:
    """Returns x, convolved if its place is one of the model's.

    place   of the layer, a letter of `PLACES`
    name    of what is convolved
    """
    if place not in self.kind.places:
      return x
    layer = Along(self.kind, "F" if place == UNITS else "D", name=f"{name}_canon")
    x, recent = layer(x, self.at, self.before.get(name))
    if recent is not None:
      self.after[name] = recent
    return x

  def cache(self, attention: Any) -> Any:
    """Returns the cache of the layer after these tokens, from that of its attention."""
    return ConvolvedCache(attention, self.after) if self.after else attention


def empty_convolutions(arch: Any, B: int, attention: Any) -> Any:
  """Returns the empty cache of a layer, from that of its attention.

  arch   architecture of its stack
  B      batch size
  """
  kind, D, F = arch.convolution, arch.dims.D, arch.dims.F
  widths = {
    ATTENTION: {"attention": D},
    FEEDFORWARD: {"feedforward": D},
    UNITS: {"in": F, "gate": F} if arch.activation.gated else {"in": F},
  }
  kept = {}
  for place in {*kind.places} & {*widths}:
    for name, width in widths[place].items():
      x = {"x": jax.ShapeDtypeStruct((B, 1, width), arch.dtype)}
      taps = {"x": jax.ShapeDtypeStruct((width, kind.kernel), jnp.float32)}
      kept[name] = none_yet(x, taps, B)
  return ConvolvedCache(attention, kept) if kept else attention


@functools.lru_cache(maxsize=64)
def _start(shape: tuple[int, int]) -> Any:
  """Returns the initializer of taps [width, kernel]; jitted once, as it is traced."""
  return jax.jit(lambda key: fan_in_uniform(key, shape, shape[1]))
