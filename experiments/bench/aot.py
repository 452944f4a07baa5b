"""Ahead-of-time compilation of attention for TPUs, on a machine without one.

  pip install -e '.[tpu-aot]'
  python -m experiments.bench.aot --dry_run
  python -m experiments.bench.aot

Each encoding is compiled with `pallas_tpu`, forward and backward, and `none` also with
JAX's splash attention. Memory and seconds are the compiler's, bytes
are counted from grids of kernels and from the program around them. Nothing runs, so
none of the figures is a measurement of speed.
"""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags, logging

from experiments.bench import bytes_moved
from experiments.bench.aot_programs import SPLASH, TOPOLOGIES, Case, refusal, traced
from experiments.estimating import compiler
from experiments.runner import provenance
from transformer_jax import command
from transformer_jax.positions import positions

PATH = Path(__file__).parents[2] / "docs" / "results" / "aot_tpu.json"
FEW = ("none", "alibi", "t5", "fire", "rope")  # also on chips other than the first
TOKENS = 8192  # in a batch
FLAGS = flags.FLAGS
HEADER = (
  *("encoding", "chip", "B x L", "GB moved", "GB in VMEM", "GB once", "splash GB"),
  *("of splash's", "MiB temporary", "splash MiB", "MiB at peak", "s to compile"),
  "commit",
)


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("chips", list(TOPOLOGIES), "TPUs to compile for.")
  flags.DEFINE_list("lengths", ["2048", "8192"], "Tokens in a text; 8,192 in a batch.")
  flags.DEFINE_list("encodings", [], "Encodings; by default all that act on scores.")
  flags.DEFINE_bool("dry_run", False, "List the cases, and stop.")
  flags.DEFINE_list("case", [], "One program: chip, B, L, encoding, core.")
  flags.DEFINE_string("out", str(PATH), "File of results; its cases are skipped.")


def main(argv: list[str]) -> None:
  del argv
  if FLAGS.case:
    chip, B, L, *names = FLAGS.case
    print(json.dumps(compiled(Case(chip, int(B), int(L), *names))))
    return
  cases = [*plan(FLAGS.chips, [int(n) for n in FLAGS.lengths], FLAGS.encodings)]
  path = Path(FLAGS.out)
  results = read(path)
  if FLAGS.dry_run:
    for case in cases:
      print("done" if key(case) in results else "todo", *dataclasses.astuple(case))
    return
  compiler.require()
  for case in cases:
    if key(case) not in results:
      results[key(case)] = dataclasses.asdict(case) | apart(case)
      logging.info("%s", results[key(case)])
      path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
  print(table(results))


def plan(chips, lengths, names) -> Iterator[Case]:
  """Yields the cases: all encodings on the first chip, a few on the others."""
  for n, chip in enumerate(chips):
    for L in lengths:
      B = max(1, TOKENS // L)
      yield Case(chip, B, L, "none", SPLASH)
      for name in names or (acting() if n == 0 else FEW):
        yield Case(chip, B, L, name, "pallas_tpu")


def acting() -> list[str]:
  """Returns encodings whose kernels differ: the others' are that of `none`."""
  hooks = ("bias", "score", "values", "full_scores")
  built = {name: positions.build(name) for name in sorted(positions)}
  acting = [name for name, x in built.items() if any(map(x.overrides, hooks))]
  return ["none", "rope", *acting]


def key(case: Case) -> str:
  return "/".join(map(str, dataclasses.astuple(case)))


def read(path: Path) -> dict[str, dict[str, Any]]:
  """Returns results so far, by case."""
  return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def apart(case: Case) -> dict[str, Any]:
  """Compiles one case in a separate process, which the compiler may abort."""
  words = ",".join(map(str, dataclasses.astuple(case)))
  command = [sys.executable, "-m", "experiments.bench.aot", f"--case={words}"]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode == 0:
    return json.loads(done.stdout.splitlines()[-1])
  lines = done.stderr.splitlines() or ["no message"]
  line = next((x for x in lines if "Check failed" in x), lines[-1])
  message = line[max(0, line.find("Check failed")) :]
  return {"failed": f"the compiler ended its process: {message[:200].strip()}"}


def compiled(case: Case) -> dict[str, Any]:
  """Compiles one case; returns its figures, or the reason for none."""
  reason = refusal(case)
  if reason:
    return {"refused": reason}
  start = time.time()
  try:
    trace = traced(case)
    program = trace.lower(lowering_platforms=("tpu",)).compile()
  except Exception as error:  # the compiler's own kinds of errors are not public
    return {"failed": " ".join(str(error).split())[:300]}
  seconds = round(time.time() - start, 1)
  memory = program.memory_analysis()
  kernels = bytes_moved.of_kernels(trace.jaxpr)
  text = program.as_text()
  around = bytes_moved.around_kernels(text)
  return {
    "kernels": [dataclasses.asdict(kernel) for kernel in kernels],
    "around_bytes": around,
    "around_fast_bytes": bytes_moved.around_kernels(text, fast=True) - around,
    "moved_bytes": around + sum(kernel.bytes for kernel in kernels),
    "ideal_bytes": case.ideal_bytes,
    "flops": (program.cost_analysis() or {}).get("flops"),
    "temporary_bytes": memory.temp_size_in_bytes,
    "peak_bytes": memory.peak_memory_in_bytes,
    "compile_seconds": seconds,
    **compiler.versions(),
    "commit": provenance.commit()[0],
  }


def lines(results: dict[str, dict[str, Any]]) -> list[list[str]]:
  """Returns lines of the table, by chip, length and encoding."""
  order = sorted(results.values(), key=lambda r: (r["chip"], r["L"], r["encoding"]))
  splash = {(r["chip"], r["B"], r["L"]): r for r in order if r["core"] == SPLASH}
  return [
    _line(result, splash.get((result["chip"], result["B"], result["L"]), {}))
    for result in order
    if result["core"] != SPLASH
  ]


def _line(result, splash) -> list[str]:
  """Returns the cells of one program.

  splash   the result of splash attention for the same chip and shapes
  """
  start = [f"`{result['encoding']}`", result["chip"]]
  start.append(f"{result['B']} x {result['L']:,}")
  for outcome in ("refused", "failed"):
    if outcome in result:
      return [*start, f"{outcome}: {result[outcome]}", *[""] * (len(HEADER) - 4)]
  moved, beside = result["moved_bytes"], splash.get("moved_bytes")
  return [
    *start,
    f"{moved / 1e9:.2f}",
    f"{result['around_fast_bytes'] / 1e9:.2f}",
    f"{result['ideal_bytes'] / 1e9:.2f}",
    f"{beside / 1e9:.2f}" if beside else "",
    f"{moved / beside:.2f}" if beside else "",
    f"{result['temporary_bytes'] / 2**20:,.1f}",
    f"{splash['temporary_bytes'] / 2**20:,.1f}" if beside else "",
    f"{result['peak_bytes'] / 2**20:,.0f}",
    f"{result['compile_seconds']:.0f}",
    result.get("commit", ""),
  ]


def table(results: dict[str, dict[str, Any]] | None = None) -> str:
  """Returns the table in Markdown, of the recorded results unless others are given."""
  cells = [HEADER, ["---"] * len(HEADER), *lines(results or read(PATH))]
  return "\n".join(f"| {' | '.join(line)} |" for line in cells)


if __name__ == "__main__":
  define()
  command.run(main, (ValueError,))
