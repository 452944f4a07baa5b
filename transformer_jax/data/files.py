"""UTF-8 files as documents: strict reading, splits, fingerprints. No JAX here."""

import dataclasses
import glob
import gzip
import hashlib
import io
import os
import pathlib
import sysconfig
import zlib
from collections.abc import Iterable

from transformer_jax import untrusted

SPLITS = ("train", "validation", "test")
STDLIB = "stdlib"
UNPACKED = 2**32  # bytes that gzip may unpack from one file
GZIP = ".gz"
BOM = "\ufeff"
# Tests are not ordinary code; generated and site files differ between installations.
NOT_STDLIB = ("test", "tests", "idlelib", "lib2to3", "ensurepip", "site-packages") + (
  "dist-packages",
  "config-*",
  "_sysconfigdata*",
  "*customize.py",
)


class DataError(ValueError):
  """Unusable data; the message names the data and the remedy.

  >>> try:
  ...   read("no/such/text")
  ... except DataError as error:
  ...   print(str(error).partition(" in ")[0])
  there is no file or folder 'no/such/text'
  """


@dataclasses.dataclass(frozen=True)
class Document:
  """One text: its name, stable across machines, and its UTF-8 bytes.

  >>> documents = [Document(f"{n}.txt", b"text") for n in range(20)]
  >>> by_split, how = split(documents)
  >>> how, [len(by_split[name]) for name in SPLITS]
  ('within each file', [20, 20, 20])
  """

  name: str
  content: bytes


def read(source: str) -> list[Document]:
  """Reads `'stdlib'`, a file, a folder or a glob, sorted by name.

  Files in .gz are unpacked, and named without the suffix. Raises DataError for files
  that are missing, unreadable, empty or not UTF-8.
  """
  documents = [_read(path, name) for name, path in paths(source)]
  documents = [document for document in documents if document.content]
  if not documents:
    raise DataError(f"'{source}' is empty; name a file, folder or glob that holds text")
  return sorted(documents, key=lambda document: document.name)


def paths(source: str) -> list[tuple[str, pathlib.Path]]:
  """Returns (name, path) of the files of `'stdlib'`, a file, a folder or a glob.

  Names are relative to the folder and without .gz; the files are sorted by them.
  Raises DataError.
  """
  root, found = _stdlib() if source == STDLIB else _find(source)
  named = [
    (path.relative_to(root).as_posix().removesuffix(GZIP), path) for path in found
  ]
  _check_names(name for name, _ in named)
  return sorted(named)


def split(documents: list[Document]) -> tuple[dict[str, list[Document]], str]:
  """Returns the documents of each split, and the rule of the split.

  A hash of its name puts a document into one split: 80% train, 10% validation, 10%
  test. When that leaves a split empty, as for a single file, every document is cut
  instead: 90% train, 5% validation, 5% test.
  """
  by_name: dict[str, list[Document]] = {name: [] for name in SPLITS}
  for document in documents:
    by_name[split_of(document.name)].append(document)
  if all(by_name.values()):
    return by_name, "by file"
  cut = [_cut(document) for document in documents]
  pieces = {name: [piece[i] for piece in cut] for i, name in enumerate(SPLITS)}
  return pieces, "within each file"


def fingerprint(documents: Iterable[Document]) -> str:
  """Returns the SHA-256 of all names and contents."""
  digest = hashlib.sha256()
  for document in documents:
    # The size separates consecutive documents.
    digest.update(f"{document.name}\0{len(document.content)}\0".encode())
    digest.update(document.content)
  return digest.hexdigest()


def _check_names(names: Iterable[str]) -> None:
  """Raises DataError if a text is present with and without gzip."""
  known = set()
  for name in names:
    if name in known:
      raise DataError(
        f"'{name}' and '{name}{GZIP}' are both there, and would count twice; keep one,"
        " or name one with a glob"
      )
    known.add(name)


def _stdlib() -> tuple[pathlib.Path, list[pathlib.Path]]:
  root = pathlib.Path(sysconfig.get_path("stdlib"))
  paths = [path for path in _walk(root, skip=NOT_STDLIB) if path.suffix == ".py"]
  if not paths:
    raise DataError(
      f"this Python has no library source in {root};"
      " write text(source='PATH') with a file, folder or glob of your own"
    )
  return root, paths


def _find(source: str) -> tuple[pathlib.Path, list[pathlib.Path]]:
  path = pathlib.Path(source).expanduser()
  if path.is_dir():
    root, paths = path, _walk(path)
  elif path.exists():
    root, paths = path.parent, [path]
  else:
    root = _before_wildcards(path)
    found = map(pathlib.Path, glob.glob(str(path), recursive=True))
    paths = [path for path in found if path.is_file()]
  if not paths:
    raise DataError(_nothing(source, path))
  return root, paths


def _nothing(source: str, path: pathlib.Path) -> str:
  if path.is_dir():
    return f"folder '{source}' holds no files; put UTF-8 text there or name another"
  if glob.has_magic(source):
    return f"no file matches '{source}' in {pathlib.Path.cwd()}; check the glob"
  return (
    f"there is no file or folder '{source}' in {pathlib.Path.cwd()};"
    " check the path, or write 'stdlib' or 'tfds:NAME'"
  )


def _before_wildcards(path: pathlib.Path) -> pathlib.Path:
  """Returns the folder in front of the first wildcard."""
  fixed = [part for part in path.parents if not glob.has_magic(str(part))]
  return fixed[0]


def _walk(
  folder: pathlib.Path, skip: tuple[str, ...] = ("__pycache__",)
) -> list[pathlib.Path]:
  """Returns the files under a folder; hidden ones and those in `skip` left out."""

  def wanted(name):
    return not any(pathlib.PurePath(name).match(pattern) for pattern in (".*", *skip))

  found = []
  for here, folders, names in os.walk(folder, onerror=_refuse):
    folders[:] = filter(wanted, folders)
    found += [pathlib.Path(here, name) for name in filter(wanted, names)]
  return [path for path in found if path.is_file()]


def _refuse(error: OSError) -> None:
  raise DataError(
    f"cannot read '{error.filename}': {error.strerror}; check its permissions"
  ) from error


def _read(path: pathlib.Path, name: str) -> Document:
  content = content_of(path)
  check_utf8(content, f"'{path}'")
  return Document(name, content)


def content_of(path: pathlib.Path) -> bytes:
  """Returns the bytes of a file, unpacked if it ends in .gz. Raises DataError."""
  try:
    content = untrusted.content(path)
  except OSError as error:
    raise DataError(
      f"cannot read '{path}': {error.strerror}; check the path and who may read it"
    ) from error
  return unzipped(content, str(path))


def unzipped(content: bytes, name: str) -> bytes:
  """Returns the content, unpacked if the name ends in .gz. Raises DataError."""
  if not name.endswith(GZIP):
    return content
  try:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
      unpacked = file.read(UNPACKED + 1)
  except (OSError, EOFError, zlib.error) as error:
    raise DataError(f"'{name}' is damaged ({error}); copy it again") from error
  if len(unpacked) > UNPACKED:
    raise DataError(
      f"'{name}' unpacks to more than {UNPACKED:,} bytes; unpack it yourself"
    )
  return unpacked


def suffix(path: pathlib.Path) -> str:
  """Returns the suffix of the file's format: .tsv of a.tsv.gz."""
  return pathlib.Path(path.name.removesuffix(GZIP)).suffix


def check_utf8(content: bytes, where: str) -> None:
  """Raises DataError with the first byte offset, and line, that is not UTF-8."""
  if content.isascii():  # decoding takes as much memory again
    return
  try:
    content.decode("utf-8")
  except UnicodeDecodeError as error:
    line = content.count(b"\n", 0, error.start) + 1
    raise DataError(
      f"{where} is not UTF-8 at byte {error.start} ({error.reason}, line {line});"
      f" convert it ({conversion(content)} OLD > NEW) or leave it out with a glob such"
      " as 'folder/**/*.txt'"
    ) from error


def conversion(content: bytes) -> str:
  """Returns the command that converts bytes from their likely encoding to UTF-8."""
  marks = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
  return f"iconv -f {marks.get(content[:2], 'WINDOWS-1252')} -t UTF-8"


def lines(path: pathlib.Path) -> list[str]:
  """Returns the lines of a UTF-8 file, packed or not, without the ends of Windows.

  Only a newline ends a line: other separators of Unicode may stand inside a sentence.
  """
  content = content_of(path)
  check_utf8(content, f"'{path}'")
  text = content.decode("utf-8").removeprefix(BOM)
  return text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []


def split_of(name: str) -> str:
  """Returns the split of a document, by a hash of its name."""
  hundredth = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 100
  return "test" if hundredth < 10 else "validation" if hundredth < 20 else "train"


def _cut(document: Document) -> list[Document]:
  """Cuts one document into its train, validation and test piece."""
  size = len(document.content)
  places = [0, _whole(document, size * 90 // 100), _whole(document, size * 95 // 100)]
  return [
    Document(f"{document.name}[{start}:{stop}]", document.content[start:stop])
    for start, stop in zip(places, [*places[1:], size], strict=True)
  ]


def _whole(document: Document, place: int) -> int:
  """Returns the cut moved to the start of its UTF-8 character."""
  while place and document.content[place] & 0xC0 == 0x80:
    place -= 1
  return place
