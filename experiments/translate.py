"""Translates with a trained run, line by line: a file, or standard input as it comes.

  python -m experiments.translate --run=runs/translation/runs/ID < text.en > text.de
  python -m experiments.translate --run=runs/translation/runs/ID --input=text.en \\
    --beam=8 --penalty='gnmt(0.6)' --average=5

Each line of output is the translation of a line of input; empty lines stay empty.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from absl import flags

from experiments import inference
from experiments.setup.flag_errors import OF_SWEEP
from experiments.setup.validate import ConfigError
from transformer_jax import command
from transformer_jax.data.tasks.language.translation import Translation
from transformer_jax.evaluation.beam import Beam
from transformer_jax.evaluation.translator import Translator

FLAGS = flags.FLAGS


def define() -> None:
  """Defines the command's flags."""
  inference.define("translated")
  flags.DEFINE_integer("beam", 4, "Width of the beam search; 1: greedy.")
  flags.DEFINE_string("penalty", "gnmt(0.6)", "gnmt(alpha) or power(alpha).")


def main(argv: list[str]) -> None:
  """Prints the translation of each line."""
  inference.main(argv, _answers)


def _answers() -> Iterator[str]:
  trained = load(Path(FLAGS.run), FLAGS.seed, FLAGS.average, FLAGS.step)
  how = Beam(FLAGS.beam, FLAGS.penalty)
  return translate(trained, how, inference.lines(FLAGS.input), FLAGS.batch_size)


def load(
  run: Path, seed: int = 0, last: int = 1, step: int | None = None
) -> Translator:
  """Returns the translator of a trained run; raises ConfigError.

  run    folder of the run
  seed   index of its seed, from 0
  last   number of newest checkpoints to average
  step   of the newest of them; None: the newest on disk
  """
  return as_translator(
    inference.load(run, Translation, "a translation", seed, last, step)
  )


def as_translator(trained: inference.Trained) -> Translator:
  """Returns the translator of one seed of a run."""
  trainer = trained.experiment.trainer
  return Translator(trainer.model, trained.params, trained.vocabulary(), trainer.length)


def translate(
  translator: Translator, how: Beam, lines: Iterable[str], batch_size: int
) -> Iterator[str]:
  """Yields a translation for each line, "" without one.

  how          the beam search
  batch_size   lines translated together
  """

  def answer(batch: list[str]) -> Iterator[str]:
    texts = translator.all(batch, how, batch_size, inference.warn)
    return (text or "" for text in texts)

  return inference.together(lines, batch_size, answer)


if __name__ == "__main__":
  define()
  command.run(main, (ConfigError,), other_flags=OF_SWEEP)
