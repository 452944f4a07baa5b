"""Command of the benchmark of an accelerator: its flags, its file, its exit code."""

import contextlib
import fcntl
import functools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.bench import runner
from experiments.bench.device_groups import DevicePlan
from experiments.bench.device_runner import (
  Deadline,
  DeviceBench,
  PatientWorker,
  wrong_in,
)
from experiments.bench.worker import ROOT, Worker, WorkerError
from experiments.runner import process
from transformer_jax.training.json_files import FileError

WORKER = [sys.executable, "-m", "experiments.bench.device_worker"]
TORCH = ROOT / "tools" / "peers" / "torch_device_worker.py"
# JAX and PyTorch share the device's memory, which JAX would take whole at its start.
SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_CLIENT_MEM_FRACTION": "0.65"}
ANSWER = 150.0  # seconds for one case, compiling included
COMPARING = 4  # processes that compare at once on a GPU: compiling takes most of it
NONE_HERE = (
  "--device: there is no accelerator here ({device}). On a TPU VM run pip install -e"
  " '.[tpu]', with an NVIDIA GPU pip install -e '.[cuda]'; or rehearse on this CPU,"
  " with interpreted kernels and tiny shapes, by --device --tiny"
)


def file_for(kind: str) -> Path:
  """Returns the file of a device's figures.

  >>> file_for("NVIDIA H200").name
  'device_nvidia_h200.json'
  """
  slug = re.sub(r"[^a-z0-9]+", "_", kind.lower()).strip("_")
  return ROOT / "docs" / "results" / f"device_{slug}.json"


def measure(
  output: str, minutes: float, tiny: bool, torch_python: str, names: tuple[str, ...]
) -> int:
  """Runs the benchmark on the accelerator of this machine; returns the exit code.

  output         file of the figures; "": named after the device, in docs/results
  minutes        time budget
  tiny           rehearse on a CPU
  torch_python   Python with PyTorch for this device; "": without PyTorch
  names          encodings to compare

  Raises ValueError, in one sentence, for bad input.
  """
  deadline = Deadline(minutes)
  _check(minutes, torch_python)
  start = functools.partial(_start, deadline, torch_python)
  try:
    with runner.Sides(start) as sides:
      versions = sides["ours"].versions()
  except WorkerError as error:
    raise ValueError(f"the device did not start: {error}") from error
  if (versions["platform"] == "cpu") != tiny:
    raise ValueError(
      "--tiny is for a CPU, and this machine has an accelerator: leave it out"
      if tiny
      else NONE_HERE.format(device=versions["device"])
    )
  rehearsal = ROOT / "runs" / "bench" / "rehearsal.json"
  path = Path(output) if output else rehearsal if tiny else file_for(versions["kind"])
  plan = DevicePlan(versions["platform"], names, torch=bool(torch_python))
  cores = min(COMPARING, max(1, process.available() // 2))
  at_once = cores if versions["platform"] == "gpu" else 1
  with alone(path):
    store = _store(path, versions)
    left = DeviceBench(store, plan, start, deadline, at_once).run()
  return _close(store, left)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
  """Holds a lock beside a file; raises ValueError where another benchmark has it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  lock = path.with_name(f".{path.name}.lock")
  with open(lock, "w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise ValueError(
        f"--output={path}: another benchmark is writing it; wait for it, or write"
        " another file"
      ) from error
    try:
      yield
    finally:
      lock.unlink(missing_ok=True)


def _check(minutes: float, torch_python: str) -> None:
  if not 0 < minutes:
    raise ValueError(f"--minutes={minutes:g}: write a number above 0, as 8")
  if torch_python and not Path(torch_python).is_file():
    raise ValueError(
      f"--torch_python={torch_python}: there is no such file; write the path of a"
      " Python that imports torch, as .venv-torch/bin/python"
    )


def _start(deadline: Deadline, torch_python: str, side: str) -> Worker:
  command = WORKER if side == "ours" else [torch_python, str(TORCH)]
  env = {**os.environ, **(SHARED if side == "ours" else {})}
  return PatientWorker(command, env, lambda: min(ANSWER, max(1.0, deadline.left)))


def _store(path: Path, versions: dict[str, Any]) -> runner.Store:
  """Returns the file of figures, of this device; raises ValueError for another's."""
  try:
    store = runner.Store(path)
  except (FileError, OSError) as error:
    raise ValueError(f"--output={path}: {error}; write another file") from error
  figures = store.figures
  groups = figures.get("sections") if isinstance(figures, dict) else None
  if not isinstance(groups, dict) or not isinstance(figures.get("versions", {}), dict):
    raise ValueError(
      f"--output={path}: it holds no figures of a device; write another file"
    )
  before = figures.get("versions", versions).get("device")
  if before != versions["device"]:
    raise ValueError(
      f"--output={path}: its figures are of {before}, and this is"
      f" {versions['device']}; write another file"
    )
  store.figures["versions"] = versions
  store.save()
  return store


def _close(store: runner.Store, left: list[str]) -> int:
  """Says what was written, what is left and what is wrong; returns the exit code."""
  print(f"wrote {store.path}")
  if left:
    print(f"left: {', '.join(left)}. The same command again goes on from here.")
  compared = store.figures["sections"].get("compare", {})
  wrong = [f"{name}: {x}" for name, group in compared.items() for x in wrong_in(group)]
  if wrong:
    print(f"error: {len(wrong)} results differ from dense's:", file=sys.stderr)
    print("\n".join(f"  {line}" for line in wrong), file=sys.stderr)
  return 1 if wrong else 0
