"""What a result was made with: code, versions, machine."""

import importlib.metadata
import os
import platform
import subprocess
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def commit() -> tuple[str, str]:
  """Returns the git commit and the difference from it; a commit of "" outside git.

  A changed tree is `1a2b3c4d5e+0f9e8d7c`, so that two different changes differ.
  """
  if not _git("ls-files", "--error-unmatch", str(Path(__file__))):
    return "", ""  # installed, perhaps below somebody else's repository
  head, changes = _git("rev-parse", "--short=10", "HEAD").strip(), _git("diff", "HEAD")
  return head + (f"+{zlib.crc32(changes.encode()):08x}" if changes else ""), changes


def _git(*words: str) -> str:
  """Returns what git prints, "" where it cannot."""
  try:
    done = subprocess.run(
      ["git", "-C", str(ROOT), *words], capture_output=True, timeout=30, check=True
    )
  except (OSError, subprocess.SubprocessError):
    return ""
  return done.stdout.decode(errors="replace")


def versions() -> dict[str, str]:
  found = {name: importlib.metadata.version(name) for name in PACKAGES}
  return {"python": platform.python_version(), **found}


def device() -> str:
  """Returns the devices in words: `cpu: AMD EPYC 7B13, 2 cores`, `4 x tpu v5e`."""
  import jax

  first = jax.devices()[0]
  if first.platform == "cpu":
    return f"cpu: {_processor()}, {_cores()} cores"
  return f"{jax.device_count()} x {first.platform} {first.device_kind}"


def _cores() -> int:
  """Returns how many this process may use, where the system says so."""
  affinity = getattr(os, "sched_getaffinity", None)
  return len(affinity(0)) if affinity else os.cpu_count() or 1


def _processor() -> str:
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
  return names[0] if names else platform.processor() or platform.machine()


def facts() -> tuple[dict[str, Any], str]:
  """Returns what is saved with each result, and the patch that leads to its code."""
  name, changes = commit()
  made_with = {"commit": name, "versions": versions(), "device": device()}
  return made_with, changes
