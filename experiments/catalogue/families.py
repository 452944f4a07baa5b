"""The page of HuggingFace model families that interop reads and writes."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.catalogue.parts import paper, render, table
from transformer_jax import interop
from transformer_jax.attention import attentions
from transformer_jax.attention.variants.variant_sum import Sum
from transformer_jax.interop.harmless import REASONS
from transformer_jax.interop.hf_activations import ACTIVATIONS, GATED
from transformer_jax.interop.hf_config import HFConfig
from transformer_jax.interop.rotary import SCALINGS
from transformer_jax.models import Architecture
from transformer_jax.models.feature_norms import norms
from transformer_jax.models.feedforward_kinds import feedforwards
from transformer_jax.models.layers import activations
from transformer_jax.models.residual import placements
from transformer_jax.positions import positions
from transformer_jax.spec import Registry

RECORDED = Path(__file__).parents[2] / "third_party" / "transformers" / "configs.json"
# Keys that a family requires besides its defaults.
EXAMPLES: dict[str, dict[str, Any]] = {
  "deberta-v2": dict(
    relative_attention=True, share_att_key=True, position_biased_input=False,
    pos_att_type=["p2c", "c2p"],
  ),
}  # fmt: skip
# Values that many families serve, and their names on the page.
LISTS = {
  tuple(ACTIVATIONS): "the plain ones below",
  tuple(GATED): "the gated ones below",
  tuple(SCALINGS): "those below",
}


def page() -> str:
  """Returns the page of families."""
  configs = json.loads(RECORDED.read_text("utf-8"))
  forms = json.loads(RECORDED.with_name("forms.json").read_text("utf-8"))
  whole = {config["model_type"] for config in configs.values()}
  for form in forms.values():  # the first form of a family writes, or fills in
    kind = form["config"]["model_type"]
    if kind not in whole:
      configs.setdefault(kind, form["config"])
  header = ["`model_type`", "paper", "compared with", "layers", "positions"]
  header += ["attention", "norms", "feed-forward"]
  cases = sorted(configs, key=lambda case: (configs[case]["model_type"], case))
  kinds = (
    [f"`{theirs}`", f"`{ours}`", ", ".join(f"`{word}`" for word in words) or "none"]
    for theirs, (ours, words) in SCALINGS.items()
  )
  return render(
    "interop.md",
    count=len(interop.families),
    plain=", ".join(f"`{name}`" for name in ACTIVATIONS),
    gated=", ".join(f"`{name}`" for name in GATED),
    families=table(header, (line(configs[case]) for case in cases)),
    served=table(["`model_type`", "words and the values served", "others"], served()),
    classes=table(["classes", "of"], classes()),
    harmless=table(["words", "say"], harmless()),
    scalings=table(["`rope_type`", "encoding", "words read"], kinds),
  )


def line(config: dict[str, Any]) -> list[str]:
  """Returns a recorded model's row of the first table."""
  kind, arch = config["model_type"], interop.architecture(config)
  stacks = {"encoder": arch.encoders, "decoder": arch.decoders}
  return [
    f"`{kind}`",
    paper(interop.families[kind]()),
    f"`{config['architectures'][0]}`",
    " and ".join(name for name, layers in stacks.items() if layers),
    spec(positions, arch.position),
    spec(attentions, arch.attention),
    f"{spec(placements, arch.norm_placement)}, {spec(norms, arch.norm)}",
    feedforward(arch),
  ]


def feedforward(arch: Architecture) -> str:
  """Returns the activation and the experts of a model's feed-forward parts."""
  if not arch.dims.F:
    return "none"
  kind = spec(feedforwards, arch.feedforward_kind)
  parts = [spec(activations, arch.activation) + " with biases" * arch.feedforward_bias]
  return ", ".join(parts + ([] if kind == "`dense`" else [kind]))


def spec(registry: Registry, thing: Any) -> str:
  """Returns an object's spec: its name and changed arguments, without numbers."""
  if isinstance(thing, Sum):
    return " + ".join(spec(registry, part) for part in thing.parts)
  name = registry.name_of(thing)
  given = []
  for field in dataclasses.fields(thing):
    value = getattr(thing, field.name)
    layers = isinstance(value, tuple) and isinstance(value[0], registry.base)
    if layers:  # some of which are alike
      kinds = dict.fromkeys(spec(registry, part).replace("`", "") for part in value)
      given.append(f"({', '.join(kinds)})")
    elif isinstance(value, registry.base):
      given.append(spec(registry, value).replace("`", ""))
    elif isinstance(value, (bool, str)) and value != field.default:
      given.append(f"{field.name}={value!r}")
  return f"`{name}({', '.join(given)})`" if given else f"`{name}`"


def served() -> Iterator[list[str]]:
  """Yields each family, its keys with a list of served values, and its other keys.

  These are the keys that its code reads of an otherwise empty config.json.
  """
  for kind in sorted(interop.families):
    known: dict[str, str] = {}
    family = interop.families[kind]()
    config: dict[str, Any] = {"model_type": kind, **EXAMPLES.get(kind, {})}
    words = watched(family.words(config).config, known)
    family.parts(words)
    family.decoder_dims(words)  # and those of the encoder
    others = sorted(words.read - known.keys() - {"model_type", "architectures"})
    values = "; ".join(f"`{word}`: {value}" for word, value in known.items())
    yield [f"`{kind}`", values, ", ".join(f"`{word}`" for word in others)]


def classes() -> Iterator[list[str]]:
  """Yields the endings of classes that are read, and the families that have them."""
  kinds: dict[tuple[str, ...], list[str]] = {}
  for kind in sorted(interop.families):
    for output in interop.families[kind]().outputs:
      kinds.setdefault(output.endings, []).append(f"`{kind}`")
  for endings, names in kinds.items():
    yield [", ".join(f"`{ending}`" for ending in endings), ", ".join(names)]


def harmless() -> Iterator[list[str]]:
  """Yields keys that change no number, and the reasons."""
  for reason, words in REASONS.items():
    yield [", ".join(f"`{word}`" for word in words.split()), reason]
  for kind in sorted(interop.families):
    words = interop.families[kind]().harmless.split()
    if words:
      yield [", ".join(f"`{word}`" for word in words), f"nothing in `{kind}`"]


def said(value: Any) -> str:
  """Returns a value as config.json writes it, without quotes."""
  return json.dumps(value).strip('"')


def watched(config: dict[str, Any], known: dict[str, str]) -> HFConfig:
  """Returns a config that records the keys that are read, and their choices."""

  class Watched(HFConfig):
    def choose(self, word, choices, default=None):
      known[word] = LISTS.get(tuple(choices)) or ", ".join(map(said, choices))
      return super().choose(word, choices, default)

    def same(self, word, other):
      known[word] = f"that of `{other}`"
      super().same(word, other)

  return Watched(config)
