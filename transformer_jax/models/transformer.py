"""The Transformer: decoder, encoder, or both. Axis letters are in `axes.py`.

Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.attention import Core, Dropout, Rule, Variant
from transformer_jax.attention.cache import newest, remember
from transformer_jax.axes import Dims
from transformer_jax.models.layers import Gelu, PreNorm, RMSNorm
from transformer_jax.models.parts import Norm, Position, own, weight
from transformer_jax.models.support import form
from transformer_jax.positions import (
  Coords,
  Moment,
  PositionalEncoding,
  coords,
)
from transformer_jax.product import project

Memory = tuple[jax.Array, Coords]  # what an encoder made of its text, and where


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What a Transformer is made of. Every choice is a value.

  encoders, decoders   layers that look both ways, and layers that look back; a model
                       with both attends from decoder to encoder
  prefix               the decoder's coordinates let a prefix be seen whole
  attention            the attention variant
  tied                 the output reads with the embedding's own weights
  dtype                of activations; parameters, norms, softmax and logits are float32
  scan, remat          one program for all layers; recompute layers in the backward pass
  """

  dims: Dims
  position: PositionalEncoding
  core: Core
  attention: Variant = Variant()
  norm: Any = RMSNorm()
  activation: Any = Gelu()
  placement: Any = PreNorm()
  encoders: int = 0
  decoders: int = 0
  prefix: bool = False
  dropout: float = 0.0
  attention_dropout: float = 0.0
  tied: bool = True
  dtype: str = "float32"
  scan: bool = False
  remat: bool = False

  @property
  def decoding(self) -> str:
    """How decoder layers use attention."""
    return "prefix" if self.prefix else "decoder"

  def layer(self, use: str, n: int) -> tuple[PositionalEncoding, Variant]:
    """Returns the encoding and the variant of layer n of a stack."""
    return form(self.position, use).layer(n), form(self.attention, use).layer(n)


class Attention(nn.Module):
  """Projects, turns, attends and projects back."""

  arch: Architecture
  position: PositionalEncoding
  variant: Variant

  @nn.compact
  def __call__(self, x_BLD, at, shared=None, memory=None, cache=None):
    """Attends to the text itself, or to a memory; returns the update and the cache.

    shared   the encoding with the parameters that all layers share
    """
    dims = self.arch.dims
    projections = self.variant.projections().fit(dims)
    w = {
      name: weight(self, name, *shape)
      for name, shape in projections.weights(dims).items()
    } | own(self, projections.init, dims)
    sizes = projections.sizes(dims)
    more = self.variant.weights(sizes)
    params = {name: weight(self, name, *shape) for name, shape in more.items()}
    rule = Rule(self.variant, params | own(self, self.variant.init, sizes))
    mine = self.position.in_layer if shared else _everything
    seen_by = projections.seen_by(dims, self.position)
    position = Position(self.position, seen_by, mine, name="position")(shared)

    q_BLHK = projections.query(w, x_BLD)
    source_BMD, k_at = memory or (x_BLD, at)
    told = x_BLD, q_BLHK, at
    k_at = position.keep(k_at) if memory else projections.inform(position, *told)
    kept, k_at, cache = remember(cache, projections.memory(w, source_BMD), k_at)
    k_BMGK, v_BMGE = projections.read(w, kept)
    k_at = position.accumulate(k_at)
    L, scale = x_BLD.shape[1], self.variant.scale(rule.params, q_BLHK.shape[-1])
    q_at = position.keep(at).bidirectional() if memory else newest(k_at, cache, L)
    q_BLHK, k_BMGK = self.variant.condition(rule.params, q_BLHK, k_BMGK)
    q_BLHK, k_BMGK = projections.turn(position, q_BLHK, k_BMGK, q_at, k_at)
    attended = q_BLHK, k_BMGK, v_BMGE, q_at, k_at, position, scale
    out_BLHE = projections.found(w, self.arch.core(*attended, rule, self.drop()))
    out_BLHE = self.variant.output(rule.params, x_BLD, out_BLHE)
    return projections.out(w, out_BLHE, x_BLD), cache

  def drop(self):
    """Returns what drops weights in training, or None."""
    rate = self.arch.attention_dropout
    if not rate or not self.has_rng("dropout"):
      return None
    return Dropout(self.make_rng("dropout"), rate)


class FeedForward(nn.Module):
  """Two projections with an activation between them, or three if it is gated."""

  arch: Architecture

  @nn.compact
  def __call__(self, x_BLD):
    D, F = self.arch.dims.D, self.arch.dims.F
    inner = [project(x_BLD, weight(self, "in_DF", (D, F)), 1)]
    if self.arch.activation.gated:
      inner.append(project(x_BLD, weight(self, "gate_DF", (D, F)), 1))
    h_BLF = self.arch.activation(*inner)
    return project(h_BLF, weight(self, "out_FD", (F, D)), 1)


class Block(nn.Module):
  """Attention to the text, attention to a memory if there is one, feed-forward."""

  arch: Architecture
  position: PositionalEncoding
  variant: Variant

  @nn.compact
  def __call__(self, x_BLD, at, shared, memory, cache):
    place = self.arch.placement
    drop = nn.Dropout(self.arch.dropout, deterministic=not self.has_rng("dropout"))
    norm = lambda name: Norm(self.arch.norm, name=f"{name}_norm")

    own = norm("attention")
    attend = Attention(self.arch, self.position, self.variant, name="attention")
    update_BLD, cache = attend(place.before(own, x_BLD), at, shared, cache=cache)
    x_BLD = place.after(own, x_BLD, drop(update_BLD))

    if memory is not None:
      own = norm("cross")
      position, variant = (form(x, "cross") for x in (self.position, self.variant))
      attend = Attention(self.arch, position, variant, name="cross")
      update_BLD, _ = attend(place.before(own, x_BLD), at, memory=memory)
      x_BLD = place.after(own, x_BLD, drop(update_BLD))

    own = norm("feedforward")
    update_BLD = FeedForward(self.arch, name="feedforward")(place.before(own, x_BLD))
    return place.after(own, x_BLD, drop(update_BLD)), cache


class Stack(nn.Module):
  """Places the tokens, then applies the layers."""

  arch: Architecture
  use: str
  layers: int

  @property
  def position(self):
    return form(self.arch.position, self.use)

  @nn.compact
  def __call__(self, x_BLD, at, memory=None, cache=None, done=1.0):
    at = self.position.place(self.moment(x_BLD.shape[0], done), at)
    shared = lambda name: not self.position.in_layer(name)
    projections = form(self.arch.attention, self.use).projections()
    seen_by = projections.seen_by(self.arch.dims, self.position)
    position = Position(self.position, seen_by, shared, name="position")()
    x_BLD = self.embed(position, x_BLD, at)
    drop = nn.Dropout(self.arch.dropout, deterministic=not self.has_rng("dropout"))
    x_BLD, cache = self.apply_layers(drop(x_BLD), at, position, memory, cache)
    if self.arch.placement.final_norm:
      x_BLD = Norm(self.arch.norm, name="final_norm")(x_BLD)
    return x_BLD, at, cache

  def embed(self, position, x_BLD, at):
    try:
      return position.embed(x_BLD, at)
    except KeyError as error:
      raise ValueError(
        f"{self.position.name} changes the embeddings with {error}, of which"
        " each layer has its own; its in_layer must be False for that name"
      ) from error

  def moment(self, rows, done):
    """Returns the moment of training, or None when this is not training."""
    if not self.has_rng("position"):
      return None
    return Moment(self.make_rng("position"), done, rows)

  def apply_layers(self, x_BLD, at, shared, memory, cache):
    block = (
      nn.remat(Block, prevent_cse=not self.arch.scan) if self.arch.remat else Block
    )
    kinds = [self.arch.layer(self.use, n) for n in range(self.layers)]
    if self.arch.scan:
      if len({*kinds}) > 1:
        raise ValueError(
          "scan compiles one layer for all of them, and position or attention gives"
          " layers different ones; set model.scan=False"
        )
      rngs = {"params": True, "dropout": True}
      one = nn.broadcast
      layers = nn.scan(
        block, {"params": 0}, split_rngs=rngs, in_axes=(one, one, one, 0),
        length=self.layers,
      )  # fmt: skip
      layers = layers(self.arch, *kinds[0], name="layers")
      return layers(x_BLD, at, shared, memory, cache)
    caches = []
    for n, kind in enumerate(kinds):
      layer = block(self.arch, *kind, name=f"layer_{n}")
      x_BLD, own = layer(x_BLD, at, shared, memory, cache[n] if cache else None)
      caches.append(own)
    return x_BLD, caches


class Transformer(nn.Module):
  """Reads tokens and returns logits over the vocabulary."""

  arch: Architecture

  def setup(self):
    arch, dims = self.arch, self.arch.dims
    normal = nn.initializers.normal(dims.D**-0.5)
    self.embedding_VD = self.param("embedding_VD", normal, (dims.V, dims.D))
    if not arch.tied:
      self.output_DV = self.param("output_DV", normal, (dims.D, dims.V))
    if arch.encoders:
      self.encoder = Stack(arch, "encoder", arch.encoders)
    if arch.decoders:
      self.decoder = Stack(arch, arch.decoding, arch.decoders)

  def __call__(self, token_BL, at=None, source_BL=None, source_at=None, done=1.0):
    """Returns logits_BLV; a model with both stacks reads `source_BL` first.

    at     where the tokens are; None means consecutive causal tokens
    done   the share of training that is done
    """
    return self.logits(self.hidden(token_BL, at, source_BL, source_at, done)[0])

  def hidden(self, token_BL, at=None, source_BL=None, source_at=None, done=1.0):
    """Returns (x_BLD, output_VD): x @ output^T is what a call returns.

    A loss that takes the two never holds all logits.
    """
    if not self.arch.decoders:
      return self.encode(token_BL, at, done)[0], self.output_VD
    memory = self.encode(source_BL, source_at, done) if self.arch.encoders else None
    return self.read(token_BL, at, memory, None, done)[0], self.output_VD

  def encode(self, token_BL, at=None, done=1.0) -> Memory:
    """Returns what the encoder makes of a text, and where its tokens are."""
    at = (at or coords.consecutive(1, token_BL.shape[1])).bidirectional()
    return self.encoder(self.embed(token_BL), at, done=done)[:2]

  def decode(self, token_BL, at=None, memory=None, cache=None, done=1.0):
    """Returns logits_BLV of the tokens after those in the cache, and the new cache."""
    x_BLD, cache = self.read(token_BL, at, memory, cache, done)
    return self.logits(x_BLD), cache

  def read(self, token_BL, at, memory, cache, done):
    at = at or coords.consecutive(1, token_BL.shape[1])
    x_BLD, _, cache = self.decoder(self.embed(token_BL), at, memory, cache, done)
    return x_BLD, cache

  def embed(self, token_BL):
    x_BLD = self.embedding_VD[token_BL] * self.arch.dims.D**0.5
    return x_BLD.astype(self.arch.dtype)

  @property
  def output_VD(self):
    return self.embedding_VD if self.arch.tied else self.output_DV.T

  def logits(self, x_BLD):
    output_DV = self.output_VD.T.astype(x_BLD.dtype)
    return jnp.matmul(x_BLD, output_DV, preferred_element_type=jnp.float32)


def _everything(name: str) -> bool:
  return True
