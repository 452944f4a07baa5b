"""Alternating layer types, such as sliding-window and full attention."""

from collections.abc import Sequence

from transformer_jax.interop.hf_config import HFConfig
from transformer_jax.positions import PositionalEncoding
from transformer_jax.positions.by_layer import ByLayer

# Kinds of attention, as config.json names them.
LOCAL, FULL = "sliding_attention", "full_attention"


def layer_kinds(config: HFConfig, usual: Sequence[str]) -> list[str]:
  """Returns the kind of attention of each layer, from the key layer_types.

  usual   those of a config.json without it, one for each layer
  """
  word, known = "layer_types", {kind: kind for kind in (LOCAL, FULL)}
  listed = config.many(word, [*usual])
  if len(listed) != len(usual):
    raise ValueError(
      f"config.json says {word} of {len(listed)} layers, and there are {len(usual)};"
      " write one kind for each"
    )
  return [(config | {word: kind}).choose(word, known) for kind in listed]


def turns(kinds: Sequence[str]) -> str:
  """Returns the attention spec of layers of these kinds, or raises ValueError.

  One layer of each period may differ from the others: the last in Gemma and GPT-Neo,
  the first in ModernBERT.
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
  raise ValueError(
    "config.json gives layers kinds of attention in an order that is not read here;"
    f" only one of each period may differ: {', '.join(kinds)}"
  )


def by_layer(encodings: Sequence[PositionalEncoding]) -> PositionalEncoding:
  """Returns one encoding for all layers: the shortest repeating list of encodings."""

  def repeats(n):
    return all(encoding == encodings[at % n] for at, encoding in enumerate(encodings))

  period = next(filter(repeats, range(1, len(encodings) + 1)))
  return encodings[0] if period == 1 else ByLayer(tuple(encodings[:period]))
