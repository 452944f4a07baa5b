"""Translates with a trained run, line by line: a file, or standard input as it comes.

  python -m experiments.translate --run=runs/translation/runs/ID < text.en > text.de
  python -m experiments.translate --run=runs/translation/runs/ID --input=text.en \\
    --beam=8 --penalty='gnmt(0.6)' --average=5

Each line of output is the translation of a line of input; empty lines stay empty.
"""

import dataclasses
import functools
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from experiments.build import Experiment, build
from experiments.config import ConfigError, resolve
from experiments.configs import base
from transformer_jax.data import tokenizers
from transformer_jax.data.tokenizers import BOS, EOS, PAD, Tokenizer
from transformer_jax.evaluation.average import average
from transformer_jax.evaluation.beam import Beam, beam_search
from transformer_jax.positions import coords
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


@dataclasses.dataclass(frozen=True, eq=False)
class Translator:
  """A trained model with its vocabulary.

  longest   the most tokens of a text, the end included
  """

  model: Any
  params: Any
  tokenizer: Tokenizer
  longest: int

  def __call__(self, texts: list[str], how: Beam) -> list[str]:
    """Returns translations; what is longer than the run's texts is cut, and said."""
    rows = [self.tokenizer.encode(text) for text in texts]
    for text, row in zip(texts, rows, strict=True):
      if len(row) >= self.longest:
        print(
          f"warning: a line of {len(row)} tokens is cut to {self.longest - 1}, the most"
          f" that this run reads: {text[:40]}...",
          file=sys.stderr,
        )
    rows = [[*row[: self.longest - 1], EOS] for row in rows]
    source_BL = np.full((len(rows), self.longest), PAD, np.int32)
    for place_L, row in zip(source_BL, rows, strict=True):
      place_L[: len(row)] = row
    args = self.model, how, self.longest, self.params
    found_BN = np.asarray(_search(*args, jnp.asarray(source_BL)))
    ends = lambda row: itertools.takewhile(lambda n: n != EOS, row)
    return [self.tokenizer.decode(ends(row)) for row in found_BN.tolist()]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _search(model, how: Beam, longest: int, params, source_BL: jax.Array) -> jax.Array:
  """Returns the best translation of each row, token_BN."""
  at = coords.packed((source_BL != PAD).astype(jnp.int32))
  memory = model.apply({"params": params}, source_BL, at, method="encode")
  start_B1 = jnp.full((len(source_BL), 1), BOS)
  found = beam_search(model, params, start_B1, longest, EOS, how, memory=memory)
  return found.token_BKN[:, 0]


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
    texts = [line for line in some if line]
    # The last rows are filled up, so that there is one program.
    full = texts + [""] * (rows - len(texts))
    found = iter(translator(full, how) if texts else ())
    yield from (next(found) if line else "" for line in some)


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
