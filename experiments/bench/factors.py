"""Time of a training step with each encoding and variant, over a plain one's."""

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.bench.groups import Contender, ContenderGroup
from experiments.bench.measure import Patience, ratio
from experiments.bench.worker import ROOT
from transformer_jax.attention import attentions
from transformer_jax.positions import positions

RAW = ROOT / "docs" / "results" / "benchmarks.json"
# Two layers on texts of 256 tokens, one core: the attention is half of a plain step.
SIZES = {"B": 4, "L": 256, "V": 512, "D": 128, "H": 4, "N": 2}
PLAIN = "none multihead"
AT_ONCE = 8  # options in a group, beside a plain step


def factors(quick: bool, encodings: Sequence[str] = ()) -> Iterator[ContenderGroup]:
  """A step with each encoding, and without one with each attention variant."""
  names = [f"{name} multihead" for name in encodings or sorted(positions)]
  names += [] if encodings else [f"none {name}" for name in sorted(attentions)]
  names = [name for name in names if name != PLAIN][: 3 if quick else None]
  for start in range(0, len(names), AT_ONCE):
    part = names[start : start + AT_ONCE]
    contenders = tuple(map(_contender, (PLAIN, *part)))
    patience = Patience(seconds=3, least=5, most=15)
    yield ContenderGroup(f"{part[0]} to {part[-1]}", contenders, patience, SIZES)


def _contender(name: str) -> Contender:
  position, attention = name.split()
  args = {"position": position, "attention": attention, **SIZES}
  return Contender(name, "ours", "step", args)


def factor(position: str, attention: str) -> str:
  """Returns a step's time over a plain one's, as a cell of a table.

  A dash stands where the step cannot be measured by itself, as with an encoding of
  data that random tokens do not have.

  >>> factor("none", "multihead")
  '1'
  """
  name = f"{position} {attention}"
  if name == PLAIN:
    return "1"
  for group in _recorded().values():
    if name in group["times"]:
      found = ratio(group["times"][name], group["times"][PLAIN])
      return f"{found['median']:.2f}"
  return "–"


@functools.cache
def _recorded() -> dict[str, Any]:
  """Returns the measured groups by name."""
  return json.loads(RAW.read_text(encoding="utf-8"))["sections"].get("factors", {})


def measured_at() -> str:
  """Returns device, date and commit of the factors, for the pages that show them."""
  groups = [*_recorded().values()]
  places = sorted({f"{g['device']}, {g['date']}, commit {g['commit']}" for g in groups})
  return "; ".join(places) or "not measured"
