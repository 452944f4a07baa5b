"""What config.json would say of a model's parts: words for `HFFamily.described`."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from transformer_jax.attention import Mixer, Variant
from transformer_jax.attention.variants.gqa import GQA
from transformer_jax.attention.variants.mla import MLA
from transformer_jax.attention.variants.variant_sum import Sum
from transformer_jax.interop.hf_activations import GATED
from transformer_jax.interop.rotary import SCALINGS
from transformer_jax.models import Architecture
from transformer_jax.models.feedforward_kinds import Experts
from transformer_jax.positions import PositionalEncoding, positions
from transformer_jax.positions.rope import Rope
from transformer_jax.positions.shared import schedule

Words = dict[str, Any]
ROTARY = "rope_theta", "rope_scaling", "partial_rotary_factor"  # words of rotations
OfKind = TypeVar("OfKind")


def parts_of(variant: Variant) -> Iterator[Variant]:
  """Yields a variant, and those that it is made of."""
  yield variant
  inner = getattr(variant, "inner", None)
  below = variant.parts if isinstance(variant, Sum) else (inner,) if inner else ()
  for part in below:
    yield from parts_of(part)


def of_layers(arch: Architecture, kind: type[OfKind]) -> list[OfKind | None]:
  """Returns the part of a class that each layer's attention has, or None.

  The sizes of mixers are written out.
  """
  layers = (parts_of(arch.attention.layer(n)) for n in range(arch.decoders))
  found = [next((p for p in parts if isinstance(p, kind)), None) for parts in layers]
  return [_sized(part, arch) for part in found]


def _sized(part: Any, arch: Architecture) -> Any:
  return part.sized(arch.dims) if isinstance(part, Mixer) else part


def first(found: list[OfKind | None]) -> OfKind | None:
  """Returns the first of a list that is not None, or None."""
  return next((part for part in found if part is not None), None)


def part(arch: Architecture, kind: type[OfKind]) -> OfKind | None:
  """Returns the part of a class of the first layer that has one, or None."""
  return first(of_layers(arch, kind))


def kinds(arch: Architecture, kind: type, has: str, other: str) -> list[str]:
  """Returns a word for each layer: `has` where its attention has a part of a class."""
  return [has if found else other for found in of_layers(arch, kind)]


def words(thing: Any, **fields: str) -> Words:
  """Returns {word: value of the field}, from `field="word"`, of fields that it has."""
  has = [field for field in fields if hasattr(thing, field)]
  return {fields[field]: getattr(thing, field) for field in has}


def sizes(arch: Architecture) -> Words:
  """Returns what Llama and similar decoders say of sizes, heads and norms."""
  dims, grouped = arch.dims, part(arch, GQA)
  return {
    "vocab_size": dims.V,
    "hidden_size": dims.D,
    "intermediate_size": dims.F,
    "num_hidden_layers": arch.decoders,
    "num_attention_heads": dims.H,
    "num_key_value_heads": grouped.groups if grouped else dims.H,
    "head_dim": dims.K,
    "max_position_embeddings": dims.L,
    "rms_norm_eps": getattr(arch.norm, "epsilon", 1e-6),
    "hidden_act": activation(arch, GATED, "silu"),
    "tie_word_embeddings": arch.tied,
    **words(grouped, bias="attention_bias"),
    **rotary(arch),
  }


def without(said: Words, *names: str) -> Words:
  """Returns the words but those of these names."""
  return {word: x for word, x in said.items() if word not in names}


def activation(arch: Architecture, known: Mapping[str, Any], usual: str) -> str:
  """Returns the first name of the activation among those known, or the usual one."""
  return next((name for name, one in known.items() if one == arch.activation), usual)


def encodings(arch: Architecture) -> list[PositionalEncoding]:
  """Returns the positional encoding of each layer."""
  layers = [arch.position.layer(n) for n in range(arch.decoders)]
  return [x.encoding if isinstance(x, schedule.Part) else x for x in layers]


def rotary(arch: Architecture) -> Words:
  """Returns what is said of the first rotary encoding, in the style of all versions."""
  rope = first([x if isinstance(x, Rope) else None for x in encodings(arch)])
  return rotation(rope) if rope else {}


def rotation(rope: Rope) -> Words:
  """Returns what is said of a rotary encoding."""
  said: Words = {"rope_theta": rope.base}
  said |= {"partial_rotary_factor": rope.fraction} if rope.fraction != 1 else {}
  ours = positions.name_of(rope)
  for kind, (name, arguments) in SCALINGS.items():
    if name == ours and arguments:
      scaling = {theirs: getattr(rope, field) for theirs, field in arguments.items()}
      said["rope_scaling"] = {"rope_type": kind, **scaling, **_growth(rope)}
  return said


def _growth(rope: Any) -> Words:
  """Returns what is said of the scale of a YaRN's features and scores, if any."""
  if (getattr(rope, "mscale", 1.0), getattr(rope, "mscale_all", 0.0)) == (1.0, 0.0):
    return {}
  both = {"mscale_all_dim": rope.mscale_all} if rope.mscale_all else {}
  return {"attention_factor": rope.gain({})} | both


def feedforwards(arch: Architecture) -> list[Any]:
  """Returns the kind of feed-forward part of each layer."""
  return [arch.feedforward_kind.layer(n) for n in range(arch.decoders)]


def sparse(arch: Architecture) -> list[bool]:
  """Returns whether each layer has experts."""
  return [isinstance(kind, Experts) for kind in feedforwards(arch)]


def experts(arch: Architecture, **fields: str) -> Words:
  """Returns {word: value of the field} of the first layer of experts, or {}."""
  found = first([x if isinstance(x, Experts) else None for x in feedforwards(arch)])
  return words(found and found.sized(arch.dims), **fields)


def latent(arch: Architecture) -> Words:
  """Returns what DeepSeek's models say of latent attention; {} where there is none."""
  said = words(
    part(arch, MLA),
    latent="kv_lora_rank", part="qk_rope_head_dim", value="v_head_dim",
    queries="q_lora_rank",
  )  # fmt: skip
  if not said:
    return {}
  said["v_head_dim"] = said["v_head_dim"] or arch.dims.K
  said["q_lora_rank"] = said["q_lora_rank"] or None
  return said | {
    "qk_nope_head_dim": arch.dims.K,
    "num_key_value_heads": arch.dims.H,
  }


def many(arch: Architecture) -> Words:
  """Returns the number of shared experts: how many times as wide as one they are."""
  said = experts(arch, shared="shared", width="width")
  if not said:
    return {}
  return {"n_shared_experts": said["shared"] // said["width"]}
