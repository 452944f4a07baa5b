"""Runs the plan of a config file, all of it, and writes a report that answers it.

  python -m experiments.sweep --config=experiments/configs/quickstart.py

Flags such as --config.train.steps=800 hold for every run; a flag for a key of which the
plan tries several values wins, and the plan shrinks. Finished runs are skipped, so the
same command continues after anything. On a CPU one process for each core works on the
runs: --workers=1 leaves the other cores to other work. --until=resolved adds seeds to
runs whose comparisons are not resolved, up to --max_seeds.
Exit code 0: all finished; 1: some did not; 2: bad input; 128 + signal: stopped.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

from experiments.runner import declared_looks, history, sweep_loop
from experiments.runner.hosts import compare
from experiments.runner.hosts.join import joined
from experiments.runner.launchers import launcher_of
from experiments.runner.locks import claim
from experiments.setup import config_file, flags, runs
from experiments.setup import looks as schedules
from experiments.setup.command_line import Request
from experiments.setup.looks import Looks
from experiments.setup.runs import Run
from experiments.setup.tuning import Tune
from experiments.setup.validate import ConfigError
from transformer_jax.training.json_files import write_json
from transformer_jax.training.log import make_patient


def main(request: Request) -> int:
  """Expands the plan and works through it."""
  if request.plan is None:
    raise ConfigError(
      f"{request.path} defines no sweep(); use experiments.run, or add"
      " def sweep() that returns a Plan"
    )
  todo = runs.expand(request.plan, request.base, request.overrides)
  baseline = runs.baseline(request.plan, todo)
  comparisons = runs.comparisons(request.plan, todo)
  launcher = launcher_of(request.launcher)
  if launcher.carries_command:
    sweep_loop.check(request, todo)
    return launcher.carry(request)
  looks, tune = (
    declared_looks.looks_of(request, todo),
    request.tune or request.plan.tune,
  )
  if looks and tune:
    declared_looks.check_tuning(looks, tune)
  todo = matched(request, todo, baseline, looks)
  if not request.dry_run:
    _announce(request, todo)
  if tune:
    code, todo = tuned(request, todo, tune)
    if code:
      return code
  todo = history.in_folders(request.workdir, todo)
  sweep = content(request, todo, baseline, looks)

  def checked() -> dict[str, Any]:
    # Tasks know their measures: once the configs of all runs are known to be sound.
    from transformer_jax.evaluation import task_evaluations

    runs.check_cells(comparisons, todo, task_evaluations.measures())
    if looks:
      schedules.keep(request.workdir, looks)
    return sweep

  chosen = runs.only(todo, request.groups)
  if request.until and looks:
    compare.in_one_process(f"--until={request.until}")
    from experiments import until_resolved  # imports all libraries

    return until_resolved.work(request, checked, chosen, looks)
  return sweep_loop.work(request, "sweep", checked, chosen)


def tuned(request: Request, todo: list[Run], tune: Tune) -> tuple[int, list[Run]]:
  """Returns the exit code of the search, 0 if it finished, and the runs it tuned.

  Runs of groups that are not asked for are tuned where their search is done.
  """
  from experiments.runner import search

  compare.in_one_process("a search (--tune)")
  chosen = runs.only(todo, request.groups)
  search.announce(request, chosen, tune)
  every = [trial for run in chosen for trial in search.trials(run, tune)]
  if request.dry_run:
    sweep_loop.check(request, every)
  elif code := search.search(request, chosen, tune):
    return code, todo
  return 0, [search.tuned(request.workdir, run, tune) or run for run in todo]


def content(
  request: Request, todo: Sequence[Run], baseline: str, looks: Looks | None
) -> dict[str, Any]:
  """Returns the content of sweep.json.

  looks   of a sweep that adds seeds until it is resolved; None: it has none
  """
  assert request.plan is not None
  declared = {"looks": looks.to_json()} if looks else {}
  return {
    "question": request.plan.question,
    "config": config_file.short(request.path),
    "command": request.command("sweep"),
    "baseline": baseline,
    "comparisons": runs.comparisons(request.plan, todo).to_json(),
    **declared,
    "groups": list(dict.fromkeys(run.group for run in todo)),
    "runs": [run.entry() for run in todo],
  }


def matched(
  request: Request, todo: list[Run], baseline: str, looks: Looks | None = None
) -> list[Run]:
  """Returns the runs with the budgets that the plan matches; raises ConfigError.

  What earlier commands measured is read from sweep.json. Measuring and writing is done
  in one lock, so that commands that share the folder agree.
  """
  if not any(run.match for run in todo):
    return todo
  from experiments.runner import compile_cache, process, solver, step_time

  sweep_loop.check(request, todo)
  workdir, timer = request.workdir, None
  timed = any(run.match and run.match.quantity == "seconds" for run in todo)
  timed = timed and not request.dry_run
  if timed:
    compare.in_one_process("a plan that matches seconds")
    process.keep_memory()
    timer = step_time.timer(compile_cache.folder_of(workdir))
  alone = claim(workdir, wait=True) if timed else contextlib.nullcontext()
  with alone:
    todo = solver.solve(todo, baseline, solver.recorded(workdir), timer)
    if timed:
      write_json(workdir / "sweep.json", content(request, todo, baseline, looks))
  return todo


def _announce(request: Request, todo: Sequence[Run]) -> None:
  """Prints the question, the time of a plan as measured, and what was solved for."""
  assert request.plan is not None
  make_patient()
  print(request.plan.question, flush=True)
  if request.plan.cost and not (request.overrides or request.groups):
    print(
      f"All runs take {request.plan.cost}. Stopping loses nothing: the same command"
      " continues.",
      flush=True,
    )
  for run in todo:
    if run.matched and run.matched.overrides:
      print(f"{run.group} {run.label}: {run.matched.sentence()}", flush=True)


if __name__ == "__main__":
  flags.start(joined(main))
