"""What does not fit together in an architecture: refusals in one sentence."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from transformer_jax.attention import Mixer, Variant
from transformer_jax.axes import Dims
from transformer_jax.models.canon import FEEDFORWARD, QKV, UNITS
from transformer_jax.positions import PositionalEncoding
from transformer_jax.positions.shared.schedule import encode_alike
from transformer_jax.spec import SpecError

if TYPE_CHECKING:
  from transformer_jax.models.architecture import Architecture


def check(arch: "Architecture") -> None:
  """Raises ValueError where parts or sizes do not fit together."""
  for one in (_stacks, _heads, _mixers, _convolution, _carry, _experts, _outputs):
    one(arch)


def _outputs(arch: "Architecture") -> None:
  """Raises ValueError for outputs, or norms of a batch, that the model cannot have."""
  if arch.classes and arch.tied:
    raise ValueError(
      "an output of classes has no tokens whose embedding it could read; write"
      " tied=False"
    )
  if arch.head.pooled and arch.decoders:
    raise ValueError(
      "a decoder's tokens have not read what follows them, so that their mean is no"
      " output for each of them; write head=linear, or kind=encoder"
    )
  if arch.reads_batch and arch.decoders:
    raise ValueError(
      "batchnorm in a causal decoder would tell a token of later ones by the batch's"
      " statistics, which decoding does not have; write norm=layernorm, or"
      " kind=encoder"
    )


def _sizes_of_stacks(arch: "Architecture") -> tuple[tuple[int, Dims], ...]:
  """Returns the layers and sizes of both stacks."""
  of_decoder = arch.decoder_dims or arch.dims
  return (arch.encoders, arch.dims), (arch.decoders, of_decoder)


def _heads(arch: "Architecture") -> None:
  """Raises ValueError where the attention of a layer does not fit its sizes."""
  for layers, dims in _sizes_of_stacks(arch):
    for n in range(layers):
      variant = arch.attention.layer(n)
      fits = variant.check if isinstance(variant, Mixer) else variant.projections().fit
      try:
        fits(dims)
      except ValueError as error:
        raise ValueError(f"attention={variant.name}: {error}") from error


def _mixers(arch: "Architecture") -> None:
  """Raises ValueError for an encoding that acts in attention, where there is none."""
  layers = [arch.attention.layer(n) for n in range(arch.decoders)]
  alone = layers and all(layer.mixer for layer in layers)
  idle = type(arch.position) is not PositionalEncoding
  if alone and idle and not arch.position.overrides("embed"):
    raise ValueError(
      f"position={arch.position.name}: {layers[0].name} reads no positional encoding,"
      " and no other layer does; write position=none, or attention in some layers, as"
      f" attention=alternate({layers[0].name}, multihead, 4)"
    )


def _carry(arch: "Architecture") -> None:
  """Raises ValueError where a layer reads what no earlier one hands on."""
  for layers in (arch.encoders, arch.decoders):
    writers: dict[str, int] = {}
    for n in range(layers):
      variant = arch.attention.layer(n)
      if variant.kv_from:
        _reader(arch, variant, n, writers.get(variant.kv_from))
      if variant.kv_as:
        writers[variant.kv_as] = n
      if variant.reads_tokens and not arch.embedding.table:
        raise ValueError(
          f"attention={variant.name} reads the ids of tokens, and this model's"
          " embedding reads none; use another attention, or embedding=tokens"
        )


def _reader(arch: "Architecture", variant: Variant, n: int, writer: int | None) -> None:
  """Raises ValueError for a layer whose keys are written nowhere, or turned apart."""
  if writer is None:
    raise ValueError(
      f"attention={variant.name}: layer {n} reads the keys and values"
      f" '{variant.kv_from}', which no earlier layer writes; let an earlier one"
      " write them"
    )
  own, other = (arch.position.layer(layer) for layer in (n, writer))
  turned = own.overrides("rotate") or own.overrides("transform_qk")
  alike = encode_alike(own, other, arch.dims)
  if not alike or (turned and own.per_layer):
    raise ValueError(
      f"attention={variant.name}: layer {n} reads the keys of layer {writer}, which"
      f" {arch.position.name} encodes in another way; use one encoding for both, as"
      " position=rope"
    )


def _convolution(arch: "Architecture") -> None:
  """Raises ValueError for a convolution at a place that the layers do not have."""
  places = arch.convolution.places
  for reason in _idle_places(arch) if places else ():
    raise ValueError(f"convolution={arch.convolution.name}('{places}'): {reason}")


def _idle_places(arch: "Architecture") -> Iterator[str]:
  """Yields why a convolution along the text does not fit the layers."""
  if arch.encoders or arch.prefix:
    yield (
      "it reads the tokens before each token, and an encoder or a prefix looks both"
      " ways; use a decoder alone, or convolution=none"
    )
    return
  layers, convolution = range(arch.decoders), arch.convolution
  kinds = [arch.feedforward_kind.layer(n) for n in layers]
  experts = any(kind.experts for kind in kinds)
  if QKV in convolution.places:
    try:
      own = [convolution.variant(arch.attention.layer(n)).convolves for n in layers]
    except SpecError as error:
      yield f"place {QKV}: {error}; or leave {QKV} out"
      return
    if not any(own):
      yield f"no layer has attention for place {QKV}; leave {QKV} out"
  if not (arch.dims.F or experts) and {FEEDFORWARD, UNITS} & {*convolution.places}:
    yield f"there is no feed-forward part; leave {FEEDFORWARD} and {UNITS} out"
  if experts and UNITS in convolution.places:
    yield f"experts have no convolutions on their hidden units; leave {UNITS} out"


def _experts(arch: "Architecture") -> None:
  """Raises ValueError for experts without hidden units."""
  for layers, dims in _sizes_of_stacks(arch):
    kinds = [arch.feedforward_kind.layer(n) for n in range(layers)]
    if not dims.F and any(kind.experts and not kind.width for kind in kinds):
      raise ValueError(
        "feedforward_kind: experts without hidden units; write width=64 in experts,"
        " or F above 0 (model.feedforward in a config)"
      )


def _stacks(arch: "Architecture") -> None:
  """Raises ValueError without layers, or where a decoder cannot read the encoder."""
  if not (arch.encoders or arch.decoders):
    raise ValueError("a model without layers; write decoders=6, or encoders=6")
  if arch.prefix and not arch.decoders:
    raise ValueError("prefix=True is of a decoder's text; write decoders=6 too")
  if arch.decoder_dims is None:
    return
  if not (arch.encoders and arch.decoders):
    raise ValueError(
      "a model of one stack has one set of sizes; leave those of the decoder out"
    )
  for letter in "VDL":
    here, there = (getattr(x, letter) for x in (arch.decoder_dims, arch.dims))
    if here != there:
      raise ValueError(
        f"the decoder's {letter} is {here} and the encoder's {there}; stacks may"
        " differ in their heads (H, K) and feed-forward units (F) alone"
      )
