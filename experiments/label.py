"""Labels texts with a fine-tuned run, line by line: a file, or standard input.

  python -m experiments.label --run=runs/minilm/runs/ID < texts > labels
  python -m experiments.label --run=runs/brown_tagging/runs/ID --input=sentences

Each line of output answers a line of input; empty lines stay empty. A run of the task
`classification` writes a label, a tab and the label's probability; of pairs, each line
has two texts with a tab between. A run of the task `tagging` takes words with spaces
between and writes them as word/tag; a sentence that is too long is read in pieces.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from absl import flags

from experiments import inference
from experiments.setup.validate import ConfigError
from transformer_jax import command
from transformer_jax.data.tasks.labelled.base import Labelled, kept
from transformer_jax.evaluation.classifier import Classifier

FLAGS = flags.FLAGS


def define() -> None:
  """Defines the command's flags."""
  inference.define("labelled")


def main(argv: list[str]) -> None:
  inference.main(argv, _answers)


def _answers() -> Iterator[str]:
  labeller = load(Path(FLAGS.run), FLAGS.seed, FLAGS.average)
  source = FLAGS.input
  return label(
    labeller, inference.lines(source), FLAGS.batch_size, inference.named(source)
  )


def load(run: Path, seed: int = 0, last: int = 1) -> Classifier:
  """Returns what a run learned; raises ConfigError where there is nothing to use."""
  found = inference.load(run, Labelled, "classification or tagging", seed, last)
  trainer = found.experiment.trainer
  learned = trainer.model, found.params, found.tokenizer
  return Classifier(trainer.task, *learned, tuple(kept(run)), trainer.length)


def label(
  labeller: Classifier, lines: Iterable[str], rows: int, source: str = "text"
) -> Iterator[str]:
  """Yields what is said of each line; `rows` of them go together."""
  task = labeller.task
  examples = (
    task.asked(line, f"{source}, line {number}") if line else None
    for number, line in enumerate(lines, 1)
  )

  def answer(some):
    found = labeller(some, rows, inference.warn)
    return (task.answered(x, y) for x, y in zip(some, found, strict=True))

  return inference.together(examples, rows, answer)


if __name__ == "__main__":
  define()
  command.run(main, (ConfigError,))
