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
from experiments.setup.validate import ConfigError
from transformer_jax import command
from transformer_jax.data.tasks.language.translation import Translation
from transformer_jax.evaluation.beam import Beam
from transformer_jax.evaluation.translator import Translator

FLAGS = flags.FLAGS


def define() -> None:
  """Defines the command's flags."""
  inference.define("translated")
  flags.DEFINE_integer("beam", 4, "Texts that are kept while searching; 1: greedy.")
  flags.DEFINE_string("penalty", "gnmt(0.6)", "gnmt(alpha) or power(alpha).")


def main(argv: list[str]) -> None:
  inference.main(argv, _answers)


def _answers() -> Iterator[str]:
  translator = load(Path(FLAGS.run), FLAGS.seed, FLAGS.average)
  how = Beam(FLAGS.beam, FLAGS.penalty)
  return translate(translator, how, inference.lines(FLAGS.input), FLAGS.batch_size)


def load(run: Path, seed: int = 0, last: int = 1) -> Translator:
  """Returns what a run learned; raises ConfigError where there is nothing to use."""
  found = inference.load(run, Translation, "a translation", seed, last)
  trainer = found.experiment.trainer
  return Translator(trainer.model, found.params, found.tokenizer, trainer.length)


def translate(
  translator: Translator, how: Beam, lines: Iterable[str], rows: int
) -> Iterator[str]:
  """Yields a translation for each line, "" without one; `rows` of them go together."""

  def answer(some):
    return (text or "" for text in translator.all(some, how, rows, inference.warn))

  return inference.together(lines, rows, answer)


if __name__ == "__main__":
  define()
  command.run(main, (ConfigError,))
