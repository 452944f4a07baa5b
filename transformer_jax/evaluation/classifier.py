"""Classifier: a trained model that labels texts or their words, in batches."""

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

LEAST_TOKENS = 2**10  # of a batch; larger ones are padded to the next power of two


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
  """A trained model with its tokenizer and its labels.

  length   tokens of a model input, at most

  >>> from transformer_jax.data.base import tasks
  >>> from transformer_jax.data.tokenizers import tokenizers
  >>> word = tokenizers.build("word(size=9)").train(["the dog barks"])
  >>> task = tasks.build("tagging('train.txt')")
  >>> tagger = Classifier(task, None, None, word, ("noun", "verb"), length=4)
  >>> sentence = Example(("the", "dog", "barks"), (), "line 1")
  >>> [piece.parts for piece in tagger.pieces(sentence)]  # room for two
  [('the', 'dog'), ('barks',)]
  """

  task: Labelled
  model: Any
  params: Any
  tokenizer: Tokenizer
  labels: tuple[str, ...]
  length: int

  def __call__(
    self,
    examples: list[Example],
    batch_size: int,
    warn: Callable[[str], None] = lambda line: None,
  ) -> list[list[Answer]]:
    """Returns (label, probability) of each part of each example.

    examples     texts without labels
    batch_size   examples in a batch
    warn         is called with a sentence for each text that is cut or has no label

    An example that is too long is read in pieces of whole parts; a part that is too
    long by itself is cut. The answer is None for a part without a token, and where
    logits are NaN.
    """
    pieces = [self.pieces(example) for example in examples]
    for piece in itertools.chain(*pieces):
      self._check(piece, warn)
    remaining = itertools.chain(*pieces)
    answers: list[list[Answer]] = []
    while batch := list(itertools.islice(remaining, batch_size)):
      answers += self._classify(batch, batch_size, warn)
    answers_of_piece = iter(answers)
    return [
      [answer for _ in own_pieces for answer in next(answers_of_piece)]
      for own_pieces in pieces
    ]

  def pieces(self, example: Example) -> list[Example]:
    """Returns an example cut between parts into pieces of at most `length` tokens."""
    pieces: list[list[str]] = []
    room, size = self.length - 2, 0
    for part in example.parts:
      more = len(self.tokenizer.encode(part))
      if not pieces or size + more > room:
        pieces, size = [*pieces, []], 0
      pieces[-1].append(part)
      size += more
    return [dataclasses.replace(example, parts=tuple(parts)) for parts in pieces]

  def _check(self, piece: Example, warn: Callable[[str], None]) -> None:
    size = sum(len(self.tokenizer.encode(text)) for text in piece.texts)
    room = self.length - 2 - self.task.pairs
    if size > room:
      warn(
        f"{piece.where}: {size} tokens are cut to {room}, the most that this run reads"
      )

  def _classify(
    self, examples: list[Example], batch_size: int, warn: Callable[[str], None]
  ) -> Iterator[list[Answer]]:
    """Yields the answers for the parts of each example of one batch."""
    # Any label does: it marks the positions whose logits are read.
    marked = [
      dataclasses.replace(example, labels=self.labels[:1] * len(example.parts))
      for example in examples
    ]
    pieces = (self.tokenizer.encode(text) for x in marked for text in x.texts)
    nonempty, arrays = sentence_pairs.laid_end_to_end(marked, pieces, self.labels)
    row_of = {id(example): row for row, example in enumerate(nonempty)}
    if nonempty:
      class_BL, probability_BL, marked_BL = self._predict(
        arrays, len(nonempty), batch_size
      )
    for example in marked:
      predictions: list[Answer] = []
      if (row := row_of.get(id(example))) is not None:
        predictions = [
          self._answer(class_BL[row, place], probability_BL[row, place])
          for place in np.flatnonzero(marked_BL[row])
        ]
      if None in predictions:
        warn(f"{example.where}: no label, since logits are not numbers")
      remaining = iter(predictions)
      tokens = map(self.tokenizer.encode, example.parts)
      yield [next(remaining, None) if part_tokens else None for part_tokens in tokens]

  def _predict(
    self, arrays: dict[str, np.ndarray], count: int, batch_size: int
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns class_BL, its probability_BL, and marked_BL, the positions that are read.

    arrays   `count` examples, laid end to end
    """
    tokens = max(LEAST_TOKENS, len(arrays["token_N"]))
    token_room = 1 << (tokens - 1).bit_length()
    padded = {
      name: np.pad(x, (0, (token_room if name.endswith("N") else batch_size) - len(x)))
      for name, x in arrays.items()
    }
    # The last batch repeats examples, so that one program serves all batches.
    chosen_B = np.arange(batch_size) % count
    predictions = _predict(
      self.task,
      self.model,
      self.length,
      len(self.labels),
      params=self.params,
      data=padded,
      frame_2=np.array([self.tokenizer.start, self.tokenizer.end], np.int32),
      chosen_B=chosen_B,
    )
    return jax.device_get(predictions)

  def _answer(self, label: int, probability: float) -> Answer:
    """Returns a label by its number; None where logits are NaN."""
    return (self.labels[label], float(probability)) if probability > 0 else None


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _predict(
  task: Labelled,
  model: Any,
  length: int,
  num_labels: int,
  params: Any,
  data: dict[str, jax.Array],
  frame_2: jax.Array,
  chosen_B: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the likeliest class and its probability, and the positions that are read.

  length       tokens of a model input
  num_labels   labels in use; the output may have room for more classes
  data         examples laid end to end, as `Labelled.load` has them
  frame_2      start and end token
  chosen_B     numbers of the examples in this batch
  """
  arrays = {"scored": data, "frame_2": frame_2}
  batch = task.rows(arrays, "scored", chosen_B, length, length)
  logits_BLV = model.apply({"params": params}, *batch.reads)
  probability_BLV = jax.nn.softmax(logits_BLV[..., :num_labels], axis=-1)
  class_BL = jnp.argmax(probability_BLV, axis=-1)
  return class_BL, jnp.max(probability_BLV, axis=-1), batch.weight_BL > 0
