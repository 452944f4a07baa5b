"""Runs pytest in a temporary copy of a tree."""

import contextlib
import multiprocessing
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

# Processes of tests are forked from one that has imported what they all import. It has
# to start as tests/conftest.py wants them to start.
SETTINGS = {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
WORKERS = multiprocessing.get_context("forkserver")
LIBRARIES = ["pytest", "jax", "flax.linen", "optax", "scipy.stats", "orbax.checkpoint"]


def start() -> None:
  """Prepares the process that those of tests are forked from."""
  os.environ.update(SETTINGS)
  WORKERS.set_forkserver_preload(LIBRARIES)


@contextlib.contextmanager
def copy_of(tree: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary copy of the files of a repository that git does not ignore."""
  listed = ["git", "-C", str(tree), "ls-files", "-co", "--exclude-standard", "-z"]
  names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
  with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
    copy = pathlib.Path(folder)
    for name in filter(None, names.split("\0")):
      if (tree / name).is_file():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / name, copy / name)
    yield copy


def pytest(tree: pathlib.Path, tests: str, first: bool) -> tuple[int, str]:
  """Runs tests in a tree; returns the exit code and the output.

  first   stop at the first test that fails
  """
  options = ["-q", "-p", "no:cacheprovider", "--no-header", *(["-x"] if first else [])]
  words = [*options, *shlex.split(tests)]
  with tempfile.NamedTemporaryFile("r+", errors="replace") as output:
    child = WORKERS.Process(target=_pytest, args=(tree, words, output.name))
    child.start()
    child.join()
    return child.exitcode or 0, output.read()


def _pytest(tree: pathlib.Path, words: list[str], output: str) -> None:
  """Becomes a process of pytest in that tree."""
  descriptor = os.open(output, os.O_WRONLY | os.O_TRUNC)
  for stream in (1, 2):
    os.dup2(descriptor, stream)
  os.chdir(tree)
  os.environ["PYTHONPATH"] = sys.path[0] = str(tree)
  # The copy keeps its bytecode, for the faults after this one.
  os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
  sys.dont_write_bytecode = False
  import pytest

  os._exit(_flushed(pytest.main(words)))


def _flushed(code: int) -> int:
  sys.stdout.flush()
  sys.stderr.flush()
  return int(code)
