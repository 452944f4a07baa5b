"""Labels texts with a fine-tuned run, line by line: a file, or standard input.

  python -m experiments.label --run=runs/minilm/runs/ID < texts > labels
  python -m experiments.label --run=runs/brown_tagging/runs/ID --input=sentences

Each line of output belongs to a line of input; empty lines stay empty. A run of the
task `classification` writes label, tab, probability; a line of a pair task is two texts
separated by a tab. A run of the task `tagging` reads words separated by spaces and
writes word/tag; a sentence that is too long is read in pieces.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from absl import flags

from experiments import inference
from experiments.setup.flag_errors import OF_SWEEP
from experiments.setup.validate import ConfigError
from transformer_jax import command
from transformer_jax.data.tasks.labelled.base import Labelled, kept
from transformer_jax.evaluation.classifier import Classifier

FLAGS = flags.FLAGS


def define() -> None:
  """Defines the command's flags."""
  inference.define("labelled")


def main(argv: list[str]) -> None:
  """Prints the labels of each line."""
  inference.main(argv, _answers)


def _answers() -> Iterator[str]:
  classifier = load(Path(FLAGS.run), FLAGS.seed, FLAGS.average, FLAGS.step)
  source = FLAGS.input
  return label(
    classifier, inference.lines(source), FLAGS.batch_size, inference.named(source)
  )


def load(
  run: Path, seed: int = 0, last: int = 1, step: int | None = None
) -> Classifier:
  """Returns the classifier of a trained run; raises ConfigError.

  run    folder of the run
  seed   index of its seed, from 0
  last   number of newest checkpoints to average
  step   of the newest of them; None: the newest on disk
  """
  trained = inference.load(run, Labelled, "classification or tagging", seed, last, step)
  trainer = trained.experiment.trainer
  task = trainer.task
  assert isinstance(task, Labelled)
  return Classifier(
    task=task,
    model=trainer.model,
    params=trained.params,
    tokenizer=trained.vocabulary(),
    labels=tuple(kept(run)),
    length=trainer.length,
  )


def label(
  classifier: Classifier, lines: Iterable[str], batch_size: int, source: str = "text"
) -> Iterator[str]:
  """Yields the labels of each line.

  batch_size   lines labelled together
  source       name of the input, for messages
  """
  task = classifier.task
  examples = (
    task.asked(line, f"{source}, line {number}") if line else None
    for number, line in enumerate(lines, 1)
  )

  def answer(batch: list[Any]) -> Iterator[str]:
    labels = classifier(batch, batch_size, inference.warn)
    return (task.answered(x, y) for x, y in zip(batch, labels, strict=True))

  return inference.together(examples, batch_size, answer)


if __name__ == "__main__":
  define()
  command.run(main, (ConfigError,), other_flags=OF_SWEEP)
