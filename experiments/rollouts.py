"""Lets a trained Decision Transformer play: its return under target returns.

  python -m experiments.rollouts --run=runs/decision/runs/ID
  python -m experiments.rollouts --run=runs/decision/runs/ID --targets=100,300,500 \\
    --episodes=32 --picture=returns.png

Each seed of a run of the task `decision` plays as many episodes of each target, from
the same first states. A line has the target, the mean return of the seeds with its 95%
interval, and the lowest and highest seed; the policies of the data come below.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from experiments.analysis import TrainedRun, load_run
from experiments.reporting.statistics import estimate
from experiments.reporting.text import plus_minus
from experiments.runner import train
from experiments.runner.process import check_platform
from experiments.setup.flag_errors import OF_SWEEP
from experiments.setup.flags import ALLOW
from experiments.setup.validate import ConfigError
from transformer_jax import command
from transformer_jax.data.control.control_set import ControlSet
from transformer_jax.data.tasks.control.decision_task import Decision
from transformer_jax.evaluation.rollout_eval import Player, RolloutEval
from transformer_jax.training.unusable import CheckpointError

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # --help lists them under the command itself


@dataclasses.dataclass(frozen=True, eq=False)
class Rollouts:
  """Returns of a run's seeds.

  control      the problem, with the returns of those who played the data
  target_T     target returns
  return_STE   of each seed, target and episode
  seeds        their numbers

  >>> returns = {"data": [100.0, 50.0, 200.0]}
  >>> control = ControlSet("CartPole-v1", (0,), None, None, 200.0, returns)
  >>> return_STE = np.array([[[180.0]], [[190.0]]])
  >>> found = Rollouts(control, np.array([200.0]), return_STE, seeds=(0, 1))
  >>> for line in found.lines():
  ...   print(line)
  target 200   return 185.000 ± 63.531   seeds 180 to 190
  data   100 ± 50, best 200
  """

  control: ControlSet
  target_T: np.ndarray
  return_STE: np.ndarray
  seeds: Sequence[int]

  def lines(self) -> Iterator[str]:
    """Yields a line of text for each target, and for each player of the data."""
    for target, return_S in zip(self.target_T, self.return_STE.mean(2).T, strict=True):
      ends = f"{return_S.min():.4g} to {return_S.max():.4g}"
      found = plus_minus(estimate(return_S))
      yield f"target {target:.4g}   return {found}   seeds {ends}"
    for name, (mean, spread, best) in self.control.returns.items():
      yield f"{name}   {mean:.3g} ± {spread:.3g}, best {best:.4g}"


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run", None, "Folder of a run: the one with config.json.")
  flags.DEFINE_list("targets", [], "Target returns, growing; empty: those of the run.")
  flags.DEFINE_integer("episodes", 16, "Episodes of each target.", lower_bound=1)
  flags.DEFINE_string(
    "picture", "", "File of the curve, as in returns.png; empty: none."
  )
  flags.DEFINE_list("allow", [], ALLOW)


def main(argv: list[str]) -> None:
  """Prints the returns, and draws them where a picture is asked for."""
  if argv[1:]:
    raise ConfigError(f"'{argv[1]}' is not a flag; write --run={argv[1]}")
  command.require(FLAGS, run="runs/decision/runs/ID")
  picture = Path(FLAGS.picture).expanduser()
  if FLAGS.picture:
    check_picture(picture)
  check_platform()
  run = load_run(Path(FLAGS.run), allow=FLAGS.allow)
  found = play(run, numbers(FLAGS.targets), FLAGS.episodes)
  for line in found.lines():
    print(line)
  if FLAGS.picture:
    draw(found, picture)
    print(f"picture: {FLAGS.picture}")


def check_picture(path: Path) -> None:
  """Raises ConfigError unless a picture can be written there: before anything plays."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  if path.suffix[1:].lower() not in FigureCanvasAgg.get_supported_filetypes():
    raise ConfigError(f"--picture={path}: write a name that ends in .png, .svg or .pdf")
  if not path.parent.is_dir():
    raise ConfigError(f"--picture={path}: there is no folder {path.parent}; make it")


def numbers(targets: Sequence[str]) -> tuple[float, ...]:
  """Returns growing target returns; raises ConfigError for other texts."""
  try:
    found = tuple(float(target) for target in targets)
  except ValueError:
    found = (np.nan,)
  if not np.isfinite(found).all() or [*found] != sorted({*found}):
    raise ConfigError(
      f"--targets={','.join(targets)}: write growing numbers, as in --targets=100,500"
    )
  return found


def play(
  run: TrainedRun, targets: tuple[float, ...] = (), episodes: int = 16
) -> Rollouts:
  """Returns the returns of all seeds of a run.

  targets    growing target returns; (): those that the run was scored with

  Raises ConfigError for a run of another task.
  """
  if not isinstance(run.task, Decision):
    raise ConfigError(
      f"{run.folder} was trained on task={run.config.task}, which is no game; name a"
      " run of the task decision"
    )
  control = run.task.generation_set(train.load(run.task).fitted)
  asked = targets or tuple(run.config.evaluate.target_returns)
  how = RolloutEval(episodes, asked)
  length = run.experiment.trainer.length
  players = [Player(run.model, params, length) for params in run.params.values()]
  returns = [how.returns(control, player) for player in players]
  target_T = np.array(how.target_returns(control))
  return Rollouts(control, target_T, np.array(returns), run.seeds)


def draw(found: Rollouts, path: Path) -> None:
  """Writes a PNG of the return by target return, with a line for each seed."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6, 4), layout="constrained")
  FigureCanvasAgg(figure)
  ax = figure.subplots()
  ax.plot(found.target_T, found.target_T, "--", color="grey", label="asked for")
  ax.axhline(found.control.returns["data"][0], ls=":", color="grey", label="the data")
  for seed, return_TE in zip(found.seeds, found.return_STE, strict=True):
    ax.plot(found.target_T, return_TE.mean(1), marker="o", label=f"seed {seed}")
  ax.set_xlabel("target return")
  ax.set_ylabel("return")
  ax.set_title(found.control.environment)
  ax.legend(frameon=False)
  figure.savefig(path, dpi=160)


if __name__ == "__main__":
  define()
  command.run(main, (CheckpointError, ValueError, OSError), other_flags=OF_SWEEP)
