"""Describes the attention heads of finished runs, on texts of their scored split.

  python -m experiments.heads --run=runs/quickstart/runs/ID
  python -m experiments.heads --run=runs/heads --out=runs/heads/heads
  python -m experiments.heads --run=runs/heads --head=0:1 --head=3 \\
    --statistics='previous,induction(match=3)'

Writes one HTML page, heads.json, heads.csv and heads.md: each statistic of each head,
with 95% intervals over texts and seeds, how many heads have each role, similarities
between heads, their importance, pruning curves, and texts of each head. A head has a
role where its mean share is above the statistic's threshold. Trains nothing and changes
no run.

Statistics: those of transformer_jax/analysis, or module:Class. Exit code 2: bad input.
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
  flags.DEFINE_string("run", None, "Folder of a run, or of a sweep: all of its runs.")
  flags.DEFINE_list("groups", [], "Groups of a sweep, as in --groups=text; all.")
  flags.DEFINE_string("out", "", "Folder of the page; FOLDER OF THE RUN/heads.")
  flags.DEFINE_string(
    "statistics", "", "Specs, separated by commas; all that are registered."
  )
  flags.DEFINE_multi_string(
    "head", [], "LAYER:HEAD, or LAYER: heads to describe, as in --head=2:1; all."
  )
  flags.DEFINE_integer("examples", 128, "Texts, the same for each run and seed.", 2)
  flags.DEFINE_integer("batch_size", 32, "Texts in memory at once.", 1)
  flags.DEFINE_integer("length", 0, "Of the texts; 0: that of training.", 0)
  flags.DEFINE_integer("shown", 2, "Texts of each head that the page shows.", 0)
  flags.DEFINE_bool("importance", True, "Also measure importance and pruning.")
  flags.DEFINE_bool("similarity", True, "Also compare heads with each other.")
  flags.DEFINE_list("allow", [], ALLOW)


def main(argv: list[str]) -> None:
  """Writes the page and the tables; prints the counts of heads by role."""
  if argv[1:]:
    raise ConfigError(f"'{argv[1]}' is not a flag; write --run={argv[1]}")
  command.require(FLAGS, run="runs/quickstart/runs/ID")
  # JAX is imported after the flags are read.
  from experiments.heads import head_files, head_runs
  from experiments.runner import process
  from transformer_jax.spec import trust

  trust(FLAGS.allow)
  process.check_platform()
  names = head_runs.HeadSettings.__dataclass_fields__
  given = {name: getattr(FLAGS, name) for name in names}
  given |= {"head": tuple(FLAGS.head), "statistics": head_runs.specs(FLAGS.statistics)}
  settings = head_runs.HeadSettings(**given)
  folder = Path(FLAGS.run).expanduser()
  found = head_runs.describe_all(folder, FLAGS.groups, settings)
  out = Path(FLAGS.out).expanduser() if FLAGS.out else folder / "heads"
  for line in head_files.write(out, found, settings):
    print(line, flush=True)


if __name__ == "__main__":
  define()
  command.run(main, (CheckpointError, ValueError, OSError), other_flags=OF_SWEEP)
