"""Virtual environments of the peer libraries, made once, beside the project's."""

import shutil
import subprocess
import sys
import zlib
from pathlib import Path

from experiments.bench.worker import ROOT

HOME = ROOT / ".venv-peers"
PEERS = {  # requirements, and the worker's script
  "torch": ("requirements-peers.txt", "tools/peers/torch_worker.py"),
  "flax": ("requirements-peers-flax.txt", "tools/peers/flax_worker.py"),
}


class MissingPeers(RuntimeError):
  """An environment could not be made; the message has the cure."""


def command(name: str) -> list[str]:
  """Returns the command that starts a worker, making its environment first."""
  requirements, script = PEERS[name]
  return [str(_environment(name, ROOT / requirements)), str(ROOT / script)]


def _environment(name: str, requirements: Path) -> Path:
  """Returns the Python of an environment in which these requirements are installed.

  The stamp's name has a hash of the requirements and it is written last: half an
  installation does not count.
  """
  folder = HOME / name
  requested = f"{sys.version_info[:3]} {requirements.read_text('utf-8')}"
  stamp = folder / f"ready-{zlib.crc32(requested.encode()):08x}"
  python = folder / "bin" / "python"
  if stamp.exists():
    return python
  print(f"Installing {requirements.name} into {folder}, once ...", flush=True)
  shutil.rmtree(folder, ignore_errors=True)
  install = [str(python), "-m", "pip", "install", "--quiet", "--quiet"]
  install += ["--disable-pip-version-check", "--requirement", str(requirements)]
  for step in ([sys.executable, "-m", "venv", str(folder)], install):
    done = subprocess.run(step, capture_output=True, text=True)
    if done.returncode:
      lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
      raise MissingPeers(
        f"no environment for {requirements.name} ({lines[-1]}): it needs the network"
        " this once. Run again with it, or leave other libraries out with --nopeers"
      )
  stamp.touch()
  return python
