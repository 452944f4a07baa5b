"""A trained model that says which labels texts or their words have, many at a time."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.readers.labelled_text import Example
from transformer_jax.data.tasks.labelled import sentence_pairs
from transformer_jax.data.tasks.labelled.base import Answer, Labelled
from transformer_jax.data.tokenizers import Tokenizer

LEAST = 2**10  # tokens that a program has room for; else the next power of two


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
  """A trained model with its vocabulary and its labels.

  length   the most tokens of a row
  """

  task: Labelled
  model: Any
  params: Any
  tokenizer: Tokenizer
  labels: tuple[str, ...]
  length: int

  def __call__(
    self,
    some: list[Example],
    rows: int,
    say: Callable[[str], None] = lambda line: None,
  ) -> list[list[Answer]]:
    """Returns the label and its probability of each part; None: it has no token.

    `rows` go together. What is too long is read in pieces of whole parts; a part that
    is too long by itself is cut, and said. None, and said, where logits are not
    numbers: the first of all labels would be no answer.
    """
    pieces = [self.pieces(example) for example in some]
    for piece in itertools.chain(*pieces):
      self._check(piece, say)
    flat = itertools.chain(*pieces)
    found = []
    while few := list(itertools.islice(flat, rows)):
      found += self._read(few, rows, say)
    left = iter(found)
    return [[x for _ in own for x in next(left)] for own in pieces]

  def pieces(self, example: Example) -> list[Example]:
    """Returns an example cut between parts, so that each piece has room for its own."""
    room, pieces, size = self.length - 2, [], 0
    for part in example.parts:
      more = len(self.tokenizer.encode(part))
      if not pieces or size + more > room:
        pieces, size = [*pieces, []], 0
      pieces[-1].append(part)
      size += more
    return [dataclasses.replace(example, parts=tuple(parts)) for parts in pieces]

  def _check(self, piece: Example, say: Callable[[str], None]) -> None:
    size = sum(len(self.tokenizer.encode(text)) for text in piece.texts)
    room = self.length - 2 - self.task.pairs
    if size > room:
      say(
        f"{piece.where}: {size} tokens are cut to {room}, the most that this run reads"
      )

  def _read(
    self, some: list[Example], rows: int, say: Callable[[str], None]
  ) -> Iterator[list[Answer]]:
    """Yields what the model says of the parts of each example."""
    # Any label marks where the model is asked.
    mark = lambda x: dataclasses.replace(x, labels=self.labels[:1] * len(x.parts))
    marked = [mark(example) for example in some]
    pieces = (self.tokenizer.encode(text) for x in marked for text in x.texts)
    kept, arrays = sentence_pairs.laid_end_to_end(marked, pieces, self.labels)
    rows_of = {id(example): row for row, example in enumerate(kept)}
    outcome = self._ask(arrays, len(kept), rows) if kept else None
    for example in marked:
      row, read = rows_of.get(id(example)), map(self.tokenizer.encode, example.parts)
      answers = [] if row is None else [*self._answers(*outcome, row)]
      if None in answers:
        say(f"{example.where}: no label, since logits are not numbers")
      answers = iter(answers)
      yield [next(answers, None) if tokens else None for tokens in read]

  def _ask(self, arrays: dict[str, np.ndarray], count: int, rows: int) -> Any:
    """Returns the class of each place, its probability, and which places are asked."""
    size = 1 << (max(LEAST, len(arrays["token_N"])) - 1).bit_length()
    room = lambda name: size if name.endswith("N") else rows
    full = {n: np.pad(x, (0, room(n) - len(x))) for n, x in arrays.items()}
    frame_2 = np.array([self.tokenizer.start, self.tokenizer.end], np.int32)
    # Rows that are left over repeat others, so that there is one program.
    chosen_B = np.arange(rows) % count
    fixed = self.task, self.model, self.length, len(self.labels)
    return jax.device_get(_asked(*fixed, self.params, full, frame_2, chosen_B))

  def _answers(self, top_BL, chance_BL, asked_BL, row: int) -> Iterator[Answer]:
    for place in np.flatnonzero(asked_BL[row]):
      chance = float(chance_BL[row, place])
      yield (self.labels[top_BL[row, place]], chance) if chance > 0 else None


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _asked(task, model, length, labels, params, data, frame_2, chosen_B):
  arrays = {"scored": data, "frame_2": frame_2}
  batch = task.rows(arrays, "scored", chosen_B, length, length)
  logits_BLV = model.apply({"params": params}, *batch.reads)
  # The output may have room for more classes than there are labels.
  chance_BLV = jax.nn.softmax(logits_BLV[..., :labels], axis=-1)
  return jnp.argmax(chance_BLV, -1), jnp.max(chance_BLV, -1), batch.weight_BL > 0
