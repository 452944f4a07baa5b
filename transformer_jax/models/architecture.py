"""Architecture of a Transformer: its sizes and the choice for each of its parts."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from transformer_jax import remat
from transformer_jax.attention import Core, Mixer, Variant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.attention.mixers import mixer_probe
from transformer_jax.attention.variants import probe as attention_probe
from transformer_jax.axes import Dims, whole
from transformer_jax.batch_part import BatchPart
from transformer_jax.models.canon import FEEDFORWARD, QKV, UNITS, convolutions
from transformer_jax.models.compatibility import form
from transformer_jax.models.embeddings import embeddings
from transformer_jax.models.feature_norms import norms
from transformer_jax.models.feedforward_kinds import feedforwards
from transformer_jax.models.heads import heads
from transformer_jax.models.layers import activations
from transformer_jax.models.residual import placements
from transformer_jax.positions import PositionalEncoding, positions, probe
from transformer_jax.positions.shared.schedule import encode_alike
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
    self._check_stacks()
    self._check_heads()
    self._check_mixers()
    self._check_convolution()
    self._check_carry()
    self._check_experts()
    if self.classes and self.tied:
      raise ValueError(
        "an output of classes has no tokens whose embedding it could read; write"
        " tied=False"
      )
    if self.head.pooled and self.decoders:
      raise ValueError(
        "a decoder's tokens have not read what follows them, so that their mean is no"
        " output for each of them; write head=linear, or kind=encoder"
      )
    if self.reads_batch and self.decoders:
      raise ValueError(
        "batchnorm in a causal decoder would tell a token of later ones by the batch's"
        " statistics, which decoding does not have; write norm=layernorm, or"
        " kind=encoder"
      )

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

  def _sizes_of_stacks(self) -> tuple[tuple[int, Dims], ...]:
    """Returns the layers and sizes of both stacks."""
    of_decoder = self.decoder_dims or self.dims
    return (self.encoders, self.dims), (self.decoders, of_decoder)

  def _check_heads(self) -> None:
    """Raises ValueError where the attention of a layer does not fit its sizes."""
    for layers, dims in self._sizes_of_stacks():
      for n in range(layers):
        variant = self.attention.layer(n)
        fits = (
          variant.check if isinstance(variant, Mixer) else variant.projections().fit
        )
        try:
          fits(dims)
        except ValueError as error:
          raise ValueError(f"attention={variant.name}: {error}") from error

  def _check_mixers(self) -> None:
    """Raises ValueError for an encoding that acts in attention, where there is none."""
    layers = [self.attention.layer(n) for n in range(self.decoders)]
    alone = layers and all(layer.mixer for layer in layers)
    idle = type(self.position) is not PositionalEncoding
    if alone and idle and not self.position.overrides("embed"):
      raise ValueError(
        f"position={self.position.name}: {layers[0].name} reads no positional encoding,"
        " and no other layer does; write position=none, or attention in some layers, as"
        f" attention=alternate({layers[0].name}, multihead, 4)"
      )

  def _check_carry(self) -> None:
    """Raises ValueError where a layer reads what no earlier one hands on."""
    for layers in (self.encoders, self.decoders):
      writers: dict[str, int] = {}
      for n in range(layers):
        variant = self.attention.layer(n)
        if variant.kv_from:
          self._check_reader(variant, n, writers.get(variant.kv_from))
        if variant.kv_as:
          writers[variant.kv_as] = n
        if variant.reads_tokens and not self.embedding.table:
          raise ValueError(
            f"attention={variant.name} reads the ids of tokens, and this model's"
            " embedding reads none; use another attention, or embedding=tokens"
          )

  def _check_reader(self, variant: Variant, n: int, writer: int | None) -> None:
    """Raises ValueError for a layer whose keys are written nowhere, or turned apart."""
    if writer is None:
      raise ValueError(
        f"attention={variant.name}: layer {n} reads the keys and values"
        f" '{variant.kv_from}', which no earlier layer writes; let an earlier one"
        " write them"
      )
    own, other = (self.position.layer(layer) for layer in (n, writer))
    turned = own.overrides("rotate") or own.overrides("transform_qk")
    alike = encode_alike(own, other, self.dims)
    if not alike or (turned and own.per_layer):
      raise ValueError(
        f"attention={variant.name}: layer {n} reads the keys of layer {writer}, which"
        f" {self.position.name} encodes in another way; use one encoding for both, as"
        " position=rope"
      )

  def _check_convolution(self) -> None:
    """Raises ValueError for a convolution at a place that the layers do not have."""
    places = self.convolution.places
    for reason in self._idle_places() if places else ():
      raise ValueError(f"convolution={self.convolution.name}('{places}'): {reason}")

  def _idle_places(self) -> Iterator[str]:
    """Yields why a convolution along the text does not fit the layers."""
    if self.encoders or self.prefix:
      yield (
        "it reads the tokens before each token, and an encoder or a prefix looks both"
        " ways; use a decoder alone, or convolution=none"
      )
      return
    layers, convolution = range(self.decoders), self.convolution
    kinds = [self.feedforward_kind.layer(n) for n in layers]
    experts = any(kind.experts for kind in kinds)
    if QKV in convolution.places:
      try:
        own = [convolution.variant(self.attention.layer(n)).convolves for n in layers]
      except SpecError as error:
        yield f"place {QKV}: {error}; or leave {QKV} out"
        return
      if not any(own):
        yield f"no layer has attention for place {QKV}; leave {QKV} out"
    if not (self.dims.F or experts) and {FEEDFORWARD, UNITS} & {*convolution.places}:
      yield f"there is no feed-forward part; leave {FEEDFORWARD} and {UNITS} out"
    if experts and UNITS in convolution.places:
      yield f"experts have no convolutions on their hidden units; leave {UNITS} out"

  def _check_experts(self) -> None:
    """Raises ValueError for experts without hidden units."""
    for layers, dims in self._sizes_of_stacks():
      kinds = [self.feedforward_kind.layer(n) for n in range(layers)]
      if not dims.F and any(kind.experts and not kind.width for kind in kinds):
        raise ValueError(
          "feedforward_kind: experts without hidden units; write width=64 in experts,"
          " or F above 0 (model.feedforward in a config)"
        )

  def _check_stacks(self) -> None:
    """Raises ValueError without layers, or where a decoder cannot read the encoder."""
    if not (self.encoders or self.decoders):
      raise ValueError("a model without layers; write decoders=6, or encoders=6")
    if self.prefix and not self.decoders:
      raise ValueError("prefix=True is of a decoder's text; write decoders=6 too")
    if self.decoder_dims is None:
      return
    if not (self.encoders and self.decoders):
      raise ValueError(
        "a model of one stack has one set of sizes; leave those of the decoder out"
      )
    for letter in "VDL":
      here, there = (getattr(x, letter) for x in (self.decoder_dims, self.dims))
      if here != there:
        raise ValueError(
          f"the decoder's {letter} is {here} and the encoder's {there}; stacks may"
          " differ in their heads (H, K) and feed-forward units (F) alone"
        )

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
