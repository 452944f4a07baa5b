"""Time of the quickstart plan by phase, with a cold and a warm cache."""

import datetime
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.bench.worker import ROOT
from experiments.runner import process, provenance
from transformer_jax.training.json_files import read_json

CONFIG = "experiments/configs/quickstart.py"
QUICK = (
  "--groups=copy",
  "--config.train.steps=90",
  "--config.train.checkpoint_every=90",
)


def measured(quick: bool) -> dict[str, dict[str, Any]]:
  """Runs the plan twice in a new folder; the second time its programs are there."""
  with tempfile.TemporaryDirectory() as folder:
    times = {"cold cache": _once(Path(folder), quick)}
    shutil.rmtree(Path(folder) / "runs")
    times["warm cache"] = _once(Path(folder), quick)
  return times


def _once(folder: Path, quick: bool) -> dict[str, Any]:
  command = [sys.executable, "-m", "experiments.sweep", f"--config={CONFIG}"]
  command += [f"--workdir={folder}", *(QUICK if quick else ())]
  start = time.perf_counter()
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  wall = time.perf_counter() - start
  if done.returncode:
    raise RuntimeError(f"{CONFIG} failed: {(done.stderr or done.stdout)[-300:]}")
  results = [read_json(path) for path in folder.glob("runs/*/result.json")]
  workers = min(process.available(), len(results))  # with a core each
  return {
    **split(wall, workers, [result["seconds"] for result in results]),
    "workers": workers,
    "runs": len(results),
    "device": provenance.device(),
    "commit": provenance.commit()[0],
    "date": datetime.date.today().isoformat(),
  }


def split(
  wall: float, workers: int, seconds: Sequence[Mapping[str, float]]
) -> dict[str, float]:
  """Returns wall seconds, and the workers' seconds by phase.

  Time outside all phases of a run is idle: imports, reading data, preparing runs,
  saving, the report, and the end, when a worker has no run left.

  wall      seconds of the whole plan
  workers   processes that worked on it
  seconds   of each run by phase
  """
  total = {n: sum(s[n] for s in seconds) for n in ("compile", "train", "evaluate")}
  return {"wall": wall, **total, "idle": wall * workers - sum(total.values())}
