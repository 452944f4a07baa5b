"""The Transformer: decoder, encoder, or both. Axis letters are in `axes.py`.

Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.attention.cache import CachedText, fitting, remember
from transformer_jax.matmul import look_up, whole_along_width
from transformer_jax.models.architecture import Architecture
from transformer_jax.models.attention_layer import Attention
from transformer_jax.models.parameters import Parameters, own, parameter
from transformer_jax.models.stack import Stack, last_tokens
from transformer_jax.positions import Coords, coords

__all__ = ["Architecture", "Attention", "Memory", "Stack", "Transformer"]

Memory = tuple[jax.Array, Coords]  # encoder states x_BMD and their coordinates


class Transformer(nn.Module):
  """Model from tokens to logits: a decoder, an encoder, or both.

  stack   class of the stacks; a call returns states, coordinates and a cache

  >>> from transformer_jax.axes import Dims
  >>> arch = Architecture(Dims(V=256, D=64, H=4, F=256, L=128), "rope", decoders=1)
  >>> model, token_BL = Transformer(arch), jnp.zeros((1, 16), int)
  >>> params = jax.eval_shape(model.init, jax.random.key(0), token_BL)
  >>> jax.eval_shape(model.apply, params, token_BL).shape  # logits_BLV
  (1, 16, 256)
  """

  arch: Architecture
  stack: ClassVar[type[nn.Module]] = Stack

  def __post_init__(self):
    if not isinstance(self.arch, Architecture):
      raise ValueError(
        f"arch is {self.arch!r}; write Transformer(Architecture(dims, position='rope',"
        " decoders=2))"
      )
    super().__post_init__()

  def setup(self):
    arch, dims = self.arch, self.arch.dims
    normal = nn.initializers.normal(dims.D**-0.5)
    if arch.embedding.table:
      self.embedding_VD = parameter(
        self, "embedding_VD", lambda key: normal(key, (dims.V, dims.D))
      )
    if not arch.tied:
      self.output_DV = parameter(
        self, "output_DV", lambda key: normal(key, (dims.D, arch.outputs))
      )
    self.embedding = own(self, arch.embedding.init, dims)
    self.head = Parameters(arch.head.init, dataclasses.replace(dims, V=arch.outputs))
    if arch.encoders:
      self.encoder = self.stack(arch, "encoder", arch.encoders)
    if arch.decoders:
      self.decoder = self.stack(arch.of_decoder, arch.decoding, arch.decoders)

  def __call__(
    self,
    token_BL,
    at=None,
    source_BL=None,
    source_at=None,
    progress=1.0,
    last=None,
  ):
    """Returns logits_BLV.

    token_BL    ids of the tokens, or images where the embedding reads images
    at          their coordinates; None: consecutive causal tokens
    source_BL   ids of the encoder's tokens, in a model with both stacks
    source_at   their coordinates
    progress    fraction of training completed, from 0 to 1
    last        how many of the last tokens' logits are returned; None: all. Of the
                others a decoder's last layer computes keys and values alone
    """
    x_BLD = self.states(token_BL, at, source_BL, source_at, progress, last)
    return self.logits(x_BLD)

  def states(
    self,
    token_BL,
    at=None,
    source_BL=None,
    source_at=None,
    progress=1.0,
    last=None,
  ):
    """Returns x_BLD, the states before the output head.

    token_BL    ids of the tokens, or images where the embedding reads images
    at          their coordinates; None: consecutive causal tokens
    source_BL   ids of the encoder's tokens, in a model with both stacks
    source_at   their coordinates
    progress    fraction of training completed, from 0 to 1
    last        how many of the last tokens' states are returned; None: all
    """
    if not self.arch.decoders:
      pooled_BLD = self.arch.head.pool(*self.encode(token_BL, at, progress))
      return last_tokens(pooled_BLD, last)
    if self.arch.encoders and source_BL is None:
      raise ValueError(
        "this model's encoder has nothing to read; write model.apply(params, token_BL,"
        " source_BL=...), and init likewise"
      )
    memory = self.encode(source_BL, source_at, progress) if self.arch.encoders else None
    return self.read(token_BL, at, memory, None, progress, last)[0]

  def hidden(self, token_BL, at=None, source_BL=None, source_at=None, progress=1.0):
    """Returns (x_BLD, output_VD), whose product x @ output^T is the logits.

    token_BL    ids of the tokens, or images where the embedding reads images
    at          their coordinates; None: consecutive causal tokens
    source_BL   ids of the encoder's tokens, in a model with both stacks
    source_at   their coordinates
    progress    fraction of training completed, from 0 to 1

    A chunked loss needs no array of all logits. A bias of the logits is one more
    feature of x, with value 1.
    """
    head = self.arch.head
    if head.cap:
      raise ValueError(
        "a head that caps its logits is no product, which this loss needs; train with"
        " cap=0"
      )
    x_BLD = self.states(token_BL, at, source_BL, source_at, progress)
    x_BLD, output_VD = head.states(self.head(), x_BLD), self.output_VD
    if not head.bias:
      return x_BLD, output_VD
    shift_V1 = self.head()["shift_V"][:, None]
    one = jnp.pad(x_BLD, ((0, 0), (0, 0), (0, 1)), constant_values=1)
    return one, jnp.concatenate([output_VD, shift_V1], axis=1)

  def encode(self, token_BL, at=None, progress=1.0) -> Memory:
    """Returns the encoder's states and their coordinates."""
    if not self.arch.encoders:
      raise ValueError(
        "this model has no encoder; write encoders=2 in its Architecture"
      )
    self._check_tokens(token_BL, "source_BL" if self.arch.decoders else "token_BL")
    at = at or coords.consecutive(1, self.arch.embedding.places(token_BL))
    at = at.bidirectional()
    x_BLD = self.embed(token_BL, at)
    return self.encoder(x_BLD, at, progress=progress, token_BL=token_BL)[:2]

  def decode(self, token_BL, at=None, memory=None, cache=None, progress=1.0):
    """Returns logits_BLV of tokens that follow those in the cache, and the new cache.

    token_BL   ids of the new tokens
    at         their coordinates; None: consecutive causal tokens
    memory     result of `encode`, or None
    cache      of the tokens before, or None
    progress   fraction of training completed, from 0 to 1
    """
    x_BLD, cache = self.read(token_BL, at, memory, cache, progress)
    return self.logits(x_BLD), cache

  def read(self, token_BL, at, memory, cache, progress, last=None):
    """Returns the decoder's states x_BLD of new tokens, and the new cache.

    token_BL   ids of the new tokens
    at         their coordinates; None: consecutive causal tokens
    memory     result of `encode`, or None
    cache      of the tokens before, or None
    progress   fraction of training completed, from 0 to 1
    last       how many of the last tokens' states are returned; None: all
    """
    self._check_memory(memory)
    self._check_tokens(token_BL, "token_BL")
    at = at or coords.consecutive(1, token_BL.shape[1])
    if isinstance(cache, CachedText):
      return self.reread(token_BL, at, memory, cache, progress)
    x_BLD = self.embed(token_BL, at)
    x_BLD, _, cache = self.decoder(x_BLD, at, memory, cache, progress, token_BL, last)
    return x_BLD, cache

  def _check_tokens(self, token_BL, name):
    """Raises ValueError where the embedding has a table, and these are no ids."""
    if not self.arch.embedding.table:
      return
    if not isinstance(token_BL, (jax.Array, np.ndarray)):
      raise ValueError(f"{name} is a {type(token_BL).__name__}; give an array [B, L]")
    if token_BL.ndim != 2:
      raise ValueError(f"{name} has shape {token_BL.shape}; give ids [B, L]")
    if not jnp.issubdtype(token_BL.dtype, jnp.integer):
      raise ValueError(f"{name} is {token_BL.dtype}; give whole numbers, as jnp.int32")

  def _check_memory(self, memory):
    """Raises ValueError without a decoder, or for a memory that it does not read."""
    if not self.arch.decoders:
      raise ValueError(
        "this model has no decoder; write decoders=2 in its Architecture"
      )
    if memory is not None and not self.arch.encoders:
      raise ValueError(
        "memory is for a model of an encoder and a decoder; leave it out, or write"
        " encoders=2 in its Architecture"
      )

  def reread(self, token_BL, at, memory, text, progress):
    """Returns the new tokens' states x_BLD, from a full pass over the text so far.

    token_BL   ids of the new tokens
    at         their coordinates
    memory     result of `encode`, or None
    text       cached ids and coordinates of all earlier tokens
    progress   fraction of training completed, from 0 to 1
    """
    ids = text.tokens.at.data
    at.need(ids, self.arch.position.name)
    at = at.replace(data={name: at.data[name] for name in ids})
    kept, at, tokens = remember(text.tokens, {"token": token_BL[..., None]}, at)
    x_BMD, _ = self.read(kept["token"][..., 0], at, memory, None, progress)
    L = token_BL.shape[1]
    x_BLD = jax.lax.dynamic_slice_in_dim(x_BMD, tokens.used - L, L, axis=1)
    return fitting(x_BLD, tokens.used <= x_BMD.shape[1]), CachedText(tokens)

  def embed(self, token_BL, at):
    embedding = self.arch.embedding
    read = token_BL
    if embedding.table:
      read = look_up(self.embedding_VD, token_BL)
    return embedding(self.embedding, read, at).astype(self.arch.dtype)

  @property
  def output_VD(self):
    if self.arch.tied and not self.arch.embedding.table:
      raise ValueError(
        "this model has neither an output nor an embedding of tokens in its place:"
        " read its states (method='states'), or give it classes and tied=False"
      )
    return self.embedding_VD if self.arch.tied else self.output_DV.T

  def logits(self, x_BLD):
    head, params = self.arch.head, self.head()
    x_BLD = head.states(params, x_BLD)
    output_DV = whole_along_width(self.output_VD.T, "DV", x_BLD.dtype)
    logits_BLV = jnp.matmul(x_BLD, output_DV, preferred_element_type=jnp.float32)
    return head.logits(params, logits_BLV)
