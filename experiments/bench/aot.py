"""Ahead-of-time compilation of attention for TPUs, on a machine without one.

  pip install -e '.[tpu-aot]'
  python -m experiments.bench.aot --dry_run
  python -m experiments.bench.aot

Each encoding is compiled with `dense` and with `pallas_tpu`, forward and backward. The
figures are the compiler's: bytes, memory, an estimate of seconds. Nothing runs, so none
of them is a measurement of speed.
"""

import dataclasses
import functools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging

from experiments.estimating import compiler
from transformer_jax import command
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.positions import bind, coords, positions

PATH = Path(__file__).parents[2] / "docs" / "results" / "aot_tpu.json"
CORES = {"dense": "dense", "pallas_tpu": "pallas_tpu(interpret=False)"}
TOPOLOGIES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
FEW = ("none", "alibi", "t5", "fire", "shaw")  # on chips other than the first
H, K = 8, 128  # heads and their width, of one sequence in bfloat16
FLAGS = flags.FLAGS
HEADER = (
  *("encoding", "chip", "L", "core", "GB moved", "MiB temporary", "MiB at peak"),
  *("estimated ms", "s to compile"),
)


@dataclasses.dataclass(frozen=True)
class Case:
  """One program to compile."""

  chip: str
  L: int
  encoding: str
  core: str


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("chips", list(TOPOLOGIES), "TPUs to compile for.")
  flags.DEFINE_list("lengths", ["2048", "8192"], "Tokens in a sequence.")
  flags.DEFINE_list("encodings", [], "Encodings; by default all that act on scores.")
  flags.DEFINE_bool("dry_run", False, "List the cases, and stop.")
  flags.DEFINE_list("case", [], "One program: chip, length, encoding, core.")
  flags.DEFINE_string("out", str(PATH), "File of results; its cases are skipped.")


def main(argv: list[str]) -> None:
  del argv
  if FLAGS.case:
    chip, L, *names = FLAGS.case
    print(json.dumps(compiled(Case(chip, int(L), *names))))
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
    for L in lengths if n == 0 else lengths[:1]:
      for name in names or (acting() if n == 0 else FEW):
        for core in CORES:
          yield Case(chip, L, name, core)


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
  encoding, core = positions.build(case.encoding), cores.build(CORES[case.core])
  reason = core.refusal(encoding)
  if reason:
    return {"refused": reason}
  start = time.time()
  try:
    program = lowered(case, encoding, core).compile()
  except Exception as error:  # the compiler's own kinds of errors are not public
    return {"failed": " ".join(str(error).split())[:300]}
  memory, cost = program.memory_analysis(), program.cost_analysis() or {}
  # Kinds of operations that the compiler cannot rate count -1 second each.
  seconds = cost.get("optimal_seconds", -1.0)
  return {
    "flops": cost.get("flops"),
    "bytes_accessed": cost.get("bytes accessed"),
    "temporary_bytes": memory.temp_size_in_bytes,
    "peak_bytes": memory.peak_memory_in_bytes,
    "estimated_seconds": seconds if seconds > 0 else None,
    "compile_seconds": round(time.time() - start, 1),
    "jax": jax.__version__,
  }


def lowered(case: Case, encoding, core):
  """Returns the gradient of attention for one chip of a kind, ready to compile."""
  from jax.experimental import topologies

  chips = topologies.get_topology_desc(TOPOLOGIES[case.chip], "tpu").devices
  mesh = jax.sharding.Mesh(np.array(chips[:1]), ("data",))
  place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  shape = functools.partial(jax.ShapeDtypeStruct, sharding=place)
  dims = Dims(V=8, D=H * K, H=H, F=8, L=case.L)
  params = jax.eval_shape(lambda: encoding.init(jax.random.key(0), dims))
  params = {name: shape(x.shape, x.dtype) for name, x in params.items()}
  vectors = shape((1, case.L, H, K), jnp.bfloat16)
  x_BLD = shape((1, case.L, H * K), jnp.bfloat16)

  def loss(params, q, k, v, x_BLD, g):
    """Returns the sum of the outputs, each times its entry of g.

    params    the encoding's
    q, k, v   queries, keys, values: arrays BLHK
    x_BLD     tokens, for encodings that read them
    g         the output's gradient, BLHK
    """
    at = coords.consecutive(1, case.L)
    at = at.replace(data={name: at.pos_BL for name in encoding.ids})
    position = bind(encoding, params, dims)
    at = position.accumulate(position.read(x_BLD, q, at))
    q, k = position.transform_qk(q, k, at, at)
    return jnp.sum((core(q, k, v, at, at, position) * g).astype(jnp.float32))

  gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3, 4)))
  traced = gradient.trace(params, vectors, vectors, vectors, x_BLD, vectors)
  return traced.lower(lowering_platforms=("tpu",))


def lines(results: dict[str, dict[str, Any]]) -> list[list[str]]:
  """Returns lines of the table, by chip, length and encoding."""
  order = sorted(results.values(), key=lambda r: (r["chip"], r["L"], r["encoding"]))
  return [_line(result) for result in order]


def _line(result) -> list[str]:
  start = [f"`{result['encoding']}`", result["chip"], f"{result['L']:,}"]
  start.append(f"`{result['core']}`")
  for outcome in ("refused", "failed"):
    if outcome in result:
      return [*start, f"{outcome}: {result[outcome]}", "", "", "", ""]
  seconds = result["estimated_seconds"]
  return [
    *start,
    f"{result['bytes_accessed'] / 1e9:.2f}",
    f"{result['temporary_bytes'] / 2**20:,.0f}",
    f"{result['peak_bytes'] / 2**20:,.0f}",
    "no estimate" if seconds is None else f"{1e3 * seconds:.2f}",
    f"{result['compile_seconds']:.0f}",
  ]


def table(results: dict[str, dict[str, Any]] | None = None) -> str:
  """Returns the table in Markdown, of the recorded results unless others are given."""
  cells = [HEADER, ["---"] * len(HEADER), *lines(results or read(PATH))]
  return "\n".join(f"| {' | '.join(line)} |" for line in cells)


if __name__ == "__main__":
  define()
  command.run(main, (ValueError,))
