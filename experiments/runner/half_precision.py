"""Offer of bfloat16, where the matrix products of this machine's CPU gain by it."""

import statistics
import time
from collections.abc import Sequence

from experiments.setup.runs import Run

LEAST = 2.0  # times as fast as float32: other operations gain nothing on a CPU
WIDE = 256  # width of a model from which products are most of a step
SIZE, TIMES = 1024, 5  # of the matrices that are multiplied, and how often


def offer(todo: Sequence[Run]) -> str:
  """Returns a sentence that offers bfloat16, "" where it would gain nothing.

  Takes a third of a second where a run is wide, on a CPU, and in float32.
  """
  import jax

  models = [run.config.model for run in todo]
  if not any(m.dtype == "float32" and m.width >= WIDE for m in models):
    return ""
  times = speedup() if jax.default_backend() == "cpu" else 0.0
  if times < LEAST:
    return ""
  return (
    f"products in bfloat16 are {times:.1f} times as fast as in float32 here; write"
    " --config.model.dtype=bfloat16 to compute in it"
  )


def speedup() -> float:
  """Returns how many times as fast as in float32 a product is in bfloat16."""
  import jax
  import jax.numpy as jnp

  seconds = {}
  for dtype in (jnp.float32, jnp.bfloat16):
    x = jnp.ones((SIZE, SIZE), dtype)
    product = jax.jit(jnp.matmul).lower(x, x).compile()
    product(x, x).block_until_ready()
    seconds[dtype] = statistics.median(_seconds(product, x) for _ in range(TIMES))
  return seconds[jnp.float32] / seconds[jnp.bfloat16]


def _seconds(product, x) -> float:
  start = time.perf_counter()
  product(x, x).block_until_ready()
  return time.perf_counter() - start
