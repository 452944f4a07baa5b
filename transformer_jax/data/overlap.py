"""Exact overlaps of scored text with training text, by rolling hashes.

The hash of 64 tokens is a polynomial modulo 2^64, made by doubling: of 1, 2, 4, ... 64
tokens (Karp and Rabin, 1987, https://doi.org/10.1147/rd.312.0249). Two unequal texts
have one hash by chance once in 2^64 / 64 comparisons or so; a window would then be
left out without need.
"""

from collections.abc import Iterator

import numpy as np

GRAM = 64  # bytes or tokens; a power of two
BASE = 0x9E3779B97F4A7C15  # odd
CHUNK = 1 << 18  # hashed at once
FILTER = 22  # bits of a hash that a table of hits reads first


def repeated(
  train_N: np.ndarray, scored_N: np.ndarray, end_W: np.ndarray, scored: int
) -> np.ndarray:
  """Returns repeat_W, whether 64 tokens of a window's targets stand in training.

  train_N    tokens of the training split
  scored_N   tokens of the scored split
  end_W      ends of windows in it
  scored     number of targets, the last ones of a window; of fewer than 64, the tokens
             before them count too

  >>> train_N, scored_N = np.arange(200), np.arange(100, 400)
  >>> repeated(train_N, scored_N, np.array([80, 164, 228]), scored=64)
  array([ True, False, False])
  """
  # Grams of a window: at every place of its targets.
  first_W1 = np.asarray(end_W, np.int64)[:, None] - max(scored, GRAM)
  place_WG = first_W1 + np.arange(max(scored - GRAM, 0) + 1)
  inside_WG = place_WG >= 0
  if not inside_WG.any() or len(train_N) < GRAM:
    return np.zeros(len(end_W), bool)
  scored_hash_P = np.concatenate([*_hashes(scored_N)])
  hash_WG = scored_hash_P[np.where(inside_WG, place_WG, 0)]
  wanted_U = np.unique(hash_WG[inside_WG])
  table = np.zeros(1 << FILTER, bool)
  table[wanted_U >> (64 - FILTER)] = True
  found: set[int] = set()
  for hash_P in _hashes(train_N):
    near_P = hash_P[table[hash_P >> (64 - FILTER)]]
    found |= {*near_P[np.isin(near_P, wanted_U)].tolist()}
  found_U = np.array(sorted(found), np.uint64)
  return np.asarray(np.any(np.isin(hash_WG, found_U) & inside_WG, axis=1))


def _hashes(token_N: np.ndarray) -> Iterator[np.ndarray]:
  """Yields the hashes of the 64 tokens at each place, chunk after chunk."""
  last = len(token_N) - GRAM + 1
  for start in range(0, last, CHUNK):
    stop = min(start + CHUNK, last) + GRAM - 1
    hash_P = _mixed(token_N[start:stop])
    base, size = BASE, 1
    while size < GRAM:
      hash_P = hash_P[:-size] * np.uint64(base) + hash_P[size:]
      base, size = base * base % 2**64, 2 * size
    # The low bits of a polynomial depend on low bits alone.
    yield (hash_P ^ (hash_P >> np.uint64(32))) * np.uint64(BASE)


def _mixed(token_N: np.ndarray) -> np.ndarray:
  """Returns a well mixed 64-bit number for each token (splitmix64's finalizer)."""
  x = (token_N.astype(np.uint64) + np.uint64(1)) * np.uint64(BASE)
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))
