"""Tokens of documents: pieces of text with an end token after each document."""

from collections.abc import Iterable, Iterator

import numpy as np

from transformer_jax.data.tokenizers import Tokenizer

CHUNK = 20_000  # characters that are tokenized at once


def pieces(tokenizer: Tokenizer, lines: Iterable[str]) -> Iterator[np.ndarray]:
  """Yields the tokens of a document in pieces, int32, and an end token.

  lines   of the document, with their ends

  A text is tokenized in chunks that end with a line, which takes little memory: lists
  of numbers take ten times that of arrays.
  """
  for text in _chunks(lines):
    yield np.array(tokenizer.encode(text), np.int32)
  yield np.array([tokenizer.end], np.int32)


def _chunks(lines: Iterable[str]) -> Iterator[str]:
  """Yields a text in chunks of whole lines."""
  chunk: list[str] = []
  size = 0
  for line in lines:
    if size > CHUNK:
      yield "".join(chunk)
      chunk, size = [], 0
    chunk.append(line)
    size += len(line)
  yield "".join(chunk)
