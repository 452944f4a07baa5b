"""The page of attention variants and cores."""

import math

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
from transformer_jax.attention import Variant, attentions
from transformer_jax.attention.cores import Core, cores
from transformer_jax.models.compatibility import USES, refusal
from transformer_jax.positions import PositionalEncoding

CHANGES = {  # descriptions of the hooks of variants
  "projections": "projections",
  "condition": "queries and keys",
  "scale": "scale",
  "dot": "scores",
  "logits": "scores",
  "mask": "mask",
  "sink_logit": "weights",
  "pointwise": "weights",
  "weigh": "weights",
  "features": "weights",
  "values": "values",
  "mixed": "values",
  "output": "output",
}


def page() -> str:
  """Returns the page of attention variants and cores."""
  built = {name: attentions.build(name) for name in attentions}
  header = ["name", "what it does", "paper", "changes", "own parameters"]
  reasons: list[str] = []
  cells = [
    [f"`{name}`", *(variant_cell(variant, use, reasons) for use in USES)]
    for name, variant in built.items()
  ]
  lines = (
    [f"`{n}`", purpose(v), paper(v), changes(v), f"{own_parameters(v):,}"]
    for n, v in built.items()
  )
  kinds = ([f"`{name}`", purpose(cores.build(name))] for name in cores)
  return render(
    "attention.md",
    thumbnails=thumbnails(built),
    entries=entries(built, facts),
    variants=table(header, lines),
    cores=table(["name", "what it does"], kinds),
    matrix=table(["name", *USES], cells),
    reasons=reasons,
  )


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
  dims, count = SIZES["base"], 0
  for one, sign in ((variant, 1), (Variant(), -1)):
    projections = one.projections()
    shapes = [shape for shape, _ in projections.weights(dims).values()]
    shapes += [shape for shape, _ in one.weights(dims).values()]
    for init in (projections.init, one.init):
      made = jax.eval_shape(lambda init=init: init(jax.random.key(0), dims))
      shapes += [x.shape for x in made.values()]
    count += sign * sum(map(math.prod, shapes))
  return count


def variant_cell(variant: Variant, use: str, reasons: list[str]) -> str:
  """Returns the cores that serve a variant in one use of attention, or the reason."""

  def reason(core: Core, mode: str) -> str | None:
    return refusal(PositionalEncoding(), core, use, mode, variant)

  return cell(reason, use, reasons)
