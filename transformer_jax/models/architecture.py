"""Architecture: all choices that define a Transformer."""

import dataclasses
from typing import Any

from transformer_jax.attention import Core, Variant
from transformer_jax.attention.variants import probe as attention_probe
from transformer_jax.axes import Dims
from transformer_jax.models.compatibility import form
from transformer_jax.models.embeddings import TokenEmbedding
from transformer_jax.models.heads import LinearHead
from transformer_jax.models.layers import Gelu, RMSNorm
from transformer_jax.models.residual import PreNorm
from transformer_jax.positions import PositionalEncoding, probe


@dataclasses.dataclass(frozen=True)
class Architecture:
  """All choices that define a Transformer; each one is a value.

  dims                 every size
  encoders, decoders   numbers of bidirectional and of causal layers; a model with both
                       has cross-attention
  decoder_dims         sizes of the decoder's layers, where their heads or feed-forward
                       units are not those of the encoder's; None: they are
  prefix               the decoder attends to a prefix in both directions
  attention            the attention variant
  norm_placement       residual connections and where the norms stand
  embedding, head      of the input and of the output
  tied                 the output embedding is that of the input
  classes              number of classes, in place of tokens, of an output with its own
                       weights
  feedforward_bias     projections of feed-forward layers add learned vectors
  dtype                of activations; parameters, norms, softmax and logits are float32
  scan, remat          one program for all layers; recompute layers in the backward pass
  axis                 name of the axis of devices that share a batch inside `pmap`
  """

  dims: Dims
  position: PositionalEncoding
  core: Core
  attention: Variant = Variant()
  norm: Any = RMSNorm()
  activation: Any = Gelu()
  norm_placement: Any = PreNorm()
  embedding: Any = TokenEmbedding()
  head: Any = LinearHead()
  encoders: int = 0
  decoders: int = 0
  decoder_dims: Dims | None = None
  prefix: bool = False
  dropout: float = 0.0
  attention_dropout: float = 0.0
  tied: bool = True
  classes: int | None = None
  feedforward_bias: bool = False
  dtype: str = "float32"
  scan: bool = False
  remat: bool = False
  axis: str | None = None

  def __post_init__(self):
    for dims in (self.dims, self.decoder_dims or self.dims):
      probe.check(self.position, dims)
      attention_probe.check(self.attention, dims)
    self._check_stacks()
    if self.classes and self.tied:
      raise ValueError(
        "an output of classes has no tokens whose embedding it could read; write"
        " tied=False"
      )
    if self.head.whole and self.decoders:
      raise ValueError(
        "a decoder's tokens have not read what follows them, so that their mean is no"
        " output for each of them; write head=linear, or kind=encoder"
      )

  def _check_stacks(self) -> None:
    """Raises ValueError where a decoder cannot read what the encoder makes."""
    if self.decoder_dims is None:
      return
    if not (self.encoders and self.decoders):
      raise ValueError(
        "a model of one stack has one set of sizes; leave those of the decoder out"
      )
    for letter in "VDLN":
      here, there = (getattr(x, letter) for x in (self.decoder_dims, self.dims))
      if here != there:
        raise ValueError(
          f"the decoder's {letter} is {here} and the encoder's {there}; stacks may"
          " differ in their heads (H, K) and feed-forward units (F) alone"
        )

  @property
  def of_decoder(self) -> "Architecture":
    """Architecture of the decoder: the same choices, with its own sizes."""
    if self.decoder_dims is None:
      return self
    return dataclasses.replace(self, dims=self.decoder_dims, decoder_dims=None)

  @property
  def outputs(self) -> int:
    """Number of logits: classes, or the size of the vocabulary."""
    return self.classes or self.dims.V

  @property
  def decoding(self) -> str:
    """Use of attention in decoder layers."""
    return "prefix" if self.prefix else "decoder"

  def layer(self, use: str, n: int) -> tuple[PositionalEncoding, Variant]:
    """Returns the encoding and the variant of layer n of a stack."""
    return form(self.position, use).layer(n), form(self.attention, use).layer(n)
