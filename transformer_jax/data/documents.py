"""Documents read in pieces, for corpora that do not fit in memory. No JAX here."""

import codecs
import dataclasses
import gzip
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator

from transformer_jax import untrusted
from transformer_jax.data import files
from transformer_jax.data.files import DataError
from transformer_jax.data.readers import tfds

PIECE = 1 << 22  # bytes that are read at once
TFDS = "tfds:"


@dataclasses.dataclass(frozen=True)
class LazyDocument:
  """One text of one split, whose content is read when its pieces are asked for.

  name     stable across machines
  split    train, validation or test
  pieces   returns the content as an iterator of strings

  >>> LazyDocument("a.txt", "train", lambda: iter(["one ", "text"])).text()
  'one text'
  """

  name: str
  split: str
  pieces: Callable[[], Iterator[str]]

  def text(self) -> str:
    """Returns the whole content."""
    return "".join(self.pieces())

  def lines(self) -> Iterator[str]:
    """Yields the lines with their ends, as `str.splitlines` divides them."""
    # The last line of a piece may go on, and "\r" may be half of "\r\n".
    return _divided(self.pieces(), lambda text: text.splitlines(keepends=True))

  def newlines(self) -> Iterator[str]:
    """Yields the lines without their ends, as `split("\\n")` divides them."""
    return _divided(self.pieces(), lambda text: text.split("\n"))


def _divided(
  pieces: Iterable[str], divide: Callable[[str], list[str]]
) -> Iterator[str]:
  """Yields the lines of a text in pieces; the last of each piece may go on."""
  rest = ""
  for piece in pieces:
    *lines, rest = divide(rest + piece) or [""]
    yield from lines
  yield from divide(rest)


def read(source: str, data_dir: str | None = None) -> tuple[list[LazyDocument], str]:
  """Returns the documents of a source, and the rule of their splits.

  source    'stdlib', a file, folder or glob of UTF-8 text, or 'tfds:NAME', as of `text`
  data_dir  folder of prepared TFDS data; None: TFDS's default

  Splits are those of `files.split`. Raises DataError.
  """
  if source.startswith(TFDS):
    return [*_of_tfds(source.removeprefix(TFDS), data_dir)], "by TFDS"
  found = [(name, path) for name, path in files.paths(source) if _filled(path)]
  if not found:
    raise DataError(f"'{source}' is empty; name a file, folder or glob that holds text")
  splits = {name: files.split_of(name) for name, _ in found}
  if {*splits.values()} == {*files.SPLITS}:
    return [_of_file(name, path, splits[name]) for name, path in found], "by file"
  cut = [document for name, path in found for document in _cut(name, path)]
  return cut, "within each file"


def _filled(path: pathlib.Path) -> bool:
  return any(_content(path, 0, 1))


def _of_file(name: str, path: pathlib.Path, split: str) -> LazyDocument:
  return LazyDocument(name, split, lambda: _decoded(_content(path), str(path)))


def _cut(name: str, path: pathlib.Path) -> Iterator[LazyDocument]:
  """Yields the pieces of one file for the splits, cut as `files.split` cuts it."""
  size = sum(map(len, _content(path)))
  places = [0, *(_whole(path, size * n // 100) for n in (90, 95)), size]
  for split, start, stop in zip(files.SPLITS, places, places[1:], strict=False):

    def pieces(start: int = start, stop: int = stop) -> Iterator[str]:
      return _decoded(_content(path, start, stop), str(path))

    yield LazyDocument(f"{name}[{start}:{stop}]", split, pieces)


def _whole(path: pathlib.Path, place: int) -> int:
  """Returns a place moved to the start of its UTF-8 character."""
  first = max(0, place - 3)
  near = b"".join(_content(path, first, place + 1))
  while place > first and near[place - first] & 0xC0 == 0x80:
    place -= 1
  return place


def _content(
  path: pathlib.Path, start: int = 0, stop: int | None = None
) -> Iterator[bytes]:
  """Yields the bytes of a file from place to place, unpacked if it ends in .gz."""
  try:
    if path.name.endswith(files.GZIP):
      yield from _unpacked(path, start, stop)
      return
    stop = untrusted.size(path) if stop is None else stop
    with path.open("rb") as file:
      file.seek(start)
      while start < stop and (piece := file.read(min(PIECE, stop - start))):
        start += len(piece)
        yield piece
  except OSError as error:
    raise DataError(
      f"cannot read '{path}': {error.strerror}; check the path and who may read it"
    ) from error


def _unpacked(path: pathlib.Path, start: int, stop: int | None) -> Iterator[bytes]:
  """Yields unpacked bytes from place to place."""
  try:
    with gzip.open(path) as file:
      file.seek(start)
      while (stop is None or start < stop) and (
        piece := file.read(PIECE if stop is None else min(PIECE, stop - start))
      ):
        start += len(piece)
        yield piece
  except (gzip.BadGzipFile, EOFError, zlib.error) as error:
    raise DataError(f"'{path}' is damaged ({error}); copy it again") from error


def _decoded(pieces: Iterable[bytes], where: str) -> Iterator[str]:
  """Yields text; raises DataError with the first byte that is not UTF-8."""
  decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
  try:
    for piece in pieces:
      yield decoder.decode(piece)
      done += len(piece)
    yield decoder.decode(b"", final=True)
  except UnicodeDecodeError as error:
    raise DataError(
      f"'{where}' is not UTF-8 near byte {done + error.start} ({error.reason}); convert"
      f" it ({files.conversion(b'')} OLD > NEW) or leave it out with a glob such as"
      " 'folder/**/*.txt'"
    ) from error


def _of_tfds(name: str, data_dir: str | None) -> Iterator[LazyDocument]:
  for split in files.SPLITS:
    if tfds.has_split(name, data_dir, split):

      def pieces(split: str = split) -> Iterator[str]:
        return tfds.texts(name, data_dir, split)

      yield LazyDocument(f"{name}/{split}", split, pieces)
