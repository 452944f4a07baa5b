"""Exact overlaps of scored text with training text, by rolling hashes.

The hash of 64 tokens is a polynomial modulo 2^64, made by doubling: of 1, 2, 4, ... 64
tokens (Karp and Rabin, 1987, https://doi.org/10.1147/rd.312.0249). Two unequal texts
have one hash by chance once in 2^64 / 64 comparisons or so; a window would then be
left out without need.
"""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

GRAM = 64  # bytes or tokens; a power of two
BASE = 0x9E3779B97F4A7C15  # odd
CHUNK = 1 << 18  # hashed at once
FILTER = 22  # least bits of a hash that a table of hits reads first


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
  needed_P = np.zeros(max(len(scored_N) - GRAM + 1, 0), bool)
  place_WG, inside_WG = _grams(end_W, scored)
  needed_P[place_WG[inside_WG]] = True
  place_P = repeated_places([train_N], scored_N, needed_P)
  return windows_with(place_P, end_W, scored)


def repeated_places(
  train: Iterable[np.ndarray], scored_N: np.ndarray, needed_P: np.ndarray | None = None
) -> np.ndarray:
  """Returns place_P, whether the 64 tokens from each place on stand in training.

  train      the training split in pieces, each with the last 63 tokens of the one
             before it
  needed_P   places that are looked up; None: all
  """
  hash_P = np.concatenate([*_hashes(scored_N), np.zeros(0, np.uint64)])
  looked_P = np.ones(len(hash_P), bool) if needed_P is None else needed_P.copy()
  if not looked_P.any():
    return np.zeros(len(hash_P), bool)
  wanted_U, place_of_P = np.unique(hash_P[looked_P], return_inverse=True)
  # One entry in eight or fewer is true: most hashes are not looked up.
  shift = np.uint64(64 - max(FILTER, 3 + len(wanted_U).bit_length()))
  table = np.zeros(1 << int(64 - shift), bool)
  table[wanted_U >> shift] = True
  found_U = np.zeros(len(wanted_U), bool)
  for hash_N in itertools.chain.from_iterable(map(_hashes, train)):
    near_N = np.sort(hash_N[table[hash_N >> shift]])  # looked up in order: in caches
    place_N = np.searchsorted(wanted_U, near_N) % len(wanted_U)
    found_U[place_N[wanted_U[place_N] == near_N]] = True
  looked_P[looked_P] = found_U[place_of_P]
  return looked_P


def windows_with(place_P: np.ndarray, end_W: np.ndarray, scored: int) -> np.ndarray:
  """Returns whether a window's targets have one of the places of `repeated_places`."""
  place_WG, inside_WG = _grams(end_W, scored)
  if not inside_WG.any():
    return np.zeros(len(end_W), bool)
  return np.any(place_P[np.where(inside_WG, place_WG, 0)] & inside_WG, axis=1)


def _grams(end_W: np.ndarray, scored: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the places of a window's grams, and which are inside of the text."""
  first_W1 = np.asarray(end_W, np.int64)[:, None] - max(scored, GRAM)
  place_WG = first_W1 + np.arange(max(scored - GRAM, 0) + 1)
  return place_WG, place_WG >= 0


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
