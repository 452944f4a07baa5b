"""Runs the plan of a config file, all of it, and writes a report that answers it.

  python -m experiments.sweep --config=experiments/configs/quickstart.py

Flags such as --config.train.steps=800 hold for every run; a flag for a key of which the
plan tries several values wins, and the plan shrinks. Finished runs are skipped, so the
same command continues after anything. On a CPU one process for each core works on the
runs: --workers=1 leaves the other cores to other work.
Exit code 0: all finished; 1: some did not; 2: bad input; 128 + signal: stopped.
"""

from experiments.runner.sweep_loop import work
from experiments.setup import config_file, flags, runs
from experiments.setup.validate import ConfigError
from transformer_jax.training.log import make_patient


def main(request: flags.Request) -> int:
  """Expands the plan and works through it."""
  if request.plan is None:
    raise ConfigError(
      f"{request.path} defines no sweep(); use experiments.run, or add"
      " def sweep() that returns a Plan"
    )
  todo = runs.expand(request.plan, request.base, request.overrides)
  sweep = {
    "question": request.plan.question,
    "config": config_file.short(request.path),
    "command": request.command("sweep"),
    "baseline": runs.baseline(request.plan, todo),
    "groups": list(dict.fromkeys(run.group for run in todo)),
    "runs": [{"id": run.id, "label": run.label, "group": run.group} for run in todo],
  }
  if not request.dry_run:
    _announce(request)
  return work(request, "sweep", lambda: sweep, runs.only(todo, request.groups))


def _announce(request: flags.Request) -> None:
  """Prints the question and, for the plan as it was measured, the time it takes."""
  assert request.plan is not None
  make_patient()
  print(request.plan.question, flush=True)
  if request.plan.cost and not (request.overrides or request.groups):
    print(
      f"All runs take {request.plan.cost}. Stopping loses nothing: the same command"
      " continues.",
      flush=True,
    )


if __name__ == "__main__":
  flags.start(main)
