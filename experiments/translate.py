"""Translates with a trained run, line by line: a file, or standard input as it comes.

  python -m experiments.translate --run=runs/translation/runs/ID < text.en > text.de
  python -m experiments.translate --run=runs/translation/runs/ID --input=text.en \\
    --beam=8 --penalty='gnmt(0.6)' --average=5

Each line of output is the translation of a line of input; empty lines stay empty.
"""

import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags, logging

from experiments.build import Experiment, build
from experiments.config import ConfigError, resolve
from experiments.configs import base
from transformer_jax.data import tokenizers
from transformer_jax.evaluation.average import average
from transformer_jax.evaluation.beam import Beam
from transformer_jax.evaluation.translator import Translator
from transformer_jax.training.checkpoint import CheckpointError, Keeper
from transformer_jax.training.files import FileError, read_json

FLAGS = flags.FLAGS


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run", None, "Folder of a run: the one with config.json.")
  flags.DEFINE_string("input", "-", "A UTF-8 file; -: standard input.")
  flags.DEFINE_integer("beam", 4, "Texts that are kept while searching; 1: greedy.")
  flags.DEFINE_string("penalty", "gnmt(0.6)", "gnmt(alpha) or power(alpha).")
  flags.DEFINE_integer("average", 1, "Newest checkpoints whose mean is used.")
  flags.DEFINE_integer("seed", 0, "Which of the run's seeds, counted from 0.")
  flags.DEFINE_integer("rows", 16, "Lines translated together; 1: each as it comes.")
  flags.mark_flag_as_required("run")


def main(argv: list[str]) -> int:
  if not FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # JAX informs about absent hardware
  try:
    if argv[1:]:
      raise ConfigError(f"'{argv[1]}' is not a flag; write --input={argv[1]}")
    translator = load(Path(FLAGS.run), FLAGS.seed, FLAGS.average)
    how = Beam(FLAGS.beam, FLAGS.penalty)
    for text in translate(translator, how, _lines(FLAGS.input), FLAGS.rows):
      print(text, flush=True)
  except (ConfigError, CheckpointError, FileError, OSError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except (KeyboardInterrupt, BrokenPipeError):
    return 130
  return 0


def load(run: Path, seed: int = 0, last: int = 1) -> Translator:
  """Returns what a run learned; raises ConfigError where there is nothing to use."""
  if not (run / "config.json").exists():
    raise ConfigError(f"{run} is no run: it has no config.json; see runs/*/runs/")
  if not (run / "tokenizer").exists():
    raise ConfigError(f"{run} has no vocabulary; its task is not a translation")
  experiment = build(resolve(base.get_config(), read_json(run / "config.json")))
  if not 0 <= seed < len(experiment.seeds):
    raise ConfigError(f"--seed={seed}: this run has {len(experiment.seeds)} seeds")
  params = jax.tree.map(lambda x: x[seed], _trained(run, experiment, last))
  trainer = experiment.trainer
  return Translator(
    trainer.model, params, tokenizers.load(run / "tokenizer"), trainer.length
  )


def _trained(run: Path, experiment: Experiment, last: int) -> Any:
  """Returns the mean of the last parameters, stacked over seeds."""
  seed_S = jnp.array(experiment.seeds, jnp.uint32)
  abstract = jax.eval_shape(jax.vmap(experiment.trainer.init), seed_S)
  with Keeper(run / "checkpoints") as keeper:
    return average(keeper, abstract, last).params


def translate(
  translator: Translator, how: Beam, lines: Iterable[str], rows: int
) -> Iterator[str]:
  """Yields a translation for each line; `rows` of them go together."""
  lines = iter(lines)
  while some := list(itertools.islice(lines, rows)):
    found = translator.all([line for line in some if line], how, rows, _warn)
    yield from (next(found) if line else "" for line in some)


def _warn(line: str) -> None:
  print(f"warning: {line}", file=sys.stderr)


def _lines(source: str) -> Iterator[str]:
  """Yields the lines of a file or of standard input; says where one is not UTF-8."""
  with open(0 if source == "-" else source, "rb") as file:
    for number, line in enumerate(file, 1):
      try:
        yield line.decode().strip()
      except UnicodeDecodeError as error:
        raise ConfigError(
          f"{source}, line {number}: not UTF-8 (byte {error.start + 1}); convert it"
        ) from error


if __name__ == "__main__":
  define()
  app.run(main)
