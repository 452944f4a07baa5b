"""Copies the runs of a sweep to Weights & Biases; no training depends on it.

  python -m experiments.track --workdir=runs/quickstart --project=encodings

Reads the folder alone, also while the sweep runs: a W&B run for each seed, with its
config, its metrics by step, and its scores in the summary. Without --online nothing
leaves this machine and no account is needed; `wandb sync` uploads it later. The same
command again adds what is new.
"""

import os
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from experiments.reporting import load
from experiments.reporting.load import ReportError
from experiments.reporting.loaded_run import LoadedRun, finite
from experiments.setup.flag_errors import OF_SWEEP
from transformer_jax import command
from transformer_jax.training import metrics_log

FLAGS = flags.FLAGS


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("workdir", None, "Folder of the sweep, with sweep.json.")
  flags.DEFINE_string(
    "project", None, "Project of W&B; default the name of the folder."
  )
  flags.DEFINE_bool("online", False, "Upload now, to the account of `wandb login`.")


def main(argv: list[str]) -> None:
  """Copies the runs; raises ReportError where there are none, or W&B is missing."""
  if len(argv) > 1:
    raise ReportError(f"'{argv[1]}' is not a flag; write --workdir={argv[1]}")
  command.require(FLAGS, workdir="runs/quickstart")
  workdir = Path(FLAGS.workdir)
  runs = [run for run in load.read(workdir).runs if not run.again_of]
  wandb = library()
  project = FLAGS.project or workdir.resolve().name
  copied = sum(copy(wandb, run, project, workdir, FLAGS.online) for run in runs)
  print(f"{copied} seeds of {len(runs)} runs are in W&B's project {project}")
  if not FLAGS.online:
    print(f"upload them: wandb sync {workdir / 'wandb'}/offline-run-*")


def library() -> types.ModuleType:
  """Returns the wandb package; raises ReportError where it is not installed."""
  os.environ.setdefault("WANDB_SILENT", "true")
  try:
    import wandb
  except ImportError as error:
    raise ReportError(
      f"W&B cannot be imported ({error}); pip install -e .[wandb] adds it"
    ) from error
  return wandb


def copy(
  wandb: types.ModuleType, run: LoadedRun, project: str, workdir: Path, online: bool
) -> int:
  """Copies a run, its seeds apart; returns their number."""
  assert run.folder is not None
  log = run.folder / "metrics.jsonl"
  rows = metrics_log.read(log) if log.is_file() else []
  seeds = sorted({row.get("seed", 0) for row in rows})
  for seed in seeds:
    tracked = wandb.init(
      project=project,
      id=f"{run.id}-{seed}",
      name=f"{run.label} seed {seed}",
      group=f"{run.group}: {run.label}",
      config=run.config | {"group": run.group, "label": run.label, "seed": seed},
      dir=workdir,
      mode="online" if online else "offline",
      resume="allow",
      reinit="finish_previous",
    )
    for row in rows:
      if row.get("seed", 0) == seed and row["step"] > tracked.step:
        tracked.log(_metrics(row), step=row["step"])
    tracked.summary.update(dict(summary(run, seed)))
    tracked.finish(exit_code=int(run.state == "failed"))
  return len(seeds)


def _metrics(row: dict[str, Any]) -> dict[str, Any]:
  return {name: x for name, x in row.items() if name not in ("step", "seed")}


def summary(run: LoadedRun, seed: int) -> Iterator[tuple[str, Any]]:
  """Yields (name, value) of a seed's scores, and of the cost of its run."""
  yield "state", run.state
  for score in run.fact("scores") or ():
    if score["seed"] == seed and finite(score["value"]):
      part = score.get("part", "mean")
      name = score["measure"] + ("" if part == "mean" else f"_{part}")
      yield f"scores/{name}/{score['length']}", score["value"]
  for name in ("parameters", "flops_per_token", "tokens_per_s"):
    if finite(run.fact(name)):
      yield name, run.fact(name)


if __name__ == "__main__":
  define()
  command.run(main, (ReportError, OSError), other_flags=OF_SWEEP)
