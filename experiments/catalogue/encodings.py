"""The page of positional encodings."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.catalogue.parts import (
  LAYERS,
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
from transformer_jax.models.compatibility import USES, refusal
from transformer_jax.positions import PositionalEncoding, coords, positions

FAR = 2**20  # a position past every length from which a temperature may rise
ACTS = {  # descriptions of the hooks of encodings
  "assign_positions": "positions",
  "embed": "embeddings",
  "token_data": "reads tokens",
  "temperature": "temperature",
  "rotate": "queries and keys",
  "transform_qk": "queries and keys",
  "bias": "bias",
  "mask": "mask",
  "score": "scores",
  "values": "values",
  "full_scores": "rows of scores",
}


def page() -> str:
  """Returns the page of positional encodings."""
  encodings = {name: positions.build(name) for name in positions}
  header = ["name", "what it does", "paper", "acts on", "relative"]
  header += ["past the training length", *SIZES, "step"]
  reasons: list[str] = []
  cells = [
    [f"`{name}`", *(encoding_cell(encoding, use, reasons) for use in USES)]
    for name, encoding in encodings.items()
  ]
  return render(
    "positions.md",
    measured_at=measured_at(),
    thumbnails=thumbnails(encodings),
    entries=entries(encodings, facts),
    encodings=table(header, (line(*item) for item in encodings.items())),
    matrix=table(["name", *USES], cells),
    reasons=reasons,
  )


def line(name: str, encoding: PositionalEncoding) -> list[str]:
  """Returns an encoding's row of the first table."""
  return [
    f"`{name}`",
    purpose(encoding),
    paper(encoding),
    acts_on(encoding),
    "yes" if encoding.relative else "no",
    encoding.extrapolation + (", whole text" if encoding.needs_full_text else ""),
    *(f"{parameters(encoding, size):,}" for size in SIZES),
    factor(name, "multihead"),
  ]


def facts(encoding: PositionalEncoding) -> str:
  """Returns an encoding's properties as one line."""
  kind = "relative" if encoding.relative else "absolute"
  past = encoding.extrapolation + ", whole text" * encoding.needs_full_text
  return f"*Acts on*: {acts_on(encoding)}. *{kind}*; past the training length: {past}."


def acts_on(encoding: PositionalEncoding) -> str:
  """Returns the places where an encoding acts, from the hooks that it uses."""
  places = [
    where
    for hook, where in ACTS.items()
    if encoding.overrides(hook) and not is_idle(encoding, hook)
  ]
  return ", ".join(dict.fromkeys(places)) or "nothing"


def is_idle(encoding: PositionalEncoding, hook: str) -> bool:
  """Returns whether a hook that is defined changes nothing with these arguments."""
  dims, key = SIZES["small"], jax.random.key(0)
  encoding = encoding.layer(0)
  if hook == "token_data":
    x_BLD = jnp.zeros((1, 2, dims.D))
    x_BLHK = jnp.zeros((1, 2, dims.H, dims.K))

    def make():
      return encoding.token_data(encoding.init(key, dims), x_BLD, x_BLHK)

    return not jax.eval_shape(make)
  if hook == "temperature":
    at = coords.consecutive(1, 2, FAR)
    params = encoding.init(key, dims) | encoding.constants(dims)
    return bool(np.all(np.asarray(encoding.temperature(params, at)) == 1))
  return hook == "score" and encoding.overrides("full_scores")  # which has them too


def parameters(encoding: PositionalEncoding, size: str) -> int:
  """Returns an encoding's number of parameters in a decoder of a named size."""
  dims, layers = SIZES[size], range(LAYERS[size])
  shapes = jax.eval_shape(lambda: encoding.init(jax.random.key(0), dims))
  count = 0
  for name, x in shapes.items():
    uses = sum(encoding.layer(n).in_layer(name) for n in layers)
    count += math.prod(x.shape) * (uses if uses or encoding.in_layer(name) else 1)
  return count


def encoding_cell(encoding: PositionalEncoding, use: str, reasons: list[str]) -> str:
  """Returns the cores that serve an encoding in one use of attention, or the reason."""
  if use == "cross" and USES[use](encoding) == PositionalEncoding():
    return "nothing"
  return cell(lambda core, mode: refusal(encoding, core, use, mode), use, reasons)
