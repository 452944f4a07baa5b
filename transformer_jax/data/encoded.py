"""Tokens of separate texts: sides of translation pairs, words of sentences."""

import array
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import xxhash

from transformer_jax.data import token_cache
from transformer_jax.data.token_cache import Tokenized
from transformer_jax.data.tokenizers import Tokenizer, tokenizers

LEAST = 1_000_000  # characters; fewer are not cached on disk
VERSION = 1  # of the tokenization of texts; part of the cache key
MEMORY = 2**16  # texts whose tokens are memoized: words repeat

Texts = Mapping[str, Sequence[str]]  # by split


def encoded(
  spec: str, texts: Texts, learn: Callable[[], Tokenizer], how: object
) -> Tokenized:
  """Returns the tokens of each text; large texts are cached on disk.

  spec    of the tokenizer
  texts   by split
  learn   returns the trained tokenizer
  how     further inputs of `learn`, besides the spec and the texts; JSON
  """

  def make():
    return _encoded(learn(), texts)

  recipe = tokenizers.build(spec).recipe
  if recipe is None or sum(len(x) for some in texts.values() for x in some) < LEAST:
    return make()
  digests = {split: digest(some) for split, some in texts.items()}
  return token_cache.kept(
    token_cache.key_of("texts", VERSION, recipe, how, digests), make
  )


def digest(texts: Sequence[str]) -> str:
  """Returns the XXH3 hash of texts, in order."""
  found = xxhash.xxh3_128()
  for text in texts:
    content = text.encode("utf-8", "surrogatepass")
    # The size separates consecutive texts.
    found.update(len(content).to_bytes(8, "little"))
    found.update(content)
  return found.hexdigest()


def pieces(found: Tokenized, split: str) -> Iterator[list[int]]:
  """Yields the tokens of each text of a split."""
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
