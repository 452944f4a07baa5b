"""Architecture of a Transformer: its sizes and the choice for each of its parts."""

import dataclasses
from typing import Any

from transformer_jax import remat
from transformer_jax.attention import Core, Variant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.attention.mixers import mixer_probe
from transformer_jax.attention.variants import probe as attention_probe
from transformer_jax.axes import Dims, whole
from transformer_jax.batch_part import BatchPart
from transformer_jax.models.architecture_checks import check
from transformer_jax.models.canon import convolutions
from transformer_jax.models.compatibility import form
from transformer_jax.models.embeddings import embeddings
from transformer_jax.models.feature_norms import norms
from transformer_jax.models.feedforward_kinds import feedforwards
from transformer_jax.models.heads import heads
from transformer_jax.models.layers import activations
from transformer_jax.models.residual import placements
from transformer_jax.positions import PositionalEncoding, positions, probe
from transformer_jax.spec import Registry, SpecError
from transformer_jax.spec.former_arguments import explain_arguments

# The parts that may be written as specs, and where their names are registered.
REGISTRIES: dict[str, Registry] = {
  "position": positions,
  "core": cores,
  "attention": attentions,
  "norm": norms,
  "activation": activations,
  "norm_placement": placements,
  "feedforward_kind": feedforwards,
  "convolution": convolutions,
  "embedding": embeddings,
  "head": heads,
}
MISSING: Any = None  # of a required argument; `__post_init__` raises an explanation
DTYPES = ("float32", "bfloat16")
SWITCHES = ("prefix", "tied", "feedforward_bias", "scan")


@explain_arguments(placement="it is called norm_placement")
@dataclasses.dataclass(frozen=True)
class Architecture:
  """Sizes and parts of a Transformer.

  A part is an object, or the spec that a config has for it:

  >>> from transformer_jax.axes import Dims
  >>> dims = Dims(V=256, D=64, H=4, F=256, L=128)
  >>> arch = Architecture(dims, position="rope", attention="gqa(2)", decoders=2)
  >>> arch.attention
  GQA(groups=2, bias=False, clip=0.0)

  dims                 every size
  position             the positional encoding
  core                 how attention is computed
  attention            the attention variant
  norm, activation     of each layer
  norm_placement       where the norms of a layer stand
  feedforward_kind     dense, or experts that tokens choose from
  convolution          none, or canon: convolutions along the text, by place of a layer
  embedding, head      input embedding and output head
  encoders, decoders   layers that attend in both directions, and causal layers; a model
                       with both attends from decoder to encoder
  decoder_dims         sizes of the decoder's layers, where their heads or feed-forward
                       units are not those of the encoder's; None: they are
  prefix               the decoder attends to a prefix in both directions
  tied                 the output uses the embedding's weights
  classes              number of predicted classes, instead of tokens; needs separate
                       output weights, tied=False
  feedforward_bias     projections of feed-forward layers add learned vectors
  dtype                of activations; parameters, norms, softmax and logits are float32
  scan                 one program for all layers
  remat                what layers keep for the backward pass, and do not recompute: a
                       name of `transformer_jax.remat`
  part                 part of a batch that a program computes; None: all of it
  written_out          loops inside of mixers are unrolled, so that operations can be
                       counted

  Raises ValueError where parts or sizes are missing, unknown or do not fit together.
  """

  dims: Dims = MISSING
  position: PositionalEncoding = MISSING
  core: Core = cores.build("auto")
  attention: Variant = Variant()
  norm: Any = norms.build("rmsnorm")
  activation: Any = activations.build("gelu")
  norm_placement: Any = placements.build("pre")
  feedforward_kind: Any = feedforwards.build("dense")
  convolution: Any = convolutions.build("none")
  embedding: Any = embeddings.build("tokens")
  head: Any = heads.build("linear")
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
  remat: str = remat.NONE
  part: BatchPart | None = None
  written_out: bool = False

  def __post_init__(self):
    if not isinstance(self.dims, Dims):
      raise ValueError(
        f"dims is {self.dims!r}; write every size, as in Architecture(Dims(V=256, D=64,"
        " H=4, F=256, L=128), ...)"
      )
    if self.position is None:
      raise ValueError("position is missing; write for example position='rope'")
    for name, registry in REGISTRIES.items():
      object.__setattr__(self, name, _built(name, getattr(self, name), registry))
    self._check_numbers()
    for dims in (self.dims, self.decoder_dims or self.dims):
      probe.check(self.position, dims)
      attention_probe.check(self.attention, dims)
    mixer_probe.check(self.attention)
    check(self)

  def _check_numbers(self) -> None:
    """Raises ValueError for an impossible number of layers, switch, rate or dtype."""
    for name in ("encoders", "decoders"):
      layers = getattr(self, name)
      if not whole(layers, 0):
        raise ValueError(f"{name} is {layers!r}; write a number of layers, as {name}=6")
      object.__setattr__(self, name, int(layers))
    if self.classes is not None and not whole(self.classes, 1):
      raise ValueError(f"classes is {self.classes!r}; write a number, as classes=2")
    for name in SWITCHES:
      if not isinstance(getattr(self, name), bool):
        raise ValueError(f"{name} is {getattr(self, name)!r}; write True or False")
    object.__setattr__(self, "remat", remat.policy_name(self.remat))
    for name in ("dropout", "attention_dropout"):
      rate = getattr(self, name)
      if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise ValueError(f"{name} is {rate!r}; write a number from 0 to below 1")
    if self.dtype not in DTYPES:
      raise ValueError(f"dtype is {self.dtype!r}; write one of {', '.join(DTYPES)}")

  @property
  def of_decoder(self) -> "Architecture":
    """Architecture of the decoder: the same parts, with sizes `decoder_dims`."""
    if self.decoder_dims is None:
      return self
    return dataclasses.replace(self, dims=self.decoder_dims, decoder_dims=None)

  @property
  def outputs(self) -> int:
    """The number of classes, or of tokens in the vocabulary."""
    return self.classes or self.dims.V

  @property
  def reads_batch(self) -> bool:
    """Whether training normalizes by statistics of the whole batch."""
    return any(norm and norm.reads_batch for norm in (self.norm, self.embedding.norm))

  @property
  def decoding(self) -> str:
    """Use of attention in decoder layers."""
    return "prefix" if self.prefix else "decoder"

  def layer(self, use: str, n: int) -> tuple[PositionalEncoding, Variant]:
    """Returns the encoding and the variant of layer n of a stack."""
    variant = form(self.attention, use).layer(n)
    return form(self.position, use).layer(n), self.convolution.variant(variant)


def _built(name: str, part: Any, registry: Registry) -> Any:
  """Returns the object that a part is, or that its spec describes."""
  part = registry.build(part)
  if not isinstance(part, registry.base):
    base = f"{registry.base.__module__}.{registry.base.__qualname__}"
    raise SpecError(
      f"{name} is {part!r}; write one of {', '.join(registry)} as a text, or an object"
      f" that inherits {base}"
    )
  return part
