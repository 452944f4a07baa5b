"""Wall time of the quickstart plan by phase, with a cold and a warm cache."""

import datetime
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.bench.worker import ROOT
from experiments.runner import provenance
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
  command += ["--workers=1"]  # phases of several at once are no parts of the wall time
  command += [f"--workdir={folder}", *(QUICK if quick else ())]
  start = time.perf_counter()
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  wall = time.perf_counter() - start
  if done.returncode:
    raise RuntimeError(f"{CONFIG} failed: {(done.stderr or done.stdout)[-300:]}")
  results = [read_json(path) for path in folder.glob("runs/*/result.json")]
  return {
    **split(wall, [result["seconds"] for result in results]),
    "runs": len(results),
    "commit": provenance.commit()[0],
    "date": datetime.date.today().isoformat(),
  }


def split(wall: float, seconds: list[dict[str, float]]) -> dict[str, float]:
  """Returns wall seconds by phase; time outside all phases of a run is idle.

  That is imports, reading data, preparing runs, saving, and writing the report.
  """
  total = {n: sum(s[n] for s in seconds) for n in ("compile", "train", "evaluate")}
  return {"wall": wall, **total, "idle": wall - sum(total.values())}
