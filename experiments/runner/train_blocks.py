"""Training of a run's blocks of seeds, those alone that are not trained yet."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from experiments.runner import seed_blocks, state
from experiments.runner.attempt_watch import AttemptWatch
from experiments.runner.build import Experiment
from experiments.runner.seed_blocks import SeedBlock
from experiments.runner.train_loop import train_with_log
from transformer_jax import hosts
from transformer_jax.training import dispatch, dispatch_metrics, seed_parts
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.dispatch import Program
from transformer_jax.training.json_files import FileError, read_object
from transformer_jax.training.loop import FitResult

MEASURED = ("peak_bytes", "tokens_per_s", "tokens_per_step", "rows_lost")


@dataclasses.dataclass(frozen=True)
class Training:
  """Training of blocks of seeds, one after another.

  compile   returns the program of an experiment
  arrays    the task's data, on the devices
  folder    of the run
  name      label of the progress bar
  stop      becomes true when training should save and return
  watch     measures what the time is spent on

  >>> folder = Path("runs/ID")
  >>> watch = AttemptWatch(folder)
  >>> Training(print, {}, None, folder, "rope", stop=False, watch=watch).name
  'rope'
  """

  compile: Callable[[Experiment], Program]
  arrays: Any
  mesh: Mesh
  folder: Path
  name: str
  stop: Any
  watch: AttemptWatch

  def run(self, experiment: Experiment) -> tuple[FitResult, dict[str, Any]]:
    """Trains the blocks that are not finished.

    Returns (FitResult of all seeds, facts): as `train_with_log`, and the memory; of a
    run that is only scored again, those of its result.
    """
    before = hosts.from_leader("the result", lambda: extended(self.folder))
    facts = {key: before[key] for key in MEASURED if key in before}
    fits = []
    for block in self._blocks(experiment.seeds):
      own = dataclasses.replace(experiment, seeds=block.seeds)
      fitted = _finished(own, block, self.mesh) if before else None
      if fitted is None:
        others = [seed for seed in experiment.seeds if seed not in block.seeds]
        fitted, measured = self._train(own, block, others)
        facts |= measured
      if not fitted.finished:
        return fitted, {}
      fits.append(fitted)
    return _joined(fits), facts

  def _blocks(self, seeds: Sequence[int]) -> list[SeedBlock]:
    """Returns the blocks in the run's folder, on all processes those of the leader."""

    def there() -> list[tuple[str, Sequence[int]]]:
      blocks = seed_blocks.blocks(self.folder, seeds)
      return [(str(block.folder), block.seeds) for block in blocks]

    found = hosts.from_leader("the blocks of seeds", there)
    return [SeedBlock(Path(folder), tuple(own)) for folder, own in found]

  def _train(
    self, own: Experiment, block: SeedBlock, others: list[int]
  ) -> tuple[FitResult, dict[str, Any]]:
    """Trains one block; the metrics of the other seeds stay."""
    with self.watch.phase("prepare"):
      program = self.compile(own)
    with self.watch.phase("train"):
      fitted, measured = train_with_log(
        own,
        program,
        self.arrays,
        self.folder,
        self.name if block.folder == self.folder else f"{self.name} {block.name}",
        self.stop,
        self.watch,
        checkpoints=block.checkpoints,
        others=others,
      )
    return fitted, {"peak_bytes": program.peak_bytes} | measured


def extended(folder: Path) -> dict[str, Any]:
  """Returns the earlier result of a run that gets more seeds or scores, else {}."""
  path = folder / "result.json"
  then = state.status(folder, state.quiet).get("extends")
  if not then or state.checksum(path) != then:
    return {}
  try:
    return read_object(path)
  except (FileError, OSError):
    return {}


def _finished(own: Experiment, block: SeedBlock, mesh: Mesh) -> FitResult | None:
  """Returns the last state of a block, None where it is not trained to the end."""
  steps = own.budget.steps
  there = hosts.from_leader("a step", (block.checkpoints / str(steps)).is_dir)
  if not there:
    return None
  with Keeper(block.checkpoints, own.keep) as keeper:
    restored = keeper.restore(
      dispatch.abstract_state(own.trainer, len(own.seeds), mesh)
    )
  if restored is None or restored[1]["step"] != steps:
    return None
  trained, meta = restored
  diverged, causes = dispatch_metrics.divergences(meta)
  return FitResult(trained, steps, diverged, finished=True, causes=causes)


def _joined(fits: list[FitResult]) -> FitResult:
  """Returns the result of all seeds, from those of the blocks."""
  if len(fits) == 1:
    return fits[0]
  diverged: dict[int, int] = {}
  causes: dict[int, str] = {}
  first = 0
  for fitted in fits:
    diverged |= {first + place: step for place, step in fitted.diverged.items()}
    causes |= {first + place: cause for place, cause in fitted.causes.items()}
    first += fitted.state.step.shape[0]
  whole = seed_parts.join([fitted.state for fitted in fits])
  last = max(f.step for f in fits)
  return FitResult(whole, last, diverged, finished=True, causes=causes)
