"""Shared code of the inference commands: flags, loading a run, batching lines."""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from experiments.runner import seed_blocks
from experiments.runner.build import Experiment
from experiments.runner.process import check_platform
from experiments.runner.saved_run import of_run
from experiments.runner.seed_blocks import SeedBlock
from experiments.setup.flags import ALLOW
from experiments.setup.validate import ConfigError
from transformer_jax import command
from transformer_jax.data import tokenizers
from transformer_jax.data.base import Task
from transformer_jax.data.files import conversion
from transformer_jax.data.tokenizers import Tokenizer
from transformer_jax.evaluation.average import average
from transformer_jax.spec import trust
from transformer_jax.training.checkpoint import CheckpointError, Keeper
from transformer_jax.training.json_files import FileError
from transformer_jax.untrusted import shown

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # --help lists them under the command itself


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
  """One seed of a trained run.

  folder      of the run
  params      of the model, averaged over checkpoints
  tokenizer   None: the task has no vocabulary
  """

  folder: Path
  config: ConfigDict
  experiment: Experiment
  params: Any
  tokenizer: Tokenizer | None

  def vocabulary(self) -> Tokenizer:
    """Returns the tokenizer; raises ConfigError where the task has none."""
    if self.tokenizer is None:
      raise ConfigError(f"task={self.config.task} has no vocabulary")
    return self.tokenizer


def define(done: str) -> None:
  """Defines the flags; done: a participle for --help, as in "translated"."""
  flags.DEFINE_string("run", None, "Folder of a run: the one with config.json.")
  flags.DEFINE_string("input", "-", "A UTF-8 file; -: standard input.")
  flags.DEFINE_integer("average", 1, "Number of newest checkpoints to average.")
  flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
  flags.DEFINE_integer("seed", 0, "Index of the run's seed, from 0.")
  flags.DEFINE_integer("batch_size", 16, f"Lines {done} together; 1: one by one.")
  flags.DEFINE_list("allow", [], ALLOW)


def main(argv: list[str], answers: Callable[[], Iterable[str]]) -> None:
  """Prints the outputs as they come; raises ConfigError for every known failure.

  argv      command line, whose flags absl has parsed
  answers   yields the lines of output
  """
  check_platform()
  if argv[1:]:
    raise ConfigError(f"'{argv[1]}' is not a flag; write --input={argv[1]}")
  command.require(FLAGS, run="runs/quickstart/runs/ID")
  if FLAGS.batch_size < 1:
    raise ConfigError(f"--batch_size={FLAGS.batch_size}: write 1 or more")
  if hasattr(sys.stdout, "reconfigure"):
    sys.stdout.reconfigure(encoding="utf-8")  # as the input, whatever the terminal
  try:
    trust(FLAGS.allow)
    for text in answers():
      print(shown(text) if sys.stdout.isatty() else text, flush=True)
  except BrokenPipeError:
    raise
  except (CheckpointError, FileError, OSError, ValueError) as error:
    raise ConfigError(str(error)) from error


def load(
  run: Path,
  kind: type[Task],
  kind_name: str,
  seed: int,
  last: int,
  step: int | None = None,
) -> Trained:
  """Returns one seed of a trained run; raises ConfigError where it cannot be used.

  run         folder of the run
  kind        class that its task must have
  kind_name   the same in words, for messages
  seed        index of the seed, from 0
  last        number of newest checkpoints to average
  step        of the newest of them; None: the newest on disk
  """
  check_folder(run)
  config, experiment = of_run(run)
  if not isinstance(experiment.task, kind):
    raise ConfigError(f"{run}: its task is not {kind_name} but {config.task}")
  has_tokenizer = (run / "tokenizer").exists()
  if not has_tokenizer and type(experiment.task).keep is not Task.keep:
    raise ConfigError(f"{run} has no vocabulary yet; train it first")
  if not 0 <= seed < len(experiment.seeds):
    raise ConfigError(f"--seed={seed}: this run has {len(experiment.seeds)} seeds")
  params = jax.tree.map(lambda x: x[seed], params_of(run, experiment, last, step))
  return Trained(run, config, experiment, params, tokenizer_of(run))


def check_folder(run: Path) -> None:
  """Raises ConfigError unless a folder is that of a run."""
  if not (run / "config.json").exists():
    raise ConfigError(f"{run} is no run: it has no config.json; see runs/*/runs/")


def tokenizer_of(run: Path) -> Tokenizer | None:
  """Returns the tokenizer in a run's folder, None where its task has none."""
  folder = run / "tokenizer"
  return tokenizers.load(folder) if folder.exists() else None


def params_of(
  run: Path, experiment: Experiment, last: int, step: int | None = None
) -> Any:
  """Returns the mean parameters of the newest checkpoints, stacked over seeds.

  last   number of checkpoints
  step   of the newest of them; None: the newest on disk
  """

  def read(block: SeedBlock) -> Any:
    abstract = experiment.trainer.shapes_of(len(block.seeds))
    with Keeper(block.checkpoints) as keeper:
      return average(keeper, abstract, last, step)

  return seed_blocks.joined(run, experiment.seeds, read)


def together(
  lines: Iterable[Any], batch_size: int, answer: Callable[[list[Any]], Iterator[str]]
) -> Iterator[str]:
  """Yields an output for each line; empty lines stay empty.

  batch_size   lines in one call of `answer`
  answer       returns the outputs of a batch of lines
  """
  remaining = iter(lines)
  while batch := list(itertools.islice(remaining, batch_size)):
    outputs = answer([line for line in batch if line])
    yield from (next(outputs) if line else "" for line in batch)


def warn(line: str) -> None:
  """Prints a warning, apart from the outputs."""
  print(f"warning: {shown(line)}", file=sys.stderr)


def named(source: str) -> str:
  """Returns the name of an input in messages."""
  return "standard input" if source == "-" else source


def lines(source: str) -> Iterator[str]:
  """Yields the lines of a file or of standard input, "-"; raises ConfigError."""
  number = 0
  with open(0 if source == "-" else source, "rb") as file:
    for number, line in enumerate(file, 1):
      try:
        yield line.decode().strip()
      except UnicodeDecodeError as error:
        raise ConfigError(
          f"{named(source)}, line {number}: not UTF-8 (byte {error.start + 1}); convert"
          f" it: {conversion(line)} OLD > NEW"
        ) from error
  if not number:
    raise ConfigError(f"{named(source)} is empty; give one text on each line")
