"""Cache of compiled programs on disk, with checksums.

JAX keeps an entry that a full disk or a killed process left half written, warns of it
at every start and never replaces it; swapped entries it runs without a warning. Here
each entry begins with a checksum of its name and content and is written atomically, and
a damaged one is compiled again.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import xxhash
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from experiments.runner import process
from transformer_jax.training.json_files import make_folder, replace_file, warn

try:  # JAX has no public way to replace the cache, only to choose its folder.
  from jax._src import compilation_cache
  from jax._src.compilation_cache_interface import CacheInterface
except ImportError:  # another JAX may have them elsewhere; `programs_in` checks
  compilation_cache = None  # type: ignore[assignment]
  CacheInterface = object  # type: ignore[assignment, misc]

SUM = 16  # bytes of the checksum before an entry


def folder_of(workdir: Path) -> Path:
  """Returns the folder of compiled programs below that of a sweep.

  A program for one core computes in another order than one for two.
  """
  cores = f"cores_{process.cores()}" if jax.default_backend() == "cpu" else ""
  return workdir.absolute() / "compiled" / cores


class ProgramCache(CacheInterface):
  """Entries of a folder, with the methods of JAX's CacheInterface.

  A key is JAX's hash of the program and its compile options.

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   programs = ProgramCache(folder)
  ...   programs.put("a key", b"a program")
  ...   programs.get("a key"), programs.get("another")
  (b'a program', None)
  """

  def __init__(self, folder: str):
    self._path = Path(folder)

  def get(self, key: str) -> bytes | None:
    """Returns an entry's value, None where it is missing or damaged."""
    try:
      content = self._file(key).read_bytes()
    except OSError:
      return None
    value = content[SUM:]
    return value if content[:SUM] == _checksum(key, value) else None

  def put(self, key: str, value: bytes) -> None:
    """Writes an entry; a full disk costs only time."""
    with contextlib.suppress(OSError):
      replace_file(self._file(key), _checksum(key, value) + value)

  def _file(self, key: str) -> Path:
    return self._path / f"{key}-cache"


def _checksum(key: str, value: bytes) -> bytes:
  return xxhash.xxh3_128_digest(key.encode() + b"\0" + value)


def _file_cache(path: str) -> tuple[CacheInterface, str]:
  """Returns what JAX's get_file_cache does: the cache and its folder."""
  return ProgramCache(path), path


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
      f"compiled programs are not cached: jax {jax.__version__} has another interface"
    )
    yield
    return
  before = {name: getattr(jax.config, name) for name in SETTINGS}
  opened = compilation_cache.get_file_cache
  try:
    compilation_cache.get_file_cache = _file_cache
    _use(SETTINGS | {"jax_compilation_cache_dir": str(folder)})
    yield
  finally:
    compilation_cache.get_file_cache = opened
    _use(before)


# XLA's own caches would put the folder's path into the key: a moved one would miss.
# Programs that compile in less than a second, as JAX would have it, are kept too: the
# runs of a sweep share many of them.
SETTINGS = {
  "jax_compilation_cache_dir": None,
  "jax_persistent_cache_enable_xla_caches": "none",
  "jax_persistent_cache_min_compile_time_secs": 0.1,
}


def _use(settings: Mapping[str, str | float | None]) -> None:
  for name, value in settings.items():
    jax.config.update(name, value)
  reset_cache()  # or JAX would stay with its first folder
