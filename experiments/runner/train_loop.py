"""Training with checkpoints, a metric log and a progress bar."""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.runner import profiling, run_folder
from experiments.runner.attempt_watch import AttemptWatch, TimedKeeper
from experiments.runner.build import Experiment
from experiments.runner.cost import tokens_per_step
from transformer_jax import hosts
from transformer_jax.training import loop
from transformer_jax.training.dispatch import Program
from transformer_jax.training.dispatch_metrics import DispatchMetrics
from transformer_jax.training.loop import FitResult
from transformer_jax.training.metrics_log import MetricLog
from transformer_jax.training.progress import Progress


def train_with_log(
  experiment: Experiment,
  program: Program,
  arrays: Any,
  folder: Path,
  name: str,
  stop: Any,
  watch: AttemptWatch,
  checkpoints: Path,
  others: Sequence[int] = (),
) -> tuple[FitResult, dict[str, Any]]:
  """Trains all seeds of an experiment.

  program       the compiled dispatch
  arrays        the task's data, on the devices
  folder        of the run
  name          label of the progress bar
  stop          becomes true when training should save and return
  watch         counts the time of steps and checkpoints
  checkpoints   folder of the checkpoints
  others        seeds of the run that are trained apart, whose metrics stay

  Returns (FitResult, facts): tokens/s, one seed's tokens in a step, and steps without
  metrics if any.
  """
  program = dataclasses.replace(program, waiting=lambda: watch.phase("data"))
  program = profiling.traced(program, experiment.budget.per_dispatch)
  opened = functools.partial(TimedKeeper, checkpoints, experiment.keep, watch)
  train = functools.partial(_fit, experiment, program, arrays, stop, opened)
  if not hosts.is_leader():
    return train(lambda metrics: None, lambda step: None), {}
  budget, seeds = experiment.budget, experiment.seeds
  per_step = tokens_per_step(experiment.trainer, arrays)
  tokens = per_step * budget.per_dispatch * len(seeds)
  record_step = run_folder.recorder(folder)
  block = str(checkpoints.parent.relative_to(folder))
  with MetricLog(folder, others) as log, Progress(budget.steps, name) as bar:
    writer = MetricWriter(experiment, log, bar, record_step, tokens, watch, block)
    fitted = train(writer.write, writer.resumed)
    lost = log.mend(writer.logged_steps(fitted.step), seeds)
  facts = {"tokens_per_s": writer.median_speed(), "tokens_per_step": per_step}
  return fitted, facts | ({"rows_lost": lost} if lost else {})


def _fit(
  experiment: Experiment,
  program: Program,
  arrays: Any,
  stop: Any,
  checkpoints: Callable[[], TimedKeeper],
  report: Callable[[DispatchMetrics], None],
  resumed: Callable[[int], None],
) -> FitResult:
  """Trains, on all processes; an error of one ends it on all.

  Arguments are those of `loop.fit` and `train_with_log`.
  """
  hosts.group().exchange("the logs", None)  # the leader has opened them
  with checkpoints() as keeper:

    def fit() -> FitResult:
      return loop.fit(program, arrays, experiment.budget, keeper, report, resumed, stop)

    return hosts.together("the steps", fit)


@dataclasses.dataclass
class MetricWriter:
  """Writes each dispatch's metrics to the log, the run's status and the bar.

  record_step   writes the last step into the run's status
  tokens        of one dispatch, in all seeds
  watch         counts the time of the steps
  block         of seeds, as its folder below that of the run
  speeds        tokens/s of each dispatch so far
  """

  experiment: Experiment
  log: MetricLog
  bar: Progress
  record_step: Callable[[int], None]
  tokens: float
  watch: AttemptWatch
  block: str
  speeds: list[float] = dataclasses.field(default_factory=list)

  def write(self, progress: DispatchMetrics) -> None:
    """Records the metrics of one dispatch, unless the run is another process's now."""
    self.record_step(progress.step)
    self.speeds.append(self.tokens / progress.seconds)
    for place, seed in enumerate(self.experiment.seeds):
      metrics = {key: x_S[place] for key, x_S in progress.metrics.items()}
      self.log.write(progress.step, seed, **metrics, tokens_per_s=self.speeds[-1])
    self.watch.reached(progress.step)
    losses = _losses(progress.metrics["loss"], progress.diverged)
    self.bar.update(progress.step, **losses, tokens_per_s=self.speeds[-1])

  def resumed(self, step: int) -> None:
    """Continues the metric log after a checkpoint's step; 0: a new run."""
    self.log.resume(self.logged_steps(step), self.experiment.seeds)
    self.watch.resumed(self.block, step)
    if step:
      self.bar.update(step, resumed=f"from step {step}")

  def logged_steps(self, last: int) -> range:
    """Returns the steps with metrics, up to the last one."""
    per_dispatch = self.experiment.budget.per_dispatch
    return range(per_dispatch, last + 1, per_dispatch)

  def median_speed(self) -> float:
    """Returns tokens/s; NaN without any dispatch."""
    return statistics.median(self.speeds) if self.speeds else float("nan")


def _losses(loss_S: np.ndarray, diverged: int) -> dict[str, float | str]:
  """Returns the mean loss of the finite seeds, and the number of diverged ones."""
  finite_S = np.isfinite(loss_S)
  losses: dict[str, float | str] = {}
  if finite_S.any():
    losses["loss"] = float(loss_S[finite_S].mean())
  if diverged:
    losses["diverged"] = f"{diverged} of {len(loss_S)} seeds"
  return losses
