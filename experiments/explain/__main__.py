"""Whether the attention of a trained classifier explains its outputs.

  python -m experiments.explain --run=runs/attention_as_explanation/runs/ID
  python -m experiments.explain --run=FOLDER --layer=0 --epsilon=0.05 --texts=500

Jain and Wallace, 2019, https://arxiv.org/abs/1902.10186: does attention agree with
other measures of importance, and would other weights give the same output? Wiegreffe
and Pinter, 2019, https://arxiv.org/abs/1908.04626: are those weights farther away than
those of another seed, and does the task need attention at all? Reads all seeds of a run
of the task `classification`, and writes a page, its numbers and a figure.
"""

from pathlib import Path

from absl import flags

from experiments.setup.flag_errors import OF_SWEEP
from experiments.setup.flags import ALLOW
from experiments.setup.validate import ConfigError
from transformer_jax import command
from transformer_jax.training.unusable import CheckpointError

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # --help lists them under the command itself


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run", None, "Folder of a run: the one with config.json.")
  flags.DEFINE_string(
    "output", "", "Folder of the page; default: explain in the run's."
  )
  flags.DEFINE_integer("layer", -1, "Layer that is explained, from 0; -1: the last.")
  flags.DEFINE_integer("texts", 128, "Texts of the scored split, at most.", 2)
  flags.DEFINE_integer("permutations", 100, "Permutations of each text's weights.", 1)
  flags.DEFINE_float("epsilon", 0.01, "The most that adversarial weights move outputs.")
  flags.DEFINE_integer("steps", 300, "Updates in the search for adversarial weights.")
  flags.DEFINE_integer("starts", 2, "Random starts of that search.")
  flags.DEFINE_integer("average", 1, "Number of newest checkpoints to average.")
  flags.DEFINE_list("allow", [], ALLOW)


def main(argv: list[str]) -> None:
  """Writes the page, and prints its table."""
  if argv[1:]:
    raise ConfigError(f"'{argv[1]}' is not a flag; write --run={argv[1]}")
  command.require(FLAGS, run="runs/attention_as_explanation/runs/ID")
  from experiments.runner.process import check_platform

  check_platform()
  from experiments.analysis import load_run
  from experiments.explain import explaining, explanation_page

  run = load_run(FLAGS.run, FLAGS.average, FLAGS.allow)
  settings = _settings()
  found = explaining.study(run, settings)
  folder = Path(FLAGS.output or run.folder / "explain")
  page = explanation_page.write(folder, found, settings, run.tokenizer, str(run.folder))
  print(page.partition("\n\n![")[0])
  print(f"\npage: {folder / explanation_page.PAGE}")


def _settings():
  from experiments.explain.explaining import ExplainSettings
  from transformer_jax.analysis.adversarial import Search

  search = Search(epsilon=FLAGS.epsilon, steps=FLAGS.steps, starts=FLAGS.starts)
  return ExplainSettings(FLAGS.layer, FLAGS.texts, FLAGS.permutations, search)


if __name__ == "__main__":
  define()
  command.run(main, (CheckpointError, ValueError, OSError), other_flags=OF_SWEEP)
