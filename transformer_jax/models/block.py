"""One layer of a Transformer: attention, cross-attention and feed-forward."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn

from transformer_jax.attention import Mixer, Variant
from transformer_jax.models.architecture import Architecture
from transformer_jax.models.attention_layer import Attention
from transformer_jax.models.canon import ATTENTION, FEEDFORWARD, LayerConvolutions
from transformer_jax.models.compatibility import form
from transformer_jax.models.feedforward import FeedForward
from transformer_jax.models.feedforward_kinds import FeedForwardKind
from transformer_jax.models.mixing import Mixing
from transformer_jax.models.parameters import (
  Dropout,
  NormLayer,
  Parameters,
)
from transformer_jax.models.residual import Placement, ResidualConnection
from transformer_jax.models.residual.base import EMBEDDING
from transformer_jax.positions import PositionalEncoding


class Block(nn.Module):
  """Layer: self-attention, cross-attention to a memory, if any, and feed-forward.

  Without hidden units (F = 0) there is no feed-forward part, as in Mamba-2.

  >>> import jax
  >>> from transformer_jax.attention.carry import Carry
  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.positions import coords
  >>> arch = Architecture(Dims(V=5, D=8, H=2, F=16, L=8), "rope", decoders=1)
  >>> layer = Block(arch, arch.position, arch.attention, arch.norm_placement)
  >>> before = jax.numpy.ones((1, 3, 8)), Carry()
  >>> args = before, coords.consecutive(1, 3), None, None, None
  >>> list(jax.eval_shape(layer.init, jax.random.key(0), *args)["params"])
  ['attention', 'attention_norm', 'feedforward', 'feedforward_norm']
  """

  arch: Architecture
  position: PositionalEncoding
  variant: Variant
  norm_placement: Placement
  kind: FeedForwardKind = FeedForwardKind()

  @nn.compact
  def __call__(self, before, at, shared, memory, cache):
    """Returns ((stream, carry), cache) after this layer.

    before   the residual stream, x_BLD or as its placement has it; and what earlier
             layers handed on

    Other arguments are those of `Attention`.
    """
    stream, carry = before
    cache_after = None
    dropout = Dropout(self.arch.dropout, self.arch.part)
    along = LayerConvolutions(self.arch.convolution, at, cache)
    cache = along.attention_cache

    def self_attention(x_BLD):
      nonlocal cache_after, carry
      x_BLD = along(ATTENTION, "attention", x_BLD)
      if isinstance(self.variant, Mixer):
        mixing = Mixing(self.arch, self.variant, name="attention")
        update_BLD, cache_after = mixing(x_BLD, at, cache)
      else:
        layer = Attention(self.arch, self.position, self.variant, name="attention")
        update_BLD, cache_after, carry = layer(
          x_BLD, at, shared, cache=cache, carry=carry
        )
      return dropout(update_BLD)

    def cross_attention(x_BLD):
      position, variant = form(self.position, "cross"), form(self.variant, "cross")
      layer = Attention(self.arch, position, variant, name="cross")
      update_BLD, *_ = layer(x_BLD, at, memory=memory)
      return dropout(update_BLD)

    def feedforward(x_BLD):
      x_BLD = along(FEEDFORWARD, "feedforward", x_BLD)
      layer = FeedForward(self.arch, self.kind, name="feedforward")
      return dropout(layer(x_BLD, along, at))

    def embedding(x_BLD):
      kind = self.arch.embedding
      params = Parameters(kind.layer_init, self.arch.dims, name=EMBEDDING)()
      activation = self.arch.activation
      return dropout(kind.in_layer(params, x_BLD, carry.arrays, activation))

    sublayers = {"attention": self_attention}
    if memory is not None:
      sublayers["cross"] = cross_attention
    if self.arch.dims.F or self.kind.experts:
      sublayers["feedforward"] = feedforward
    if self.arch.embedding.in_layers:
      sublayers[EMBEDDING] = embedding
    norms = LayerNorms(self.arch, self.norm_placement, at, [*sublayers])
    stream = self.norm_placement(norms, stream, sublayers)
    return (stream, carry), along.cache(cache_after)


@dataclasses.dataclass(frozen=True)
class LayerNorms:
  """The norms of a layer and the parameters of its residual connections, by name.

  They are made where they are asked for: as modules of the layer that asks.

  arch        architecture
  placement   of this layer
  at          coordinates of the tokens
  sublayers   names of the layer's sublayers, in their order
  found       parameters of connections so far: a placement around another one may read
              those of a sublayer, too

  >>> LayerNorms(None, None, None, ["attention"]).sublayers
  ['attention']
  """

  arch: Architecture
  placement: Placement
  at: Any
  sublayers: list[str]
  found: dict[str, Any] = dataclasses.field(default_factory=dict)

  def __call__(self, name):
    layer = NormLayer(self.arch.norm, name=f"{name}_norm")
    return functools.partial(layer, at=self.at)

  def connection(self, name):
    if name not in self.found:
      one = ResidualConnection(self.placement, self.sublayers.index(name))
      module = Parameters(one.init, self.arch.dims, name=f"{name}_residual")
      self.found[name] = module()
    return self.found[name]
