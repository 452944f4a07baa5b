"""A trained model that writes what texts become, many at a time."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.tokenizers import Tokenizer
from transformer_jax.evaluation.beam import Beam, beam_search
from transformer_jax.positions import coords

NOTHING = -1  # where a source has no token: 0 may be a token that counts


@dataclasses.dataclass(frozen=True, eq=False)
class Translator:
  """A trained model with its vocabulary.

  max_length   the most tokens of a text, the end included
  place     puts rows of sources where they are read: on one device, or on many
  """

  model: Any
  params: Any
  tokenizer: Tokenizer
  max_length: int
  place: Callable[[np.ndarray], jax.Array] = jnp.asarray

  def __call__(
    self, texts: list[str], how: Beam, say: Callable[[str], None] = lambda line: None
  ) -> list[str | None]:
    """Returns translations; what is longer than `max_length` is cut, and said.

    None, and said, where logits are not numbers: that is no translation.
    """
    rows = [self.tokenizer.encode(text) for text in texts]
    for text, row in zip(texts, rows, strict=True):
      if len(row) >= self.max_length:
        say(
          f"a line of {len(row)} tokens is cut to {self.max_length - 1}, the most that"
          f" this run reads: {text[:40]}..."
        )
    start, end = self.tokenizer.start, self.tokenizer.end
    source_BL = self.place(self.source(rows))
    args = self.model, how, self.max_length, start, end
    found = _search(*args, self.params, source_BL)
    token_BN, score_B = map(np.asarray, found)
    written = []
    for text, row, score in zip(texts, token_BN.tolist(), score_B, strict=True):
      lost = np.isneginf(score)
      if lost:
        say(f"no translation, since logits are not numbers: {text[:40]}...")
      written.append(None if lost else self.tokenizer.decode(before(row, end)))
    return written

  def source(self, rows: list[list[int]]) -> np.ndarray:
    """Returns source_BL: tokens, an end, and NOTHING."""
    source_BL = np.full((len(rows), self.max_length), NOTHING, np.int32)
    for place_L, row in zip(source_BL, rows, strict=True):
      row = [*row[: self.max_length - 1], self.tokenizer.end]
      place_L[: len(row)] = row
    return source_BL

  def all(
    self,
    texts: list[str],
    how: Beam,
    rows: int,
    say: Callable[[str], None] = lambda line: None,
  ) -> Iterator[str | None]:
    """Yields the translation of each text; `rows` of them go together."""
    remaining = iter(texts)
    while some := list(itertools.islice(remaining, rows)):
      # The last rows are filled up, so that there is one program.
      full = some + [""] * (rows - len(some))
      yield from self(full, how, say)[: len(some)]


def before(row: list[int], end: int) -> Iterator[int]:
  """Yields the tokens before the end."""
  return itertools.takewhile(lambda n: n != end, row)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _search(
  model: Any,
  how: Beam,
  max_length: int,
  start: int,
  end: int,
  params: Any,
  source_BL: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns the best translation of each row, token_BN, and its score_B."""
  at = coords.padded(source_BL != NOTHING)
  token_BL = jnp.maximum(source_BL, 0)
  memory = model.apply({"params": params}, token_BL, at, method="encode")
  start_B1 = jnp.full((len(source_BL), 1), start)
  found = beam_search(model, params, start_B1, max_length, end, how, memory=memory)
  return found.token_BKN[:, 0], found.score_BK[:, 0]
