"""The page of attention variants and cores."""

import math
from collections.abc import Sequence
from typing import Any

import jax

from experiments.catalogue.parts import (
  SIZES,
  cell,
  entries,
  paper,
  purpose,
  render,
  table,
  thumbnails,
)
from experiments.catalogue.step_times import factor, measured_at
from transformer_jax.attention import Mixer, Variant, attentions
from transformer_jax.attention.cores import Core, cores
from transformer_jax.axes import Dims
from transformer_jax.models.compatibility import USES, refusal
from transformer_jax.positions import PositionalEncoding

MIXERS = ["name", "what it does", "paper", "parameters", "numbers of a text in a cache"]
MIXERS += ["step"]
CHANGES = {  # descriptions of the hooks of variants
  "projections": "projections",
  "share": "keys and values, by layer",
  "taps": "queries, keys, values",
  "condition": "queries and keys",
  "scale": "scale",
  "temperature": "queries",
  "dot": "scores",
  "score": "scores",
  "logits": "scores",
  "mask": "mask",
  "select": "mask",
  "sink_logit": "weights",
  "pointwise": "weights",
  "weigh": "weights",
  "weigh_at": "weights",
  "features": "weights",
  "values": "values",
  "mixed": "values",
  "own_value": "output",
  "output": "output",
}


def page() -> str:
  """Returns the page of attention variants and cores."""
  every = {name: attentions.build(name) for name in attentions}
  built = {name: variant for name, variant in every.items() if not variant.mixer}
  mixers = {name: variant for name, variant in every.items() if variant.mixer}
  header = ["name", "what it does", "paper", "changes", "own parameters", "step"]
  reasons: list[str] = []
  cells = [
    [f"`{name}`", *(variant_cell(variant, use, reasons) for use in USES)]
    for name, variant in built.items()
  ]
  lines = (
    [f"`{n}`", purpose(v), paper(v), changes(v), f"{own_parameters(v):,}", step(n)]
    for n, v in built.items()
  )
  kinds = ([f"`{name}`", purpose(cores.build(name))] for name in cores)
  return render(
    "attention.md",
    measured_at=measured_at(),
    thumbnails=thumbnails(built),
    entries=entries(built, facts),
    variants=table(header, lines),
    mixers=table(MIXERS, map(mixer_line, mixers.items())),
    cores=table(["name", "what it does"], kinds),
    matrix=table(["name", *USES], cells),
    reasons=reasons,
  )


def mixer_line(named: tuple[str, Variant]) -> list[str]:
  """Returns the cells of a mixer."""
  name, mixer = named
  assert isinstance(mixer, Mixer)
  dims = SIZES["base"]
  state = mixer.cache(dims, B=1, dtype="float32")
  kept = sum(x.size for x in jax.tree.leaves((state.state, state.recent.inputs)))
  count = _count([mixer], dims)
  numbers = f"{count:,}", f"{kept:,}", step(name)
  return [f"`{name}`", purpose(mixer), paper(mixer), *numbers]


def step(name: str) -> str:
  """Returns a step's time over that of plain attention, without an encoding."""
  return factor("none", name)


def facts(variant: Variant) -> str:
  """Returns a variant's properties as one line."""
  return (
    f"*Changes*: {changes(variant)}. *Own parameters*: {own_parameters(variant):,}."
  )


def changes(variant: Variant) -> str:
  """Returns a description of a variant's changes, from its overridden hooks."""
  changed = [change for hook, change in CHANGES.items() if variant.overrides(hook)]
  changed += ["layers"] if type(variant).layer is not Variant.layer else []
  return ", ".join(dict.fromkeys(changed)) or "nothing"


def own_parameters(variant: Variant) -> int:
  """Returns a variant's number of added parameters in one layer of the base size."""
  dims = SIZES["base"]
  usual = Variant()
  ours = _count([variant.projections(), variant], dims)
  return ours - _count([usual.projections(), usual], dims)


def _count(parts: Sequence[Any], dims: Dims) -> int:
  """Returns the number of parameters of parts with `weights` and `init`."""
  shapes = [shape for part in parts for shape, _ in part.weights(dims).values()]
  for part in parts:
    made = jax.eval_shape(lambda part=part: part.init(jax.random.key(0), dims))
    shapes += [x.shape for x in made.values()]
  return sum(map(math.prod, shapes))


def variant_cell(variant: Variant, use: str, reasons: list[str]) -> str:
  """Returns the cores that serve a variant in one use of attention, or the reason."""

  def reason(core: Core, mode: str) -> str | None:
    return refusal(PositionalEncoding(), core, use, mode, variant)

  return cell(reason, use, reasons)
