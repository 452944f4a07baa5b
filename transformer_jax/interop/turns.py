"""Layers of two kinds that take turns."""

from collections.abc import Sequence


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
