"""Indices into tables that are a distance, clipped: found by evaluating them."""

import dataclasses
from collections.abc import Callable

import numpy as np

Index = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class DistanceIndex:
  """Index clip(first + slope * distance, 0, N - 1) into a table of N entries.

  The distance is the position of the query minus that of the key.

  first     entry of distance 0, which need not be in the table
  slope     1 or -1
  by_keys   whether keys are rows of the index, and queries its columns
  reach     largest distance, either way, for which this was verified

  >>> fit(lambda i, j: np.clip(i[:, None] - j, 0, 3), L=2, M=2, N=4, reach=9)
  DistanceIndex(first=0, slope=1, by_keys=False, reach=9)
  """

  first: int
  slope: int
  by_keys: bool
  reach: int


def fit(index: Index, L: int, M: int, N: int, reach: int) -> DistanceIndex | None:
  """Returns the index as a clipped distance, or None where it is none.

  Every distance up to `reach`, either way, is evaluated.

  index   function from pos_L and pos_M to index_LM, or to index_ML
  L, M    queries and keys in a tile
  N       entries of the table
  reach   largest distance

  >>> fit(lambda i, j: np.clip(7 - (i[:, None] - j), 0, 7), L=4, M=2, N=8, reach=20)
  DistanceIndex(first=7, slope=-1, by_keys=False, reach=20)
  >>> fit(lambda i, j: (i[:, None] - j) % 8, L=4, M=2, N=8, reach=20) is None
  True
  """
  # Queries M apart and keys 1 apart: each pair of a tile has a distance of its own.
  tiles = []
  for start in range(-reach, reach + 1, L * M):
    pos_L = np.arange(L, dtype=np.int32) * M + start
    pos_M = np.arange(M, dtype=np.int32)[::-1] - M + 1
    tiles.append((pos_L[:, None] - pos_M[None, :], index(pos_L, pos_M)))
  for by_keys in (False, True):
    if any(n.shape != ((M, L) if by_keys else (L, M)) for _, n in tiles):
      continue
    distance = np.concatenate([d.reshape(-1) for d, _ in tiles])
    entry = np.concatenate([(n.T if by_keys else n).reshape(-1) for _, n in tiles])
    for slope in (1, -1):
      first = _first(distance, entry, slope)
      if np.array_equal(entry, np.clip(first + slope * distance, 0, N - 1)):
        return DistanceIndex(first, slope, by_keys, reach)
  return None


def _first(distance, entry, slope):
  """Returns the entry of distance 0, if entries change by the slope.

  distance   in ascending order
  """
  changes = np.flatnonzero(np.diff(entry))
  at = changes[0] if len(changes) else 0  # the last one that may be clipped
  return int(entry[at] - slope * distance[at])
