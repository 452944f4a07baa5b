"""Measures speed and memory, writes docs/benchmarks.md and the raw figures beside it.

  python -m experiments.bench                        # everything, about 70 minutes
  python -m experiments.bench --sections=op,step     # some of it; the rest stays
  python -m experiments.bench --sections=page        # only the page again
  python -m experiments.bench --check                # the same as make bench-check
  python -m experiments.bench --device               # on a TPU or GPU, 8 minutes

Other libraries run in separate environments, made on the first call.
"""

import dataclasses
import functools
import os
import sys
from pathlib import Path

from absl import flags as absl_flags

from experiments.bench import (
  device_command,
  device_compare,
  factors,
  groups,
  guard,
  markdown,
  runner,
  venvs,
  wall_time,
)
from experiments.bench.device_groups import TIMED
from experiments.bench.worker import ROOT, Worker
from experiments.runner import process
from transformer_jax import command
from transformer_jax.positions import positions

RAW = ROOT / "docs" / "results" / "benchmarks.json"
MEASURED = groups.SECTIONS | {"factors": factors.factors}
SECTIONS = (*MEASURED, "sweep", "page")
OURS = [sys.executable, "-m", "experiments.bench.ours"]  # others are of peers
# Processes keep freed memory here, as this project's runs do. Dense attention of long
# texts would not leave room for the others.
KEEPING = ("step", "decode", "factors")

absl_flags.DEFINE_list("sections", list(SECTIONS), "What to measure.")
absl_flags.DEFINE_list("encodings", [], "Encodings; all: every one. Default: a few.")
absl_flags.DEFINE_bool("quick", False, "Smaller sizes and fewer rounds: a first look.")
absl_flags.DEFINE_bool("peers", True, "Also measure other libraries.")
absl_flags.DEFINE_bool("check", False, "Compare ratios with the recorded ones.")
absl_flags.DEFINE_string(
  "output",
  "",
  "File of the raw figures. Default: docs/results/benchmarks.json; with --device one"
  " that is named after it.",
)
absl_flags.DEFINE_bool(
  "device", False, "Compare and measure attention on this machine's TPU or GPU."
)
absl_flags.DEFINE_bool(
  "tiny", False, "With --device: rehearse on a CPU, with interpreted kernels."
)
absl_flags.DEFINE_float(
  "minutes", 8.0, "With --device: time after which it stops; run it again to go on."
)
absl_flags.DEFINE_string(
  "torch_python", "", "With --device: a Python with PyTorch, to measure beside ours."
)
FLAGS = absl_flags.FLAGS


def main(argv: list[str]) -> int:
  """Measures the sections of the flags; writes each group as soon as it is there."""
  unknown = [*argv[1:], *({*FLAGS.sections} - {*SECTIONS})]
  if unknown:
    raise ValueError(
      f"unknown section '{unknown[0]}'; choose from {', '.join(SECTIONS)}"
    )
  if FLAGS.device:
    return _measure_device()
  _require_device("tiny", "minutes", "torch_python")
  try:
    store = runner.Store(Path(FLAGS.output or RAW))
    if FLAGS.check:
      with runner.Sides(_start) as sides:
        return check(sides, store)
    for section in FLAGS.sections:
      _measure(section, store)
  except venvs.MissingPeers as error:
    return _stop(str(error))
  return 0


def _measure_device() -> int:
  """Measures this machine's accelerator; returns the exit code."""
  for name in ("sections", "quick", "check", "peers"):
    if FLAGS[name].value != FLAGS[name].default:
      raise ValueError(f"--{name} is not of --device: leave one of them out")
  names = [name for name in FLAGS.encodings if name != "all"]
  for name in names:
    positions.build(name)  # raises ValueError for an unknown one
  chosen = names or dict.fromkeys((*TIMED, *device_compare.acting()[0]))
  return device_command.measure(
    output=FLAGS.output,
    minutes=FLAGS.minutes,
    tiny=FLAGS.tiny,
    torch_python=FLAGS.torch_python,
    names=tuple(chosen),
  )


def _require_device(*names: str) -> None:
  """Raises ValueError for flags that only --device reads."""
  for name in names:
    if FLAGS[name].present:
      raise ValueError(f"--{name} is of --device: write --device too")


def _measure(section: str, store: runner.Store) -> None:
  if section == "sweep":
    for name, times in wall_time.measured(FLAGS.quick).items():
      store.put("sweep", name, times)
  elif section == "page":
    print(f"wrote {markdown.write(store.figures, store.path)}")
  else:
    settings = process.KEPT if section in KEEPING else {}
    start = functools.partial(_start, **settings)
    with runner.Sides(start) as sides:
      runner.run(section, _groups(section), sides, store)


def _groups(section: str):
  """Yields the groups of a section, without other libraries if they are not wanted."""
  names = FLAGS.encodings
  if names == ["all"]:
    names = [*groups.STEPPED, *(n for n in positions if n not in groups.STEPPED)]
  chosen = {"encodings": tuple(names)} if names else {}
  for group in MEASURED[section](FLAGS.quick, **chosen):
    ours = tuple(c for c in group.contenders if FLAGS.peers or c.side == "ours")
    yield dataclasses.replace(group, contenders=ours)


def check(sides: runner.Sides, recorded: runner.Store) -> int:
  """Returns 1, with a line for each, when quotients got worse than recorded."""
  before = recorded.figures["sections"].get("check")
  if not before:
    return _stop("nothing recorded: run python -m experiments.bench --sections=check")
  now = {g.name: runner.measured(g, sides) for g in groups.check(False)}
  lines = guard.worse(before, now)
  if lines:
    return _stop("slower than recorded:\n  " + "\n  ".join(lines))
  print(f"{len(guard.quotients(now))} ratios are as recorded, or better")
  return 0


def _start(side: str, **settings: str) -> Worker:
  """Starts a side's process, with settings in its environment."""
  command = OURS if side == "ours" else venvs.command(side)
  return Worker(command, {**os.environ, **settings})


def _stop(message: str) -> int:
  print(f"error: {message}", file=sys.stderr)
  return 1


if __name__ == "__main__":
  command.run(main, (ValueError,))
