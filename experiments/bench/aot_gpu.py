"""Ahead-of-time compilation of `pallas_gpu` for an H100, on a machine without a GPU.

  pip install -e '.[gpu-aot]'
  python -m experiments.bench.aot_gpu

Attention forward and backward of each encoding that a core computes, of 2 texts of
1,024 tokens, 8 heads of 128 in bfloat16. Nothing runs: a line says that a program fits
the registers and the shared memory of the chip, not that it is fast.
"""

import functools
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags, logging

from experiments.bench import ours
from experiments.bench.device_compare import acting
from experiments.bench.device_worker import both_passes
from experiments.catalogue.parts import table
from experiments.runner import provenance
from transformer_jax import command
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.positions import positions

PATH = Path(__file__).parents[2] / "docs" / "results" / "aot_gpu.json"
CORE = "pallas_gpu(interpret=False)"
B, L, H, K = 2, 1024, 8, 128
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 registers_per_core_limit: 65536
  registers_per_block_limit: 65536 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84929347584 cuda_compute_capability { major: 9 }
}
platform_name: "CUDA" device_description_str: "NVIDIA H100 80GB HBM3"
runtime_version { major: 13 } dnn_version_info { major: 9 minor: 10 patch: 2 }
"""
FLAGS = flags.FLAGS


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("encodings", [], "Encodings; by default all that a core computes.")
  flags.DEFINE_string("out", str(PATH), "File of results; its encodings are skipped.")


def main(argv: list[str]) -> None:
  del argv
  path, names = Path(FLAGS.out), FLAGS.encodings or ["none", *acting()[0]]
  results = json.loads(path.read_text("utf-8")) if path.exists() else {}
  for name in names:
    if name not in results:
      results[name] = compiled_for_h100(name)
      logging.info("%s %s", name, results[name])
      path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
  print(lines(results))


def compiled_for_h100(name: str) -> dict[str, Any]:
  """Compiles an encoding's attention; returns figures, or the reason for none."""
  reason = cores.build(CORE).refusal(positions.build(name))
  if reason:
    return {"refused": reason}
  start = time.time()
  try:
    memory = lowered_for_h100(name).compile().memory_analysis()
  except Exception as error:  # the compiler's own kinds of errors are not public
    return {"failed": " ".join(str(error).split())[:160]}
  return {
    "temporary_bytes": memory.temp_size_in_bytes,
    "compile_seconds": round(time.time() - start, 1),
    "jax": jax.__version__,
    "commit": provenance.commit()[0],
  }


def lowered_for_h100(name: str) -> Any:
  """Returns the program of both passes, ready to compile."""
  from jax.experimental import topologies

  chips = topologies.get_topology_desc(
    platform="cuda", target_config=H100, topology="1x1x1"
  ).devices
  mesh = jax.sharding.Mesh(np.array(chips[:1]), ("data",))
  place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  shape = functools.partial(jax.ShapeDtypeStruct, sharding=place)
  dims = Dims(V=2, D=H * K, H=H, F=1, L=L, K=K)
  init = functools.partial(positions.build(name).init, dims=dims)
  params = jax.eval_shape(init, jax.random.key(0))
  params = {n: shape(x.shape, x.dtype) for n, x in params.items()}
  vectors = [shape((B, L, H, K), "bfloat16")] * 4
  attend = functools.partial(ours.attend_rotated, CORE)
  program = jax.jit(both_passes(name, attend, dims))
  return program.trace(params, *vectors).lower(lowering_platforms=("cuda",))


def lines(results: dict[str, dict[str, Any]]) -> str:
  """Returns the table in Markdown."""
  rows = [(f"`{name}`", *_cells(result)) for name, result in sorted(results.items())]
  return table(("encoding", "MiB temporary", "s to compile", "commit"), rows)


def _cells(result: dict[str, Any]) -> tuple[str, str, str]:
  for outcome in ("refused", "failed"):
    if outcome in result:
      return f"{outcome}: {result[outcome]}", "", ""
  memory = result["temporary_bytes"] / 2**20
  seconds = f"{result['compile_seconds']:.0f}"
  return f"{memory:,.1f}", seconds, result.get("commit", "")


if __name__ == "__main__":
  # Without a GPU JAX would look for one, and fail.
  jax.config.update("jax_platforms", "cpu")
  define()
  command.run(main, (ValueError,))
