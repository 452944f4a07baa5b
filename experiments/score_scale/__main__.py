"""Variance of scores, weights and gradients against the width of heads, for each scale.

  python -m experiments.score_scale --workdir=runs/sqrt_d

Reads a sweep whose runs differ in `model.attention='scale(...)'` and in
`model.head_width`. Measures are those of the models of its first group before training,
with heads of width 4 to 256, and of standard normal queries and keys; beside them stand
the derivation of Vaswani et al., 2017, section 3.2.1, https://arxiv.org/abs/1706.03762,
and the scores of the finished runs. Writes a figure and its numbers to score_scale/ in
the sweep's folder.
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
  flags.DEFINE_string("workdir", None, "Folder of a sweep: the one with sweep.json.")
  flags.DEFINE_list("widths", ["4", "8", "16", "32", "64", "128", "256"], "Of heads.")
  flags.DEFINE_integer("seeds", 3, "First parameters that are measured.", 1)
  flags.DEFINE_list("allow", [], ALLOW)


def main(argv: list[str]) -> None:
  """Writes the figure, and prints the measures and where it is."""
  if argv[1:]:
    raise ConfigError(f"'{argv[1]}' is not a flag; write --workdir={argv[1]}")
  command.require(FLAGS, workdir="runs/sqrt_d")
  widths = [_width(x) for x in FLAGS.widths]
  from experiments.runner.process import check_platform

  check_platform()
  from experiments.score_scale import scale_figure, scale_measures
  from transformer_jax.spec import trust

  trust(FLAGS.allow)
  workdir = Path(FLAGS.workdir)
  measured = scale_measures.measured(workdir, widths, FLAGS.seeds)
  for line in scale_figure.lines(measured):
    print(line)
  for path in scale_figure.write(workdir / "score_scale", measured):
    print(path)


def _width(text: str) -> int:
  if not text.isdecimal() or not int(text):
    raise ConfigError(f"--widths={text}: write whole numbers from 1, as in 4,64,256")
  return int(text)


if __name__ == "__main__":
  define()
  command.run(main, (CheckpointError, ValueError, OSError), other_flags=OF_SWEEP)
