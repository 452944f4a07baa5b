"""Layers of several kinds that take turns."""

from collections.abc import Sequence

from transformer_jax.positions import PositionalEncoding
from transformer_jax.positions.by_layer import ByLayer


def turns(kinds: Sequence[str]) -> str:
  """Returns the attention spec of layers of these kinds, or raises ValueError.

  The last layer of each period may differ from the others, as in Gemma and GPT-Neo.
  """
  period = next((n + 1 for n, kind in enumerate(kinds) if kind != kinds[0]), 1)
  usual, last = kinds[0], kinds[period - 1]
  wanted = [last if n % period == period - 1 else usual for n in range(len(kinds))]
  if wanted != [*kinds]:
    raise ValueError(
      "config.json gives layers kinds of attention in an order that is not read here;"
      f" only every {period}th may differ: {', '.join(kinds)}"
    )
  return usual if period == 1 else f"alternate({usual}, {last}, {period})"


def by_layer(encodings: Sequence[PositionalEncoding]) -> PositionalEncoding:
  """Returns one encoding that gives layers these, as the shortest list that repeats."""
  repeats = lambda n: all(
    encoding == encodings[at % n] for at, encoding in enumerate(encodings)
  )
  period = next(filter(repeats, range(1, len(encodings) + 1)))
  return encodings[0] if period == 1 else ByLayer(tuple(encodings[:period]))
