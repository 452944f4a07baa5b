"""Texts of the tokens of a run, for pages, and which of them are delimiters."""

from typing import Any

from experiments.generate import Bytes
from transformer_jax.analysis import Vocabulary, of_pieces
from transformer_jax.data.tasks.algorithmic.base import FIRST, Strings

MARKS = ("<pad>", "<s>", "=", "</s>")  # tokens below FIRST of algorithmic tasks
SHOWN = {"\n": "⏎", "\t": "⇥", " ": "·"}


def pieces(run: Any) -> list[str] | None:
  """Returns the text of each token of a TrainedRun; None: it has no tokens with texts.

  Bytes beyond ASCII are written as <e9>; symbols of algorithmic tasks as numbers.
  """
  if isinstance(run.tokenizer, Bytes):
    return [chr(n) if n < 128 else f"<{n:02x}>" for n in range(run.task.vocabulary)]
  if run.tokenizer is not None:
    return list(run.tokenizer.pieces)
  if isinstance(run.task, Strings):
    symbols = range(run.task.vocabulary - FIRST)
    return [*MARKS, *map(str, symbols)][: run.task.vocabulary]
  return None


def vocabulary(run: Any) -> Vocabulary | None:
  """Returns the vocabulary of a TrainedRun, without counts; None: it has no tokens."""
  texts = pieces(run)
  if texts is None:
    return None
  special = MARKS if run.tokenizer is None else getattr(run.tokenizer, "special", ())
  found = of_pieces(texts, tuple(special))
  missing = run.task.vocabulary - len(texts)
  if missing > 0:  # a model's table may be larger than the vocabulary
    return of_pieces([*texts, *("<unused>",) * missing], tuple(special))
  return found


def shown(piece: str) -> str:
  """Returns a piece with its white space visible.

  >>> shown(" a\\n")
  '·a⏎'
  """
  text = "".join(SHOWN.get(character, character) for character in piece)
  return "".join(x if x.isprintable() else f"<{ord(x):02x}>" for x in text)
