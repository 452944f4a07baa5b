"""Stack of layers: an encoder, a decoder, or a decoder whose prefix looks both ways."""

import flax.linen as nn
import jax
from flax.core.scope import CollectionFilter

from transformer_jax import remat
from transformer_jax.attention.carry import Carry
from transformer_jax.devices import split_rows
from transformer_jax.models.architecture import Architecture
from transformer_jax.models.block import Block
from transformer_jax.models.caches import cache_between
from transformer_jax.models.compatibility import form
from transformer_jax.models.parameters import (
  RUNNING,
  Dropout,
  NormLayer,
  Parameters,
  Position,
)
from transformer_jax.positions import TrainContext

CAPTURED = "captured"  # collection of arrays recorded from outside: see capture.py


class Stack(nn.Module):
  """Stack of layers: assigns positions, embeds them, applies the layers.

  arch     architecture; dims are those of this stack
  use      encoder, decoder or prefix
  layers   number of layers

  >>> import jax
  >>> import jax.numpy as jnp
  >>> from transformer_jax.positions import coords
  >>> from transformer_jax.axes import Dims
  >>> arch = Architecture(Dims(V=5, D=8, H=2, F=16, L=8), "rope", decoders=2)
  >>> stack = Stack(arch, "decoder", layers=2)
  >>> x_BLD, at = jnp.ones((1, 3, 8)), coords.consecutive(1, 3)
  >>> list(jax.eval_shape(stack.init, jax.random.key(0), x_BLD, at)["params"])
  ['final_norm', 'layer_0', 'layer_1']
  """

  arch: Architecture
  use: str
  layers: int

  @property
  def position(self):
    return form(self.arch.position, self.use)

  @nn.compact
  def __call__(
    self, x_BLD, at, memory=None, cache=None, progress=1.0, token_BL=None, last=None
  ):
    """Returns (x_BLD, coordinates, cache) after all layers.

    x_BLD      embedded tokens
    at         their coordinates
    memory     (x_BMD, coordinates) of an encoder's output, or None
    cache      caches of the layers, or None
    progress   fraction of training completed, from 0 to 1
    token_BL   ids of the tokens, for layers that read them
    last       how many of the last tokens' states are returned; None: all
    """
    at = self.assign_positions(x_BLD.shape[0], at, progress)
    projections = form(self.arch.attention, self.use).projections()
    encoding_dims = projections.encoding_dims(self.arch.dims, self.position)

    def shared(name):
      return not self.position.in_layer(name)

    position = Position(self.position, encoding_dims, shared, name="position")()
    x_BLD = self.embed(position, x_BLD, at)
    before = self.open(x_BLD), self.first_carry(x_BLD, token_BL)
    stream, cache = self.apply_layers(before, at, position, memory, cache, last)
    x_BLD = last_tokens(self.close(stream), last)
    at = last_tokens(at, last)
    if self.arch.norm_placement.final_norm:
      x_BLD = NormLayer(self.arch.norm, name="final_norm")(x_BLD, at)
    return x_BLD, at, cache

  def embed(self, position, x_BLD, at):
    """Returns x_BLD, the input of the first layer."""
    x_BLD = position.embed(x_BLD, at)
    if self.arch.embedding.norm:
      norm = NormLayer(self.arch.embedding.norm, name="embedding_norm")
      x_BLD = norm(x_BLD, at)
    return split_rows(Dropout(self.arch.dropout, self.arch.part)(x_BLD))

  def assign_positions(self, B, at, progress):
    """Returns the coordinates of B rows with positions; random only in training.

    Parts of a batch share one key: each computes all rows and takes its own.
    """
    if not self.has_rng("position"):
      return self.position.assign_positions(None, at)
    part, key = self.arch.part, self.make_rng("position")
    rows = B * (part.count if part else 1)
    if part:
      at = jax.tree.map(lambda x: part.gather(x) if len(x) == B else x, at)
    at = self.position.assign_positions(TrainContext(key, progress, rows), at)
    if part is None:
      return at
    return jax.tree.map(lambda x: part.take(x) if len(x) == rows else x, at)

  def open(self, x_BLD):
    """Returns the residual stream before the first layer."""
    placement = self.arch.norm_placement
    params = Parameters(placement.open_init, self.arch.dims, name="residual_open")()
    return placement.open(params, x_BLD)

  def close(self, stream):
    """Returns x_BLD after the last layer."""
    placement = self.arch.norm_placement
    params = Parameters(placement.close_init, self.arch.dims, name="residual")()
    return placement.close(params, stream)

  def first_carry(self, x_BLD, token_BL):
    """Returns what the first layer finds: ids of tokens that some layer reads.

    Layers with embeddings of their own read x_BLD as well, and share parameters. A loop
    over layers needs room for what they will hand on.
    """
    variants = [self.arch.layer(self.use, n)[1] for n in range(self.layers)]
    carry = Carry()
    embedding = self.arch.embedding
    if embedding.in_layers or any(variant.reads_tokens for variant in variants):
      carry = carry.put("token_BL", token_BL)
    if embedding.in_layers:
      shared = Parameters(embedding.shared_init, self.arch.dims, name="embedding")()
      carry = carry.put("embedding", shared).put("embedded_BLD", x_BLD)
    if self.arch.scan and variants[0].overrides("reserved"):
      projections = variants[0].projections().fit(self.arch.dims)
      kept = projections.kept_shapes(self.arch.dims, x_BLD)
      carry = carry.reserve(variants[0].reserved(kept))
    return carry

  def block(self):
    """Returns the class of a layer, which may recompute parts of itself."""
    if self.arch.remat == remat.NONE:
      return Block
    policy, prevent_cse = remat.policy(self.arch.remat), not self.arch.scan
    return nn.remat(Block, prevent_cse=prevent_cse, policy=policy)

  def apply_layers(self, before, at, shared, memory, cache, last):
    """Returns (stream, caches) after all layers.

    before   the residual stream, and what layers hand on, before the first one
    at       their coordinates, with positions
    shared   the encoding with the parameters that all layers share
    memory   (x_BMD, coordinates) of an encoder's output, or None
    cache    caches of the layers, or None
    last     how many of the last tokens' states are asked for; None: all
    """
    block = self.block()
    placement, feedforward = self.arch.norm_placement, self.arch.feedforward_kind
    kinds = [
      (*self.arch.layer(self.use, n), placement.layer(n), feedforward.layer(n))
      for n in range(self.layers)
    ]
    if self.arch.scan:
      if len({*kinds}) > 1 or placement.grows:
        raise ValueError(
          "scan compiles one layer for all of them, and position, attention,"
          " feedforward_kind or placement gives layers different ones; set"
          " model.scan=False"
        )
      rngs: dict[CollectionFilter, bool] = {"params": True, "dropout": True}
      one = nn.broadcast
      scanned = nn.scan(
        block, {"params": 0, CAPTURED: 0, RUNNING: 0}, split_rngs=rngs,
        in_axes=(one, one, one, 0),
        length=self.layers,
      )  # fmt: skip
      layers = scanned(self.arch, *kinds[0], name="layers")
      (stream, _), cache = layers(before, at, shared, memory, cache)
      return stream, cache
    caches = []
    for n, kind in enumerate(kinds):
      layer = block(self.arch, *kind, name=f"layer_{n}")
      if n == len(kinds) - 1 and cache is None and last:
        return self.last_states(layer, before, at, shared, memory, last), []
      before, own = layer(before, at, shared, memory, cache[n] if cache else None)
      caches.append(own)
    return before[0], caches

  def last_states(self, layer, before, at, shared, memory, last):
    """Returns the stream after the last layer, of the last tokens where it can.

    The layer reads the tokens before them into a cache: of these XLA computes keys and
    values alone, and nothing of what follows, for nobody reads it.

    layer   the last one
    last    number of tokens

    Other arguments are those of `apply_layers`.
    """
    stream, carry = before
    cache = None
    if isinstance(stream, jax.Array) and stream.ndim == 3 and not carry.arrays:
      B, L, _ = stream.shape
      cache = cache_between(self.arch, self.layers - 1, B, L) if last < L else None
    if cache is None:
      return layer(before, at, shared, memory, None)[0][0]
    texts = stream, at
    earlier, x_at = (jax.tree.map(lambda x: x[:, :-last], tree) for tree in texts)
    _, cache = layer((earlier, carry), x_at, shared, memory, cache)
    newest, x_at = (last_tokens(tree, last) for tree in texts)
    return layer((newest, carry), x_at, shared, memory, cache)[0][0]


def last_tokens(tree, last):
  """Returns arrays [B, L, ...] of the last tokens, all of them where last is None."""
  return tree if last is None else jax.tree.map(lambda x: x[:, -last:], tree)
