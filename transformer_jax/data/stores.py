"""Tokens on the host, read window by window: from ArrayRecord files, or in memory."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from transformer_jax.data.files import DataError
from transformer_jax.data.windows import TokenStore

TOGETHER = 1024  # windows whose records are read at once


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
  """Tokens of one part in an array.

  >>> InMemory(np.arange(5, dtype=np.uint8)).read(np.array([1, 2]), 3).tolist()
  [[1, 2, 3], [2, 3, 4]]
  """

  token_N: np.ndarray

  @property
  def dtype(self) -> np.dtype:
    return self.token_N.dtype

  @property
  def sizes(self) -> tuple[int, ...]:
    return self.token_N.shape

  def read(self, start_B: np.ndarray, size: int) -> np.ndarray:
    """Returns windows of tokens, [B, size]."""
    return self.token_N[start_B[:, None] + np.arange(size)]


class InRecords:
  """Tokens of one part in ArrayRecord files, blocks of equal size but for the last.

  Records have checksums: ArrayRecord notices a changed byte when it reads it.

  paths    files, in order
  tokens   number of tokens in all files
  block    tokens of a record
  dtype    of the tokens, little-endian on disk

  >>> import tempfile
  >>> from transformer_jax.data.corpus_writer import SplitWriter
  >>> with tempfile.TemporaryDirectory() as name:
  ...   folder = Path(name)
  ...   with SplitWriter(folder, "train", np.dtype(np.uint16)) as writer:
  ...     writer.add([np.arange(9000)])
  ...   paths = [folder / file["name"] for file in writer.facts()["files"]]
  ...   store = InRecords(paths, tokens=9000, block=8192, dtype=np.uint16)
  ...   store.read(np.array([8191]), 3).tolist()
  [[8191, 8192, 8193]]
  """

  def __init__(self, paths: Sequence[Path], tokens: int, block: int, dtype: np.dtype):
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    self.sizes = (tokens,)
    self.dtype = np.dtype(dtype)
    self._block, self._paths = block, paths
    try:
      self._records = ArrayRecordDataSource([str(path) for path in paths])
      count = len(self._records)
    except (RuntimeError, ValueError, OSError) as error:
      raise self._damaged(error) from error
    if count != -(-tokens // block):
      raise self._damaged(f"{count} records and not {-(-tokens // block)}")

  def read(self, start_B: np.ndarray, size: int) -> np.ndarray:
    """Returns windows of tokens, [B, size]; raises DataError for a damaged record.

    Records are read many at a time: one by one takes sixty times as long.
    """
    groups = range(0, len(start_B), TOGETHER)
    return np.concatenate([self._read(start_B[n : n + TOGETHER], size) for n in groups])

  def _read(self, start_B: np.ndarray, size: int) -> np.ndarray:
    first_B = start_B // self._block
    most = (size - 1) // self._block + 2  # blocks of a window
    block_BM = first_B[:, None] + np.arange(most)
    needed_BM = block_BM * self._block < (start_B + size)[:, None]
    block_U = np.unique(block_BM[needed_BM])
    token_N = self._blocks(block_U)
    # The blocks of a window are neighbours in the list, as they are in the text.
    place_B = np.searchsorted(block_U, first_B) * self._block + start_B % self._block
    return token_N[place_B[:, None] + np.arange(size)]

  def _blocks(self, block_U: np.ndarray) -> np.ndarray:
    """Returns the tokens of some blocks, one after another."""
    try:
      records = self._records.__getitems__(block_U.tolist())
    except (RuntimeError, ValueError, IndexError, OSError) as error:
      raise self._damaged(error) from error
    stored = self.dtype.newbyteorder("<")
    blocks = [np.frombuffer(record, stored) for record in records]
    return np.concatenate(blocks).astype(self.dtype, copy=False)

  def _damaged(self, reason: object) -> DataError:
    folder = self._paths[0].parent if self._paths else "the corpus"
    first = str(reason).splitlines()[0][:160] if str(reason) else "unreadable"
    return DataError(
      f"a file of the corpus '{folder}' is damaged ({first}); prepare the corpus again,"
      " or copy its files again"
    )


class Joined:
  """Parts of a mixture, one after another.

  >>> store = Joined([InMemory(np.array([1, 2])), InMemory(np.array([3, 4, 5]))])
  >>> store.sizes, store.read(np.array([3, 0]), 2).tolist()
  ((2, 3), [[4, 5], [1, 2]])
  """

  def __init__(self, parts: Sequence[TokenStore]):
    self._parts = parts
    self.dtype = np.result_type(*(part.dtype for part in parts))
    self.sizes = tuple(sum(part.sizes) for part in parts)
    self._ends = np.cumsum(self.sizes)

  def read(self, start_B: np.ndarray, size: int) -> np.ndarray:
    """Returns windows of tokens, [B, size]; no window crosses parts."""
    window_BL = np.empty((len(start_B), size), self.dtype)
    part_B = np.searchsorted(self._ends, start_B, side="right")
    for number in np.unique(part_B).tolist():
      first, own_B = self._ends[number] - self.sizes[number], part_B == number
      window_BL[own_B] = self._parts[number].read(start_B[own_B] - first, size)
    return window_BL


def whole(store: TokenStore) -> np.ndarray:
  """Returns all tokens of a store; of a mixture part after part."""
  pieces, first = [], 0
  for size in store.sizes:
    pieces += [store.read(np.array([first]), size)[0]] if size else []
    first += size
  return np.concatenate([np.zeros(0, store.dtype), *pieces])
