"""One layer of a Transformer: attention, cross-attention and feed-forward."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn

from transformer_jax import attention
from transformer_jax.attention import BoundVariant, Mixer, Variant
from transformer_jax.attention.cache import newest, remember
from transformer_jax.attention.carry import Carry
from transformer_jax.attention.cores.base import repeat_heads
from transformer_jax.models.architecture import Architecture
from transformer_jax.models.compatibility import form
from transformer_jax.models.feedforward import FeedForward
from transformer_jax.models.feedforward_kinds import FeedForwardKind
from transformer_jax.models.mixing import Mixing
from transformer_jax.models.parameters import (
  Dropout,
  NormLayer,
  Parameters,
  Position,
  own,
  weights,
)
from transformer_jax.models.residual import Placement, ResidualConnection
from transformer_jax.positions import PositionalEncoding

NOTHING = Carry()


class Attention(nn.Module):
  """Multi-head attention with its projections, of one text or between two.

  >>> import jax
  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.positions import coords
  >>> dims = Dims(V=5, D=8, H=4, F=16, L=8)
  >>> arch = Architecture(dims, "rope", attention="gqa(2)", decoders=1)
  >>> layer = Attention(arch, arch.position, arch.attention)
  >>> args = jax.numpy.ones((1, 3, 8)), coords.consecutive(1, 3)
  >>> shapes = jax.eval_shape(layer.init, jax.random.key(0), *args)["params"]
  >>> shapes["query_DHK"].shape, shapes["key_DGK"].shape
  ((8, 4, 2), (8, 2, 2))
  """

  arch: Architecture
  position: PositionalEncoding
  variant: Variant

  @nn.compact
  def __call__(self, x_BLD, at, shared=None, memory=None, cache=None, carry=NOTHING):
    """Returns (update_BLD, cache, carry): attention to the text itself, or to a memory.

    x_BLD    normalized input
    at       coordinates of its tokens
    shared   the encoding with the parameters that all layers share, or None
    memory   (x_BMD, coordinates) of an encoder's output, or None: self-attention
    cache    of this layer while decoding, or None
    carry    what earlier layers handed on
    """
    self._check(cache)
    projections = self.variant.projections().fit(self.arch.dims)
    w = self._projection_weights(projections)
    variant = self._bound_variant(projections).borrow(w)
    position = self._bound_position(projections, shared).borrow(w)

    q_BLHK = projections.query(w, x_BLD)
    scale = variant.variant.scale(variant.params, q_BLHK.shape[-1])
    rotate = functools.partial(self._rotate, projections, w, variant, position)
    if memory is None and self.variant.kv_from:
      carried = carry.arrays[self.variant.kv_from]
      q_BLHK, *read = _carried_keys(projections, position, rotate, q_BLHK, carried)
    else:
      source_BMD = x_BLD if memory is None else memory[0]
      kv = projections.memory(w, source_BMD)  # keys and values, or MLA's latent
      q_BLHK, kv, cache = self._convolved(variant, q_BLHK, kv, at, cache)
      if memory is None:
        q_at = k_at = projections.inform(position, x_BLD, q_BLHK, at)
        q_at = k_at = variant.read(x_BLD, q_BLHK, q_at)
        kv, carry = self.variant.share(variant.params, x_BLD, kv, carry)
      else:
        k_at = position.keep(memory[1])
        q_at = variant.read(x_BLD, q_BLHK, position.keep(at).bidirectional())
      own_BLHE = self._own_value(projections, w, kv)

      rotates_once, frozen = _when_to_rotate(projections, position, k_at, cache)
      if rotates_once:
        q_BLHK, kv = rotate(q_BLHK, kv, q_at, k_at)
      elif frozen:
        _, kv = rotate(q_BLHK, kv, q_at, k_at)
      kv, k_at, cache = remember(cache, kv, k_at)
      k_at = variant.accumulate(position.accumulate(k_at))
      q_at = newest(k_at, cache, x_BLD.shape[1]) if memory is None else q_at
      if memory is None and self.variant.kv_as:
        carry = carry.put(self.variant.kv_as, (kv, q_at, k_at, own_BLHE))
      if frozen:
        q_BLHK, _ = rotate(q_BLHK, kv, q_at, k_at)
      elif not rotates_once:
        q_BLHK, kv = rotate(q_BLHK, kv, q_at, k_at)
      read = kv, q_at, k_at, own_BLHE

    kv, q_at, k_at, own_BLHE = read
    out_BLHE = self.arch.core(
      variant.temper(q_BLHK, q_at), kv["key"], kv["value"], q_at, k_at, position,
      scale, variant, self._dropout(),
    )  # fmt: skip
    out_BLD = self._output(projections, w, variant, out_BLHE, x_BLD, own_BLHE)
    return out_BLD, cache, carry

  def _check(self, cache):
    """Raises ValueError where a variant reads earlier queries, which are not cached."""
    if cache is not None and self.variant.rereads:
      raise ValueError(
        f"{self.variant.name} reads earlier queries, which no cache keeps; decode with"
        " empty_cache(model.arch, ...), which reads the text again with each token"
      )

  def _projection_weights(self, projections):
    """Returns the weights of queries, keys, values and the output."""
    dims = self.arch.dims
    w = weights(self, projections.weights(dims))
    return w | own(self, projections.init, dims)

  def _bound_variant(self, projections):
    """Returns the variant with its parameters."""
    dims = projections.sizes(self.arch.dims)
    params = weights(self, self.variant.weights(dims))
    return BoundVariant(self.variant, params | own(self, self.variant.init, dims))

  def _bound_position(self, projections, shared):
    """Returns the encoding with its parameters, shared ones included."""
    dims = projections.encoding_dims(self.arch.dims, self.position)
    owns = self.position.in_layer if shared else _every_parameter
    return Position(self.position, dims, owns, name="position")(shared)

  def _convolved(self, variant, q_BLHK, kv, at, cache):
    """Returns the queries and (kv, cache), mixed along the text where there are taps.

    variant      the bound variant
    q_BLHK, kv   as projected; `convolves` has names of kv, or "query"
    at           their coordinates
    cache        keeps what the next tokens read, or None
    """
    if not self.variant.overrides("taps"):
      return q_BLHK, kv, cache
    recent = cache.recent if cache else None
    found, recent = variant.convolve({"query": q_BLHK} | kv, at, recent)
    cache = dataclasses.replace(cache, recent=recent) if cache else None
    return found.pop("query"), found, cache

  def _rotate(self, projections, w, variant, position, q_BLHK, kv, q_at, k_at):
    """Returns (q_BLHK, {"key": k_BMGK, "value": v_BMGE}), the inputs of the core.

    projections   of the variant, with sizes
    w             their weights
    variant       the bound variant
    position      the bound encoding
    q_BLHK, kv    projected queries; keys and values, or MLA's latent
    q_at, k_at    their coordinates
    """
    params = variant.params
    k_BMGK, v_BMGE = projections.read(w, kv)
    q_BLHK, k_BMGK = self.variant.condition(params, q_BLHK, k_BMGK)
    q_BLHK, k_BMGK = projections.transform_qk(position, q_BLHK, k_BMGK, q_at, k_at)
    q_BLHK, k_BMGK = self.variant.rotated(params, q_BLHK, k_BMGK)
    v_BMGE = self.variant.values(params, v_BMGE)
    return q_BLHK, {"key": k_BMGK, "value": v_BMGE}

  def _own_value(self, projections, w, kv):
    """Returns the tokens' own values v_BLHE, if the variant reads them, or None."""
    if not self.variant.overrides("own_value"):
      return None
    return repeat_heads(projections.read(w, kv)[1], self.arch.dims.H)

  def _output(self, projections, w, variant, out_BLHE, x_BLD, own_BLHE):
    """Returns the update of the residual stream, x_BLD.

    projections   of the variant, with sizes
    w             their weights
    variant       the bound variant
    out_BLHE      outputs of the heads
    x_BLD         normalized input of the layer
    own_BLHE      the tokens' own values, or None
    """
    out_BLHE = projections.found(w, self.variant.mixed(variant.params, out_BLHE), x_BLD)
    if own_BLHE is not None:
      out_BLHE = self.variant.own_value(variant.params, x_BLD, out_BLHE, own_BLHE)
    out_BLHE = self.variant.output(variant.params, x_BLD, out_BLHE)
    return projections.out(w, out_BLHE, x_BLD)

  def _dropout(self):
    """Returns the dropout of attention weights in training, or None."""
    rate = self.arch.attention_dropout
    if not rate or not self.has_rng("dropout"):
      return None
    return attention.KeyedDropout(self.make_rng("dropout"), rate, self.arch.part)


def _when_to_rotate(projections, position, k_at, cache):
  """Returns (rotates_once, frozen): when the keys of a layer are rotated.

  Keys are rotated before they are cached, unless later tokens change the rotation. Then
  they are rotated on reading; a frozen cache holds them as first rotated, and queries
  are rotated with the coordinates that the cache returns.
  """
  rotates_once = projections.keeps_keys and position.rotates_once(k_at)
  frozen = cache is not None and cache.frozen and not rotates_once
  frozen &= projections.keeps_keys and position.rotates_early(k_at)
  return rotates_once, frozen


def _carried_keys(projections, position, rotate, q_BLHK, carried):
  """Returns (q_BLHK, kv, q_at, k_at, own_BLHE) with what an earlier layer read.

  projections   of the variant, with sizes
  position      the bound encoding
  rotate        method of `Attention`, of queries and keys
  q_BLHK        projected queries
  carried       keys and values, coordinates of queries and keys, and the tokens' own
                values, as of that layer
  """
  kv, q_at, k_at, own_BLHE = carried
  once, _ = _when_to_rotate(projections, position, k_at, None)
  q_BLHK, rotated = rotate(q_BLHK, kv, q_at, k_at)
  return q_BLHK, kv if once else rotated, q_at, k_at, own_BLHE


class Block(nn.Module):
  """Layer: self-attention, cross-attention to a memory, if any, and feed-forward.

  Without hidden units (F = 0) there is no feed-forward part, as in Mamba-2.

  >>> import jax
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

    def self_attention(x_BLD):
      nonlocal cache_after, carry
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
      return dropout(FeedForward(self.arch, self.kind, name="feedforward")(x_BLD))

    sublayers = {"attention": self_attention}
    if memory is not None:
      sublayers["cross"] = cross_attention
    if self.arch.dims.F or self.kind.experts:
      sublayers["feedforward"] = feedforward
    norms = LayerNorms(self.arch, self.norm_placement, at, [*sublayers])
    stream = self.norm_placement(norms, stream, sublayers)
    return (stream, carry), cache_after


@dataclasses.dataclass(frozen=True)
class LayerNorms:
  """The norms of a layer and the parameters of its residual connections, by name.

  They are made where they are asked for: as modules of the layer that asks.

  arch        architecture
  placement   of this layer
  at          coordinates of the tokens
  sublayers   names of the layer's sublayers, in their order

  >>> LayerNorms(None, None, None, ["attention"]).sublayers
  ['attention']
  """

  arch: Architecture
  placement: Placement
  at: Any
  sublayers: list[str]

  def __call__(self, name):
    layer = NormLayer(self.arch.norm, name=f"{name}_norm")
    return functools.partial(layer, at=self.at)

  def connection(self, name):
    one = ResidualConnection(self.placement, self.sublayers.index(name))
    return Parameters(one.init, self.arch.dims, name=f"{name}_residual")()


def _every_parameter(name: str) -> bool:
  return True
