"""What a Transformer is made of."""

import dataclasses
from typing import Any

from transformer_jax.attention import Core, Variant
from transformer_jax.attention import probe as attention_probe
from transformer_jax.axes import Dims
from transformer_jax.models.ends import Linear, Tokens
from transformer_jax.models.layers import Gelu, RMSNorm
from transformer_jax.models.placements import PreNorm
from transformer_jax.models.support import form
from transformer_jax.positions import PositionalEncoding, probe


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What a Transformer is made of. Every choice is a value.

  encoders, decoders   layers that look both ways, and layers that look back; a model
                       with both attends from decoder to encoder
  prefix               the decoder's coordinates let a prefix be seen whole
  attention            the attention variant
  placement            how the parts of a layer are put together
  embedding, head      what stands below the stacks and above them
  tied                 the output reads with the embedding's own weights
  classes              how many classes the output tells apart instead of tokens; it has
                       weights of its own then
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
  placement: Any = PreNorm()
  embedding: Any = Tokens()
  head: Any = Linear()
  encoders: int = 0
  decoders: int = 0
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
    probe.check(self.position, self.dims)
    attention_probe.check(self.attention, self.dims)
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

  @property
  def outputs(self) -> int:
    """How many things the output tells apart."""
    return self.classes or self.dims.V

  @property
  def decoding(self) -> str:
    """How decoder layers use attention."""
    return "prefix" if self.prefix else "decoder"

  def layer(self, use: str, n: int) -> tuple[PositionalEncoding, Variant]:
    """Returns the encoding and the variant of layer n of a stack."""
    return form(self.position, use).layer(n), form(self.attention, use).layer(n)
