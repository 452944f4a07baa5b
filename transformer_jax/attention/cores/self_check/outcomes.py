"""Outcomes of checks, kept in memory and beside the compiled programs."""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import jax
from absl import logging

from transformer_jax import hosts
from transformer_jax.attention.cores import base
from transformer_jax.attention.cores.self_check import trial
from transformer_jax.attention.cores.self_check.scheme import CallScheme
from transformer_jax.attention.variants.base import Variant
from transformer_jax.members import outside, parts
from transformer_jax.positions import PositionalEncoding

FOLDER = "kernel_checks"  # in that of the compiled programs
PACKAGES = (
  *("jax", "jaxlib", "libtpu", "jax-cuda13-plugin", "jax-cuda12-plugin"),
  *("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"),
)
VARIABLES = "XLA_FLAGS", "LIBTPU_INIT_ARGS"  # that decide how programs are compiled
TRIES = 2  # checks that may end their process, or be killed with it
_outcomes: dict[tuple[CallScheme, str], str | None] = {}
_subjects: dict[tuple, str] = {}  # reasons, by what a run's record names


def failure(scheme: CallScheme) -> str | None:
  """Returns why a core cannot be used here, or None; checks it at the first call.

  Of several processes all check, and one failure counts for all. A device that is not
  here, for which a program is only compiled, is taken to pass.
  """
  device = here()
  if device is None:
    return None
  key = scheme, device.device_kind
  try:
    hash(key)
  except TypeError as error:  # a class of a user's own that is no frozen dataclass
    return f"could not be checked: {error}"
  if key not in _outcomes:
    reason = _outcome(scheme, device)
    reasons = hosts.group().exchange("the check of a kernel", reason)
    _outcomes[key] = next(filter(None, reasons), None)
  if reason := _outcomes[key]:
    _subjects[scheme.subject] = reason
  return _outcomes[key]


def forget() -> None:
  """Forgets what the record of a run would name; outcomes of checks stay."""
  _subjects.clear()


def known_failure(core, encoding, variant) -> str | None:
  """Returns the reason of a failed check of this process, or None."""
  return _subjects.get((core, encoding, variant))


def here() -> jax.Device | None:
  """Returns a device of this process as the program's, or None where there is none."""
  wanted = jax.sharding.get_abstract_mesh().abstract_device
  for device in jax.local_devices():
    if wanted is None or device.device_kind == wanted.device_kind:
      return device
  return None


def _outcome(scheme: CallScheme, device: jax.Device) -> str | None:
  """Returns the outcome on disk, or that of a check now, which is written."""
  path = _path(scheme, device)
  if path and "failure" in (known := _read(path)):
    return known["failure"]
  start, name = time.monotonic(), base.cores.name_of(scheme.core)
  mark = path and path.with_suffix(".running")
  if mark and (ended := _ended(mark)):
    return ended
  if mark:
    _write(
      mark, {"host": socket.gethostname(), "pid": os.getpid(), "try": _tries(mark)}
    )
  try:
    reason = trial.trial(scheme, device)
  finally:
    if mark:
      mark.unlink(missing_ok=True)
  took = f"{time.monotonic() - start:.1f} s"
  what = f"{name} for {scheme.encoding.name} and {scheme.variant.name}"
  if reason is None:
    logging.info("%s equals dense on %s, checked in %s", what, device.device_kind, took)
  else:
    logging.warning("%s is not used on %s: %s", what, device.device_kind, reason)
  if path:
    _write(path, {"failure": reason, "core": what, "seconds": took})
  return reason


def _ended(mark: Path) -> str | None:
  """Returns why a check is not tried again, where earlier ones ended their processes.

  Compilers of accelerators abort at some kernels, and take the process with them. A
  mark of a process that lives is of a check that runs now, beside this one.
  """
  found = _read(mark)
  here = found.get("host") == socket.gethostname()
  if not found or _tries(mark) <= TRIES or (here and _lives(found.get("pid"))):
    return None
  return (
    f"ended its process {TRIES} times when it was checked; delete {mark} to try again"
  )


def _tries(mark: Path) -> int:
  """Returns the number of a new try, from the mark that the last one left."""
  last = _read(mark).get("try", 0)
  return last + 1 if isinstance(last, int) else 1


def _lives(pid: Any) -> bool:
  try:
    os.kill(pid, 0)
  except (OSError, TypeError, OverflowError):
    return False
  return True


def _read(path: Path) -> dict[str, Any]:
  """Returns the content of a small file, {} where it is missing or damaged."""
  with contextlib.suppress(OSError, ValueError):
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}
  return {}


def _write(path: Path, facts: dict) -> None:
  """Writes a small file; without one a check runs again."""
  with contextlib.suppress(OSError):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    part.replace(path)


def _path(scheme: CallScheme, device: jax.Device) -> Path | None:
  """Returns the file of an outcome, or None without a folder of compiled programs."""
  folder = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009, not declared
  bases: Any = (base.Core, PositionalEncoding, Variant)
  classes = [type(part) for part in parts(scheme.subject, bases)]
  # A user's code may change, and a bucket is no folder.
  if not folder or "://" in folder or any(map(outside, classes)):
    return None
  key = repr((scheme, device.platform, device.device_kind, _versions(), _settings()))
  return Path(folder) / FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


@functools.cache
def _versions() -> str:
  """Returns the versions that decide about a program, this package's code included."""
  found = []
  for name in PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found.append(f"{name} {importlib.metadata.version(name)}")
  code = hashlib.sha256()
  for file in sorted(Path(base.__file__).parents[2].rglob("*.py")):
    code.update(file.read_bytes())
  return "; ".join([*found, code.hexdigest()])


def _settings() -> list[Any]:
  """Returns settings of this process that decide about a program."""
  precision = getattr(jax.config, "jax_default_matmul_precision")  # noqa: B009
  return [precision, *map(os.environ.get, VARIABLES)]
