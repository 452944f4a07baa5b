"""Looks that a sweep declares: a schedule once recorded stays."""

from collections.abc import Sequence

from experiments.runner.seed_blocks import spelled
from experiments.setup import looks as schedules
from experiments.setup.command_line import Request
from experiments.setup.looks import Looks
from experiments.setup.runs import Run
from experiments.setup.tuning import Tune
from experiments.setup.validate import ConfigError


def looks_of(request: Request, todo: Sequence[Run]) -> Looks | None:
  """Returns the looks of a sweep: those of its folder, else of the command line.

  Raises ConfigError for seeds that a recorded schedule does not have.
  """
  there = schedules.recorded(request.workdir)
  if there is not None:
    _check_recorded(request, todo, there)
  if there is not None or not request.until:
    return there
  by_seeds: dict[tuple[int, ...], Run] = {tuple(x.config.seeds): x for x in todo}
  if len(by_seeds) > 1:
    first, second, *_ = by_seeds.values()
    raise ConfigError(
      f"--until={request.until}: all runs start with the same seeds, but"
      f" '{first.label}' has {tuple(first.config.seeds)} and '{second.label}'"
      f" {tuple(second.config.seeds)}; plan them in two sweeps"
    )
  # Ids are not known yet where values are still to be tuned or solved for.
  late = any(request.workdir.glob("runs/*/result.json"))
  (seeds,) = by_seeds
  return schedules.declared(seeds, request.max_seeds or schedules.MOST, late)


def _check_recorded(request: Request, todo: Sequence[Run], there: Looks) -> None:
  """Raises ConfigError where a command line goes beyond a recorded schedule."""
  at = ", ".join(map(str, there.counts))
  declared = f"{request.workdir / 'sweep.json'} declares looks at {at} seeds"
  if (request.max_seeds or 0) > there.counts[-1]:
    raise ConfigError(
      f"--max_seeds={request.max_seeds}: {declared}, and further ones would not keep"
      f" the error at 5%; write --max_seeds={there.counts[-1]} or less, or another"
      " --workdir"
    )
  for run in todo:
    if others := [seed for seed in run.config.seeds if seed not in there.seeds]:
      raise ConfigError(
        f"seeds={tuple(run.config.seeds)}: {declared}, of {spelled(there.seeds)}, and"
        f" no verdict would read seed {others[0]}; choose seeds among these, or another"
        " --workdir"
      )
  planned = max(len(run.config.seeds) for run in todo)
  if request.max_seeds and request.max_seeds < planned:
    raise ConfigError(
      f"--max_seeds={request.max_seeds}: the plan has {planned} seeds; write a number"
      f" from {planned} to {there.counts[-1]}"
    )


def check_tuning(looks: Looks, tune: Tune) -> None:
  """Raises ConfigError where a search has a seed that a later look may add."""
  if both := {*tune.seeds} & {*looks.seeds}:
    raise ConfigError(
      f"tune: seed {min(both)} may be one of the report's, which has up to"
      f" {looks.counts[-1]} seeds; a search has other seeds, as in Tune(...,"
      f" seeds=({max(looks.seeds) + 1},))"
    )
