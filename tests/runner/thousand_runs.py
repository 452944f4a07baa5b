"""A sweep of many runs by many workers, with made training; prints what it costs.

  python tests/runner/thousand_runs.py 1000 100 FOLDER

The workers are processes that share the folder. All but two take runs from the queue of
one command; two are commands of their own, which walk through all runs. Training writes
the metrics and scores of tests/fake_sweep.py, and all else is as in a real sweep.
"""

import json
import multiprocessing
import os
import resource
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "reporting")]

LENGTHS = (64, 128, 256, 512)


def trained(config, folder, name, stop):
  """Stands for experiments/runner/train.py: notes the run, writes its metrics."""
  import numpy as np
  from fake_sweep import HEADLINES, facts, made_log, made_scores

  with open(folder.parents[1] / "trained", "a") as log:
    log.write(f"{folder.name}\n")
  rng = np.random.default_rng(int(folder.name, 16))
  (folder / "metrics.jsonl").write_text("".join(made_log(2.0, (0, 1, 2), rng)))
  time.sleep(rng.uniform(0, 0.02))
  measures = HEADLINES["bits_per_byte"]
  means = rng.uniform(2.4, 3.6, len(LENGTHS))
  return {
    **facts("rope"),
    "seeds": [0, 1, 2],
    "measures": [{"name": name, "better": better} for name, better in measures],
    "train_length": LENGTHS[0],
    "lengths": list(LENGTHS),
    "scores": made_scores(measures, means, (0, 1, 2), LENGTHS, rng),
    "undefined": {},
  }


def plan(count):
  from experiments.configs import base
  from experiments.setup.plan import Chain, Grid, Group, Plan

  bases = tuple(f"rope(base={1000 + n}.0)" for n in range(count // 2))
  grid = Grid({"model.position": bases})
  groups = Chain(Group("text", grid), Group("copy", grid, {"task": "copy"}))
  return base.get_config(), Plan("Which base?", groups, baseline=bases[0])


def work(loop, names, queue, walks):
  """Works on runs as a worker does; prints nothing."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
  if walks:
    return list(loop.outcomes())
  while (place := queue.get()) is not None:
    loop.attempt(names[place])
  return None


def main(count, workers, workdir):
  from experiments import sweep
  from experiments.runner import provenance, run_folder, sweep_loop
  from experiments.setup import command_line, runs
  from transformer_jax.training.signals import Stop

  sys.modules["experiments.runner.train"] = types.SimpleNamespace(run=trained)
  # Of one process: a real worker asks git once.
  record = {"commit": "0", "sources": "0", "versions": {}, "device": "cpu: 1 core"}
  provenance.facts = lambda: (record, b"")
  base, planned = plan(count)
  begun = time.perf_counter()
  todo = runs.expand(planned, base, {})
  expanded = time.perf_counter() - begun
  request = command_line.Request(
    ROOT / "experiments/configs/quickstart.py", base, {}, planned, workdir, False, False
  )
  content = sweep.content(request, todo, planned.baseline, None)
  sweep_loop.begin(workdir, lambda: content)
  loop = sweep_loop.SweepLoop(request, todo, Stop())
  names = list(loop._runs)
  context = multiprocessing.get_context("fork")
  queue = context.Queue()
  for place in [*range(len(names)), *[None] * workers]:
    queue.put(place)
  begun = time.perf_counter()
  processes = [
    context.Process(target=work, args=(loop, names, queue, number < 2))
    for number in range(workers)
  ]
  for process in processes:
    process.start()
  for process in processes:
    process.join()
  took = time.perf_counter() - begun
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  done = [json.loads(path.read_text()) for path in workdir.glob("runs/*/status.json")]
  files = [path for path in workdir.rglob("*") if path.is_file()]
  print(
    json.dumps(
      {
        "runs": len(todo),
        "finished": sum(status["state"] == "finished" for status in done),
        "trained": len((workdir / "trained").read_text().split()),
        "exit_codes": sorted({process.exitcode for process in processes}),
        "expand_s": round(expanded, 2),
        "wall_s": round(took, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "folder": str(run_folder.folder(workdir, todo[0]).parent),
      }
    )
  )


if __name__ == "__main__":
  main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
