"""Progress of a sweep, read from its folder alone: also of runs of other machines."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from experiments.runner import run_progress, time_left
from transformer_jax.training.progress import duration
from transformer_jax.untrusted import shown

RUNNING = (
  "id",
  "label",
  "group",
  "step",
  "steps",
  "loss",
  "host",
  "pid",
  "phase",
  "late_s",
)
FAILED = ("id", "label", "group", "attempts", "reason")


def progress(
  workdir: Path, ids: Collection[str] | None = None, idle: int = 0
) -> dict[str, Any]:
  """Returns how far a sweep is, as values that JSON holds.

  workdir   folder of the sweep
  ids       of the runs that count; None: all of sweep.json
  idle      processes that are about to begin a run

  question  of the plan
  planned   number of runs; None: there is no readable sweep.json yet
  done      number of finished runs
  running   those of RUNNING and left_s, of each: see RunProgress
  failed    those of FAILED, of each
  stopped   number of runs that were interrupted, or whose process has died
  waiting   number of runs that never began
  left_s    seconds until all that can run has run; None: unknown
  left_by   how they are known, in words

  >>> now = progress(Path("no/such/sweep"))
  >>> now["planned"], now["done"]
  (None, 0)
  """
  sweep = run_progress.read_or_empty(workdir / "sweep.json")
  entries = sweep.get("runs")
  entries = entries if isinstance(entries, list) else []
  named = {str(x["id"]): x for x in entries if isinstance(x, dict) and "id" in x}
  runs = [
    run_progress.run_progress(workdir / "runs" / Path(name).name, entry)
    for name, entry in named.items()
    if ids is None or name in ids
  ]
  by_state: dict[str, list[run_progress.RunProgress]] = {}
  for run in runs:
    by_state.setdefault(run.state, []).append(run)
  seconds, source = time_left.time_left(runs, idle)
  known = time_left.Known(runs)
  running = by_state.get(run_progress.RUNNING, [])
  failed = by_state.get(run_progress.FAILED, [])
  return {
    "question": shown(sweep.get("question", "")),
    "planned": len(runs) if sweep else None,
    "done": len(by_state.get(run_progress.FINISHED, ())),
    "running": [_of(x, RUNNING) | {"left_s": known.rest(x)} for x in running],
    "failed": [_of(x, FAILED) for x in failed],
    "stopped": len(by_state.get(run_progress.STOPPED, ())),
    "waiting": len(by_state.get(run_progress.WAITING, ())),
    "left_s": seconds,
    "left_by": source,
  }


def _of(run: run_progress.RunProgress, names: Collection[str]) -> dict[str, Any]:
  return {name: getattr(run, name) for name in names}


def line(now: dict[str, Any]) -> str:
  """Returns progress in a line.

  >>> failed = {"running": [], "failed": [{}], "stopped": 0}
  >>> line(failed | {"planned": 12, "done": 3, "left_s": 90.0})
  '3 of 12 runs done, failed 1, 1 min 30 s left'
  """
  parts = [f"{now['done']} of {now['planned']} runs done"]
  parts += [f"{name} {number}" for name, number in counts(now).items()]
  parts += [f"{duration(now['left_s'])} left"] if now["left_s"] else []
  return ", ".join(parts)


def counts(now: dict[str, Any]) -> dict[str, str]:
  """Returns the facts of a bar of runs: how many run, and how many failed.

  >>> counts({"running": [{}, {}], "failed": [], "stopped": 1})
  {'running': '2', 'stopped': '1'}
  """
  numbers = {
    "running": len(now["running"]),
    "failed": len(now["failed"]),
    "stopped": now["stopped"],
  }
  return {name: str(number) for name, number in numbers.items() if number}
