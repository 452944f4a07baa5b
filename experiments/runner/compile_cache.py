"""Compiled programs on disk, checked when read.

JAX keeps an entry that a full disk or a killed process left half written, warns of it
at every start and never replaces it; entries that were exchanged it runs without a
word. Here each entry begins with a checksum of its name and content, is written whole
or not at all, and one that does not fit is compiled again.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import xxhash
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from transformer_jax.training.json_files import make_folder, replace_file, warn

try:  # JAX has no public way to say where entries come from, only in which folder.
  from jax._src import compilation_cache
  from jax._src.compilation_cache_interface import CacheInterface
except ImportError:  # another JAX may have them elsewhere
  compilation_cache, CacheInterface = None, object

SUM = 16  # bytes of the checksum before an entry


class Checked(CacheInterface):
  """Entries of a folder by JAX's key, a hash of the program and how it is compiled."""

  def __init__(self, folder: str):
    self._path = Path(folder)

  def get(self, key: str) -> bytes | None:
    """Returns what was put, None for what is missing or damaged."""
    try:
      content = self._file(key).read_bytes()
    except OSError:
      return None
    value = content[SUM:]
    return value if content[:SUM] == _checksum(key, value) else None

  def put(self, key: str, value: bytes) -> None:
    """Writes an entry over whatever was there; a full disk costs only time."""
    with contextlib.suppress(OSError):
      replace_file(self._file(key), _checksum(key, value) + value)

  def _file(self, key: str) -> Path:
    return self._path / f"{key}-cache"


def _checksum(key: str, value: bytes) -> bytes:
  return xxhash.xxh3_128_digest(key.encode() + b"\0" + value)


@contextlib.contextmanager
def programs_in(folder: Path) -> Iterator[None]:
  """Keeps compiled programs in a folder: a rerun or a resumed run compiles less."""
  try:
    make_folder(folder)
  except OSError:  # compiling again is slower, not wrong
    yield
    return
  if not hasattr(compilation_cache, "get_file_cache"):
    warn(
      f"compiled programs are not kept: jax {jax.__version__} opens its cache otherwise"
    )
    yield
    return
  before = {name: getattr(jax.config, name) for name in SETTINGS}
  opened = compilation_cache.get_file_cache
  try:
    compilation_cache.get_file_cache = lambda path: (Checked(path), path)
    _use(SETTINGS | {"jax_compilation_cache_dir": str(folder)})
    yield
  finally:
    compilation_cache.get_file_cache = opened
    _use(before)


# XLA's own caches would put the folder's path into the key: a moved one would miss.
SETTINGS = {
  "jax_compilation_cache_dir": None,
  "jax_persistent_cache_enable_xla_caches": "none",
}


def _use(settings: dict[str, str | None]) -> None:
  for name, value in settings.items():
    jax.config.update(name, value)
  reset_cache()  # or JAX would stay with the first folder it used
