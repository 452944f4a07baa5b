"""The Transformer: decoder, encoder, or both. Axis letters are in `axes.py`.

Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.attention import Core
from transformer_jax.attention.cache import Cache, newest, remember
from transformer_jax.axes import Dims
from transformer_jax.models.layers import Gelu, PreNorm, RMSNorm
from transformer_jax.positions import Bound, Coords, PositionalEncoding, bind, coords

Memory = tuple[jax.Array, Coords]  # what an encoder made of its text, and where


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What a Transformer is made of. Every choice is a value.

  encoders, decoders   layers that look both ways, and layers that look back; a model
                       with both attends from decoder to encoder
  tied                 the output reads with the embedding's own weights
  dtype                of activations; parameters, norms, softmax and logits are float32
  scan, remat          one program for all layers; recompute layers in the backward pass
  """

  dims: Dims
  position: PositionalEncoding
  core: Core
  norm: Any = RMSNorm()
  activation: Any = Gelu()
  placement: Any = PreNorm()
  encoders: int = 0
  decoders: int = 0
  dropout: float = 0.0
  tied: bool = True
  dtype: str = "float32"
  scan: bool = False
  remat: bool = False


class Norm(nn.Module):
  """Owns the parameters of a norm."""

  kind: Any

  @nn.compact
  def __call__(self, x_BLD):
    start = self.kind.init(x_BLD.shape[-1])
    params = {name: self.param(name, lambda key, v: v, v) for name, v in start.items()}
    return self.kind(params, x_BLD)


class Position(nn.Module):
  """Owns the parameters of a positional encoding."""

  encoding: PositionalEncoding
  dims: Dims

  @nn.compact
  def __call__(self) -> Bound:
    make = lambda name: lambda key: self.encoding.init(key, self.dims)[name]
    names = jax.eval_shape(lambda: self.encoding.init(jax.random.key(0), self.dims))
    params = {name: self.param(name, make(name)) for name in names}
    return bind(self.encoding, params, self.dims)


class Attention(nn.Module):
  """Projects, turns, attends and projects back."""

  arch: Architecture
  position: PositionalEncoding

  @nn.compact
  def __call__(self, x_BLD, at, position=None, memory=None, cache=None):
    """Attends to the text itself, or to a memory; returns the update and the cache."""
    dims = self.arch.dims
    if position is None:
      position = Position(self.position, dims, name="position")()
    source_BMD, k_at = memory or (x_BLD, position.read(x_BLD, at))
    inward, outward = (dims.D, dims.H, dims.K), (dims.H, dims.K, dims.D)
    q_BLHK = project(x_BLD, weight(self, "query_DHK", inward), 1)
    k_BMHK = project(source_BMD, weight(self, "key_DHK", inward), 1)
    v_BMHK = project(source_BMD, weight(self, "value_DHK", inward), 1)
    k_BMHK, v_BMHK, k_at, cache = remember(cache, k_BMHK, v_BMHK, k_at)
    k_at = position.accumulate(k_at)
    q_at = at.bidirectional() if memory else newest(k_at, cache, x_BLD.shape[1])
    q_BLHK, k_BMHK = position.turn(q_BLHK, k_BMHK, q_at, k_at)
    scale = dims.K**-0.5
    out_BLHK = self.arch.core(q_BLHK, k_BMHK, v_BMHK, q_at, k_at, position, scale)
    return project(out_BLHK, weight(self, "out_HKD", outward, inputs=2), 2), cache


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

  @nn.compact
  def __call__(self, x_BLD, at, position, memory, cache):
    place = self.arch.placement
    drop = nn.Dropout(self.arch.dropout, deterministic=not self.has_rng("dropout"))
    norm = lambda name: Norm(self.arch.norm, name=f"{name}_norm")

    own = norm("attention")
    attend = Attention(self.arch, self.position, name="attention")
    update_BLD, cache = attend(place.before(own, x_BLD), at, position, cache=cache)
    x_BLD = place.after(own, x_BLD, drop(update_BLD))

    if memory is not None:
      own = norm("cross")
      attend = Attention(self.arch, self.position.cross(), name="cross")
      update_BLD, _ = attend(place.before(own, x_BLD), at, memory=memory)
      x_BLD = place.after(own, x_BLD, drop(update_BLD))

    own = norm("feedforward")
    update_BLD = FeedForward(self.arch, name="feedforward")(place.before(own, x_BLD))
    return place.after(own, x_BLD, drop(update_BLD)), cache


class Stack(nn.Module):
  """Places the tokens, then applies the layers."""

  arch: Architecture
  position: PositionalEncoding
  layers: int

  @nn.compact
  def __call__(self, x_BLD, at, memory=None, cache=None):
    key = self.make_rng("position") if self.has_rng("position") else None
    at = self.position.place(key, at)
    position = None
    if self.position.per_layer and self.position.overrides("embed"):
      raise ValueError(
        f"{type(self.position).__name__} has parameters in each layer and changes the"
        " embeddings, which no layer owns; drop per_layer or embed"
      )
    if not self.position.per_layer:
      position = Position(self.position, self.arch.dims, name="position")()
      x_BLD = position.embed(x_BLD, at.pos_BL)
    drop = nn.Dropout(self.arch.dropout, deterministic=not self.has_rng("dropout"))
    x_BLD, cache = self.apply_layers(drop(x_BLD), at, position, memory, cache)
    if self.arch.placement.final_norm:
      x_BLD = Norm(self.arch.norm, name="final_norm")(x_BLD)
    return x_BLD, at, cache

  def apply_layers(self, x_BLD, at, position, memory, cache):
    block = (
      nn.remat(Block, prevent_cse=not self.arch.scan) if self.arch.remat else Block
    )
    if self.arch.scan:
      rngs = {"params": True, "dropout": True}
      one = nn.broadcast
      layers = nn.scan(
        block, {"params": 0}, split_rngs=rngs, in_axes=(one, one, one, 0),
        length=self.layers,
      )  # fmt: skip
      layers = layers(self.arch, self.position, name="layers")
      return layers(x_BLD, at, position, memory, cache)
    caches = []
    for n in range(self.layers):
      layer = block(self.arch, self.position, name=f"layer_{n}")
      own = jax.tree.map(lambda x, n=n: x[n], cache)
      x_BLD, own = layer(x_BLD, at, position, memory, own)
      caches.append(own)
    return x_BLD, jax.tree.map(lambda *x: jnp.stack(x), *caches)


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
      self.encoder = Stack(arch, arch.position.bidirectional(), arch.encoders)
    if arch.decoders:
      self.decoder = Stack(arch, arch.position, arch.decoders)

  def __call__(self, token_BL, at=None, source_BL=None, source_at=None):
    """Returns logits_BLV; a model with both stacks reads `source_BL` first.

    `at` says where the tokens are; None means consecutive causal tokens.
    """
    if not self.arch.decoders:
      return self.logits(self.encode(token_BL, at)[0])
    memory = self.encode(source_BL, source_at) if self.arch.encoders else None
    return self.decode(token_BL, at, memory)[0]

  def encode(self, token_BL, at=None) -> Memory:
    """Returns what the encoder makes of a text, and where its tokens are."""
    at = (at or coords.consecutive(1, token_BL.shape[1])).bidirectional()
    return self.encoder(self.embed(token_BL), at)[:2]

  def decode(self, token_BL, at=None, memory=None, cache=None):
    """Returns logits_BLV of the tokens after those in the cache, and the new cache."""
    at = at or coords.consecutive(1, token_BL.shape[1])
    x_BLD, _, cache = self.decoder(self.embed(token_BL), at, memory, cache)
    return self.logits(x_BLD), cache

  def embed(self, token_BL):
    x_BLD = self.embedding_VD[token_BL] * self.arch.dims.D**0.5
    return x_BLD.astype(self.arch.dtype)

  def logits(self, x_BLD):
    output_DV = self.embedding_VD.T if self.arch.tied else self.output_DV
    return jnp.matmul(
      x_BLD, output_DV.astype(x_BLD.dtype), preferred_element_type=jnp.float32
    )


def weight(module: nn.Module, name: str, shape: tuple[int, ...], inputs: int = 1):
  """Returns a projection's weights, scaled by the size of its first `inputs` axes."""
  into, out = tuple(range(inputs)), tuple(range(inputs, len(shape)))
  init = nn.initializers.lecun_normal(in_axis=into, out_axis=out)
  return module.param(name, init, shape)


def project(x, w, inputs: int):
  """Contracts the last `inputs` axes of x with the first of w, in the dtype of x.

  Tokens are flattened into one axis: XLA on CPUs fuses two axes better than three.
  """
  tokens, inward, outward = x.shape[:-inputs], w.shape[:inputs], w.shape[inputs:]
  size = 1
  for n in inward:
    size *= n
  y = x.reshape(-1, size) @ w.astype(x.dtype).reshape(size, -1)
  return y.reshape(*tokens, *outward)


def empty_cache(arch: Architecture, B: int, M: int) -> Cache:
  """Returns a cache of B rows for M tokens; leaves are stacked by layer."""
  dims, encoding = arch.dims, arch.position
  read = lambda key, x: encoding.token_data(encoding.init(key, dims), x)
  x_BMD = jax.ShapeDtypeStruct((B, M, dims.D), arch.dtype)
  data = jax.eval_shape(read, jax.random.key(0), x_BMD)
  zeros = lambda tree: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)
  k_BMHK = jnp.zeros((B, M, dims.H, dims.K), arch.dtype)
  at = coords.absent(B, M).replace(data=zeros(data))
  cache = Cache(k_BMHK, k_BMHK, at, jnp.zeros((), jnp.int32))
  return jax.tree.map(lambda x: jnp.broadcast_to(x, (arch.decoders, *x.shape)), cache)
