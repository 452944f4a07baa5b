"""Writes the report of a sweep: page, figures, tables to copy, a terminal summary.

  python -m experiments.report --workdir=runs/quickstart

Reads sweep.json and runs/*/ of the folder, never trains anything, and may be run while
the sweep is still going.

  python -m experiments.report --workdir=runs/quickstart --serve

shows the report in a browser of this machine, with the progress of a running sweep, and
writes nothing. Ctrl-C ends it.
"""

import os
from pathlib import Path

from absl import flags

from experiments.reporting import comparisons
from experiments.reporting.live_server import serve
from experiments.reporting.load import ReportError
from experiments.reporting.page import print_findings, write_findings
from experiments.setup.flag_errors import OF_SWEEP
from transformer_jax import command

FLAGS = flags.FLAGS
PORT = 8765
KINDNESS = 5  # of os.nice: training goes before drawing


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("workdir", None, "Folder of the sweep, with sweep.json.")
  flags.DEFINE_bool(
    "serve", False, "Serve a live page of the sweep to browsers of this machine."
  )
  flags.DEFINE_integer(
    "port",
    None,
    f"Port of --serve; default {PORT}. 0: any free one.",
    lower_bound=0,
    upper_bound=65535,
  )


def main(argv: list[str]) -> int:
  """Writes and prints the report, or serves it; returns the exit code.

  Raises ReportError where there is none to write, or its port is taken.
  """
  if len(argv) > 1:
    raise ReportError(f"'{argv[1]}' is not a flag; write --workdir={argv[1]}")
  command.require(FLAGS, workdir="runs/quickstart")
  if FLAGS.serve:
    return served(Path(FLAGS.workdir), PORT if FLAGS.port is None else FLAGS.port)
  if FLAGS.port is not None:
    raise ReportError(f"--port={FLAGS.port} is of --serve; write --serve too")
  findings = comparisons.find(FLAGS.workdir)
  path = write_findings(findings)
  print_findings(findings)
  print(f"report: {path}")
  return 0


def served(workdir: Path, port: int) -> int:
  """Serves the live report until Ctrl-C; returns the exit code."""
  os.nice(KINDNESS)
  try:
    serve(workdir, port)
  except KeyboardInterrupt:
    print("\nthe live report has ended; nothing was written")
  return command.INTERRUPTED


if __name__ == "__main__":
  define()
  command.run(main, (ReportError, OSError), other_flags=OF_SWEEP)
