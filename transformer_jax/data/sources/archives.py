"""Reads files out of packages without unpacking them to disk."""

import io
import pathlib
import tarfile
from collections.abc import Iterator

from transformer_jax.data.files import DataError, check_utf8

AR = b"!<arch>\n"
HEAD = 60  # bytes of a member's header: its name in the first 16, its size at 48


def texts(path: pathlib.Path, start: str, end: str = "") -> Iterator[tuple[str, str]]:
  """Yields (name, text) of the files whose name starts and ends so, sorted by name.

  Raises DataError for a file that is damaged, or text that is not UTF-8.
  """
  for name, content in contents(path, start, end):
    check_utf8(content, f"'{name}' in '{path}'")
    yield name, content.decode("utf-8")


def contents(
  path: pathlib.Path, start: str, end: str = ""
) -> Iterator[tuple[str, bytes]]:
  """Yields (name, bytes) of the files whose name starts and ends so, sorted by name.

  Raises DataError for a file that is damaged.
  """
  try:
    with tarfile.open(fileobj=_tar(path), mode="r:*") as tar:
      found = {_plain(m.name): m for m in tar.getmembers() if m.isfile()}
      for name in sorted(found):
        if name.startswith(start) and name.endswith(end):
          yield name, tar.extractfile(found[name]).read()
  except (tarfile.TarError, EOFError, OSError) as error:
    raise damaged(path, error) from error


def damaged(path: pathlib.Path, why: object) -> DataError:
  """Returns the error for a package that cannot be read."""
  reason = str(why).partition("\n")[0]
  return DataError(
    f"'{path}' is no whole package ({reason}); delete it and run this again"
  )


def _plain(name: str) -> str:
  return name.removeprefix("./")


def _tar(path: pathlib.Path) -> io.BytesIO:
  """Returns the tar file inside a Debian package, or the file itself."""
  content = path.read_bytes()
  if not content.startswith(AR):
    return io.BytesIO(content)
  place = len(AR)
  while place + HEAD <= len(content):
    head = content[place : place + HEAD]
    name, size = head[:16].decode("ascii", "replace").strip(" /"), head[48:58].strip()
    place += HEAD
    if not size.isdigit() or place + int(size) > len(content):
      break
    if name.startswith("data.tar"):
      return io.BytesIO(content[place : place + int(size)])
    place += int(size) + int(size) % 2
  raise damaged(path, "it holds no data.tar")
