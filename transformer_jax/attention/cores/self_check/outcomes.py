"""Outcomes of checks, kept in memory and beside the compiled programs."""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Iterator
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
PACKAGES = "jax", "jaxlib", "libtpu", "jax-cuda13-plugin", "jax-cuda12-plugin"
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
  if key not in _outcomes:
    reason = _outcome(scheme, device)
    reasons = hosts.group().exchange("the check of a kernel", reason)
    _outcomes[key] = next(filter(None, reasons), None)
    if reason := _outcomes[key]:
      _subjects[scheme.subject] = reason
  return _outcomes[key]


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
  if path and path.exists():
    with contextlib.suppress(OSError, ValueError, KeyError):
      return json.loads(path.read_text(encoding="utf-8"))["failure"]
  start, name = time.monotonic(), base.cores.name_of(scheme.core)
  with _marked(path) as ended:
    reason = ended or trial.trial(scheme, device)
  took = f"{time.monotonic() - start:.1f} s"
  what = f"{name} for {scheme.encoding.name} and {scheme.variant.name}"
  if reason is None:
    logging.info("%s equals dense on %s, checked in %s", what, device.device_kind, took)
  else:
    logging.warning("%s is not used on %s: %s", what, device.device_kind, reason)
  if path:
    _write(path, {"failure": reason, "core": what, "seconds": took})
  return reason


@contextlib.contextmanager
def _marked(path: Path | None) -> Iterator[str | None]:
  """Marks a check that runs; yields why none should, where one ended its process.

  Compilers of accelerators abort at some kernels: the next start must not try again.
  """
  mark = path and path.with_suffix(".running")
  if mark and mark.exists():
    yield f"ended its process when it was checked; delete {mark} to try again"
    mark.unlink(missing_ok=True)
    return
  if mark:
    _write(mark, {})
  try:
    yield None
  finally:
    if mark:
      mark.unlink(missing_ok=True)


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
  if not folder or any(map(outside, classes)):  # a user's code may change
    return None
  key = repr((scheme, device.platform, device.device_kind, _versions()))
  return Path(folder) / FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


@functools.cache
def _versions() -> str:
  """Returns the versions that decide about a program, this package's code included."""
  found = []
  for name in PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found.append(f"{name} {importlib.metadata.version(name)}")
  root = Path(base.__file__).parents[2]
  code = hashlib.sha256()
  for file in sorted(root.glob("attention/**/*.py")) + sorted(
    root.glob("positions/**/*.py")
  ):
    code.update(file.read_bytes())
  return "; ".join([*found, code.hexdigest()])
