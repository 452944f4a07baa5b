"""Provenance of a result: code, versions, machine."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.runner import process
from transformer_jax import hosts
from transformer_jax.training.json_files import warn

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "transformer_jax", ROOT / "experiments")
# A patch that git applies, whatever the user set: no colours, tools or conversions.
PLAIN = (
  *("-p", "--binary", "--full-index", "--no-color", "--no-ext-diff"),
  *("--no-textconv", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/"),
)
# Variables of the environment that change how XLA and JAX calculate.
ENVIRONMENT = (
  *("XLA_FLAGS", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_ENABLE_X64"),
  *("JAX_DEFAULT_PRNG_IMPL", "JAX_THREEFRY_PARTITIONABLE"),
)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def commit() -> tuple[str, bytes]:
  """Returns the git commit and the patch from it to the code that runs.

  A changed tree is `1a2b3c4d5e+0f9e8d7c`, so that two different changes differ. Python
  files of the project belong to it even if git does not track or ignores them. Outside
  git both are empty; where git fails, there is a warning.
  """
  try:
    head = git("rev-parse", "--short=10", "HEAD").decode().strip()
    if not git("ls-files", "--", str(Path(__file__))):
      return "", b""  # installed, perhaps below somebody else's repository
  except GitError as error:
    if error.words:
      _say(error.words)
    return "", b""
  try:
    tree, changes = _changes()
  except (GitError, OSError) as error:
    _say(str(error))
    return f"{head}+unknown", b""
  return head + (f"+{tree[:8]}" if changes else ""), changes


@functools.cache  # once is enough
def _say(words: str) -> None:
  warn(f"git: {words}; results name the hash of the source files instead of the commit")


def _changes() -> tuple[str, bytes]:
  """Returns the tree of the files on disk, and the patch from the commit to it.

  A separate index and object folder leave the repository as it is, and no file is
  skipped because git remembers its size and date, or is set to assume it unchanged.
  """
  objects = git("rev-parse", "--git-path", "objects").decode().strip()
  with tempfile.TemporaryDirectory() as folder:
    separate = {
      "GIT_INDEX_FILE": f"{folder}/index",
      "GIT_OBJECT_DIRECTORY": f"{folder}/objects",
      "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((ROOT / objects).absolute()),
    }
    Path(folder, "objects").mkdir()
    git("read-tree", "HEAD", environment=separate)
    new = git("ls-files", "-z", "--others", "--", *SOURCES, environment=separate)
    git("add", "--update", "--", ".", environment=separate)
    git("update-index", "--add", "-z", "--stdin", given=new, environment=separate)
    tree = git("write-tree", environment=separate).decode().strip()
    return tree, git("diff-tree", *PLAIN, "HEAD", tree, environment=separate)


SOURCES = ("transformer_jax/*.py", "experiments/*.py")  # of git, `*` crosses folders


class GitError(Exception):
  """A failure of git; `words` is empty where there is no repository."""

  def __init__(self, words: str):
    self.words = words
    super().__init__(words)


def git(
  *words: str, given: bytes = b"", environment: Mapping[str, str] | None = None
) -> bytes:
  """Returns the output of a git command in the project's folder; raises GitError.

  given         standard input
  environment   variables besides the inherited ones that are not git's
  """
  inherited = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
  try:
    done = subprocess.run(
      ["git", "-C", str(ROOT), "-c", "core.fsmonitor=false", *words],
      input=given,
      capture_output=True,
      timeout=60,
      env={**inherited, "LC_ALL": "C", **(environment or {})},
    )
  except FileNotFoundError as error:
    raise GitError("is not installed" * (ROOT / ".git").exists()) from error
  except (OSError, subprocess.SubprocessError) as error:
    raise GitError(str(error)) from error
  if done.returncode:
    raise GitError(_refusal(done.stderr.decode(errors="replace")))
  return done.stdout


def _refusal(message: str) -> str:
  """Returns git's error in one line, with a cure where there is one."""
  if "not a git repository" in message:
    return ""
  if "dubious ownership" in message:
    return (
      f"{ROOT} belongs to another user, which git refuses (git config --global --add"
      f" safe.directory {ROOT} allows it)"
    )
  return next(iter(message.strip().splitlines()), "failed without a word")


def sources() -> str:
  """Returns a hash of the project's Python files as they are on disk."""
  digest = hashlib.sha256()
  for folder in PROJECT:
    for path in sorted(folder.rglob("*.py")):
      content = path.read_bytes()
      name = path.relative_to(folder.parent).as_posix()
      digest.update(f"{name}\0{len(content)}\0".encode() + content)
  return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
  """Returns {package: version} of Python and the packages that compute results."""
  packages = {name: importlib.metadata.version(name) for name in PACKAGES}
  return {"python": platform.python_version(), **packages}


def device() -> str:
  """Returns the devices in words: `cpu: AMD EPYC 7B13, 1 core`, `4 x tpu v5e`.

  Cores are those that XLA computes with.
  """
  import jax

  if _on_cpu():
    cores = process.cores()
    return f"cpu: {_processor()}, {cores} core{'s' * (cores > 1)}"
  first = jax.devices()[0]
  return f"{jax.device_count()} x {first.platform} {first.device_kind}"


def _on_cpu() -> bool:
  import jax

  return jax.default_backend() == "cpu"


def _processor() -> str:
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
  return names[0] if names else platform.processor() or platform.machine()


def environment() -> dict[str, str]:
  """Returns the environment variables that change how numbers are calculated."""
  return {name: os.environ[name] for name in ENVIRONMENT if os.environ.get(name)}


def facts() -> tuple[dict[str, Any], bytes]:
  """Returns the record saved with each result, and the patch that leads to its code."""
  name, changes = commit()
  made_with: dict[str, Any] = {"commit": name, "sources": sources()}
  made_with["versions"] = versions()
  made_with |= {"device": device(), "environment": environment()}
  made_with |= {"processes": hosts.count()} if hosts.count() > 1 else {}
  if _on_cpu():
    # A seed's numbers depend on no other seed: see transformer_jax.training.seed_parts.
    made_with |= {"cores": process.cores(), "seeds_apart": True}
  return made_with, changes
