"""Tokens of separate texts: sides of translation pairs, words of sentences."""

import array
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import xxhash

from transformer_jax.data import token_cache
from transformer_jax.data.token_cache import Tokenized
from transformer_jax.data.tokenizers import Tokenizer, tokenizers

LEAST = 1_000_000  # characters: fewer are soon tokenized again
VERSION = 1  # of how texts become tokens, for those that are kept on disk
MEMORY = 2**16  # texts whose tokens are remembered: words come again

Texts = Mapping[str, Sequence[str]]  # by split


def encoded(
  spec: str, texts: Texts, learn: Callable[[], Tokenizer], how: object
) -> Tokenized:
  """Returns the tokens of each text, from disk where that is worth it.

  learn   returns the tokenizer, trained
  how     what `learn` depends on besides the tokenizer's spec and the texts
  """
  make = lambda: _encoded(learn(), texts)
  recipe = tokenizers.build(spec).recipe
  if recipe is None or sum(len(x) for some in texts.values() for x in some) < LEAST:
    return make()
  digests = {split: digest(some) for split, some in texts.items()}
  return token_cache.kept(
    token_cache.key_of("texts", VERSION, recipe, how, digests), make
  )


def digest(texts: Sequence[str]) -> str:
  """Returns a hash of texts in their order."""
  found = xxhash.xxh3_128()
  for text in texts:
    content = text.encode("utf-8", "surrogatepass")
    # The size keeps two texts from reading like one.
    found.update(len(content).to_bytes(8, "little"))
    found.update(content)
  return found.hexdigest()


def pieces(found: Tokenized, split: str) -> Iterator[list[int]]:
  """Yields the tokens of one text after another."""
  token_N, end = found.token_N[split], 0
  for size in found.size_D[split].tolist():
    start, end = end, end + size
    yield token_N[start:end].tolist()


def _encoded(tokenizer: Tokenizer, texts: Texts) -> Tokenized:
  encode = functools.lru_cache(MEMORY)(tokenizer.encode)
  token_N, size_D = {}, {}
  for split, some in texts.items():
    flat, sizes = array.array("i"), array.array("q")  # lists take ten times the memory
    for text in some:
      own = encode(text)
      flat.extend(own)
      sizes.append(len(own))
    token_N[split] = np.array(flat, np.int32)
    size_D[split] = np.array(sizes, np.int64)
  return Tokenized(tokenizer, token_N, size_D)
