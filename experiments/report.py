"""Writes the report of a sweep: page, figures, tables to copy, a terminal summary.

  python -m experiments.report --workdir=runs/quickstart

Reads sweep.json and runs/*/ of the folder, never trains anything, and may be run while
the sweep is still going.
"""

from absl import flags

from experiments.reporting.load import ReportError
from experiments.reporting.page import print_report, write_report
from experiments.setup.flag_errors import OF_SWEEP
from transformer_jax import command

FLAGS = flags.FLAGS


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("workdir", None, "Folder of the sweep, with sweep.json.")


def main(argv: list[str]) -> None:
  """Writes and prints the report; raises ReportError where there is none to write."""
  if len(argv) > 1:
    raise ReportError(f"'{argv[1]}' is not a flag; write --workdir={argv[1]}")
  command.require(FLAGS, workdir="runs/quickstart")
  path = write_report(FLAGS.workdir)
  print_report(FLAGS.workdir)
  print(f"report: {path}")


if __name__ == "__main__":
  define()
  command.run(main, (ReportError, OSError), other_flags=OF_SWEEP)
