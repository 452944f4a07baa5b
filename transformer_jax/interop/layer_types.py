"""Alternating layer types, such as sliding-window and full attention."""

from collections.abc import Sequence
from typing import TypeVar

from transformer_jax.interop.hf_config import HFConfig
from transformer_jax.positions import PositionalEncoding
from transformer_jax.positions.by_layer import ByLayer

OfLayer = TypeVar("OfLayer")
# Kinds of attention, as config.json names them.
LOCAL, FULL = "sliding_attention", "full_attention"
LINEAR = "linear_attention"  # a mixer
OLDER = {"mamba": LINEAR, "attention": FULL}  # earlier names of some


def layer_kinds(
  config: HFConfig, usual: Sequence[str], known: Sequence[str] = (LOCAL, FULL)
) -> list[str]:
  """Returns the kind of attention of each layer, from the key layer_types.

  usual   those of a config.json without it, one for each layer
  known   kinds that the family has
  """
  word, choices = "layer_types", {kind: kind for kind in known}
  choices |= {
    old: new for old, new in OLDER.items() if new in known and old not in known
  }
  listed = config.many(word, [*usual])
  if len(listed) != len(usual):
    raise ValueError(
      f"config.json says {word} of {len(listed)} layers, and there are {len(usual)};"
      " write one kind for each"
    )
  return [(config | {word: kind}).choose(word, choices) for kind in listed]


def turns(kinds: Sequence[str]) -> str:
  """Returns the attention spec of layers of these kinds.

  One layer of each period may differ from the others: the last in Gemma and GPT-Neo,
  the first in ModernBERT. Else it is a list of all layers.
  """
  if len({*kinds}) == 1:
    return kinds[0]
  for period in range(2, len(kinds) + 1):
    for at in reversed(range(period)):
      rest = {kind for n, kind in enumerate(kinds) if n % period != at}
      other = {*kinds[at::period]}
      if len(rest) == len(other) == 1:
        place = "" if at == period - 1 else f", at={at}"
        return f"alternate({rest.pop()}, {other.pop()}, {period}{place})"
  return f"by_layer(({', '.join(cycle(kinds))}))"


def by_layer(encodings: Sequence[PositionalEncoding]) -> PositionalEncoding:
  """Returns one encoding for all layers: the shortest repeating list of encodings."""
  some = cycle(encodings)
  return encodings[0] if len(some) == 1 else ByLayer(some)


def cycle(parts: Sequence[OfLayer]) -> tuple[OfLayer, ...]:
  """Returns the shortest list that repeats to the parts of all layers.

  >>> cycle("aabaaba")
  ('a', 'a', 'b')
  """

  def repeats(n):
    return all(part == parts[at % n] for at, part in enumerate(parts))

  return tuple(parts[: next(filter(repeats, range(1, len(parts) + 1)))])
