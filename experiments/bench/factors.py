"""Time of a training step with each encoding and variant, over a plain one's."""

from collections.abc import Iterator, Sequence

from experiments.bench.groups import Contender, ContenderGroup
from experiments.bench.measure import Patience
from experiments.catalogue.step_times import PLAIN
from transformer_jax.attention import attentions
from transformer_jax.positions import positions

# Two layers on texts of 256 tokens, one device: attention is half of a plain step.
SIZES = {"B": 4, "L": 256, "V": 512, "D": 128, "H": 4, "N": 2}
AT_ONCE = 8  # options in a group, beside a plain step


def factors(quick: bool, encodings: Sequence[str] = ()) -> Iterator[ContenderGroup]:
  """A step with each encoding, and without one with each attention variant.

  encodings   names of those to measure, variants included; none: all
  """
  every = [(name, f"{name} multihead") for name in sorted(positions)]
  every += [(name, f"none {name}") for name in sorted(attentions)]
  chosen = {*(encodings or (*positions, *attentions))}
  names = [step for name, step in every if name in chosen and step != PLAIN]
  names = names[: 3 if quick else None]
  for start in range(0, len(names), AT_ONCE):
    part = names[start : start + AT_ONCE]
    contenders = tuple(map(_contender, (PLAIN, *part)))
    patience = Patience(seconds=3, least=5, most=15)
    yield ContenderGroup(f"{part[0]} to {part[-1]}", contenders, patience, SIZES)


def _contender(name: str) -> Contender:
  position, attention = name.split()
  args = {"position": position, "attention": attention, **SIZES}
  return Contender(name, "ours", "step", args)
