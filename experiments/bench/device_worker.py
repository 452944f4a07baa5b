"""This project's side of the benchmark of an accelerator, in a process of its own.

python -m experiments.bench.device_worker    # started by experiments.bench --device
"""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from experiments.bench import device_compare, ours
from experiments.bench.peaks import peak_of
from experiments.bench.programs import compiled
from experiments.bench.serve import CaseMaker, serve
from experiments.bench.speed_targets import step_flops
from experiments.bench.splash import causal_splash
from experiments.configs import pod
from experiments.runner import provenance
from experiments.runner.build import build
from transformer_jax.axes import Dims
from transformer_jax.positions import bind, coords, positions

ROUND = 0.05  # seconds of calls in a row: the time of a launch must not count
LONGEST = 3.0  # seconds of one call, above which a case is left out
PART = 0.85  # of the device's memory that a program may use


def compare(encoding, core, **shape) -> tuple[Callable[[], Any], dict[str, Any]]:
  """Compares a core with `dense` on this device; nothing is timed.

  encoding, core   specs
  shape            sizes, as in `ComparedShape`
  """
  sizes = device_compare.ComparedShape(**shape)
  return lambda: None, device_compare.compare(encoding, core, sizes)


def attention(encoding, core, B, L, H, K, dtype="bfloat16"):
  """Causal attention of B sequences: output, and gradients of all its inputs.

  encoding   spec
  core       spec, or a function of `BASELINES`
  B, L       sequences and their tokens
  H, K       heads and their width
  dtype      of queries, keys and values
  """
  dims = Dims(V=2, D=H * K, H=H, F=1, L=L, K=K)
  keys = jax.random.split(jax.random.key(0), 5)
  params = positions.build(encoding).init(keys[0], dims)
  vectors = [jax.random.normal(key, (B, L, H, K)).astype(dtype) for key in keys[1:]]
  attend = BASELINES.get(core) or functools.partial(ours.attend_rotated, core)
  run, facts = compiled(both_passes(encoding, attend, dims), params, *vectors)
  _require_memory(facts["temporary_bytes"] + facts["output_bytes"])
  # Two products of a pair forward and five backward, half of the pairs.
  flops = 7 * 2 * B * H * K * L * L / 2
  return repeated(run, facts | {"flops": flops, "peak": peak_of(kind())})


def both_passes(encoding, attend, dims):
  """Returns (params, q, k, v, g) -> (output, gradients), causal; to be compiled.

  encoding   spec
  attend     function of the bound encoding, vectors and coordinates
  dims       sizes
  """
  encoding, at = positions.build(encoding), coords.consecutive(1, dims.L)
  at = at.replace(data={name: at.pos_BL for name in encoding.ids})

  def both(params, q, k, v, g):
    def forward(params, q, k, v):
      return attend(bind(encoding, params, dims), q, k, v, at)

    out, pull = jax.vjp(forward, params, q, k, v)
    return out, pull(g)

  return both


def _require_memory(needed: int) -> None:
  """Raises ValueError for a program that does not fit on this device."""
  stats = jax.devices()[0].memory_stats() or {}
  limit = stats.get("bytes_limit")
  if limit and needed > PART * limit:
    raise ValueError(
      f"left out: it needs {needed / 2**30:.0f} GiB of {limit / 2**30:.0f}"
    )


def repeated(run: Callable[[], Any], facts: dict[str, Any]):
  """Returns a call that repeats a program for a while, and how often as a fact."""
  run()
  start = time.perf_counter()
  run()
  once = time.perf_counter() - start
  if once > LONGEST:
    raise ValueError(f"left out: one call takes {once:.1f} s")
  calls = max(1, min(100, math.ceil(ROUND / once)))

  def several():
    for _ in range(calls):
      run()

  return several, facts | {"calls": calls}


def _fused(position, q, k, v, at):
  """JAX's own function: cuDNN's kernel on an NVIDIA GPU, products elsewhere."""
  fused: Literal["cudnn"] | None = "cudnn" if jax.default_backend() == "gpu" else None
  q, k = position.transform_qk(q, k, at, at)
  bias = position.bias(at.pos_BL, at.pos_BL)
  bias = bias.astype(q.dtype) if isinstance(bias, jax.Array) else None
  return jax.nn.dot_product_attention(
    q, k, v, bias=bias, is_causal=True, implementation=fused
  )


def _splash(position, q, k, v, at):
  """JAX's kernel for TPUs, which takes no bias."""
  q, k = position.transform_qk(q, k, at, at)
  _, L, H, _ = q.shape
  attend = causal_splash(L, H, interpret=jax.default_backend() != "tpu")
  return jnp.swapaxes(attend(*(jnp.swapaxes(x, 1, 2) for x in (q, k, v))), 1, 2)


BASELINES = {"jax.nn": _fused, "splash": _splash}


def step(remat="full", per_device=16, **sizes):
  """One training step of the pod config on all devices here, on random bytes.

  remat        as `model.remat`
  per_device   sequences on each device
  sizes        other values of `model` and `train.length`, for a rehearsal
  """
  devices = jax.device_count()
  config = pod.get_config()
  length = sizes.pop("length", config.train.length)
  with config.unlocked():
    config.task = "experiments.bench.ours:Noise(vocabulary=256)"
  config.model.update(remat=remat, **sizes)
  config.train.update(batch_size=per_device * devices, length=length)
  experiment = build(config)
  run, facts = ours.stepping(experiment.trainer, devices)
  B, model, peak = config.train.batch_size, config.model, peak_of(kind())
  work = {
    "flops": step_flops(B, length, V=256, D=model.width, N=model.layers),
    "peak": peak * devices if peak else None,
    "tokens": B * length,
    "core": core_of(experiment, length),
  }
  return repeated(run, facts | work)


def core_of(experiment, length: int) -> str:
  """Returns the core that attends in a training step."""
  from experiments.runner.cost import cores_used

  used, _ = cores_used(experiment.trainer.model.arch, [length])
  return str(used)


def kind() -> str:
  """Returns the name of the device, as jax has it: `NVIDIA H200`, `TPU v5 lite`."""
  return jax.devices()[0].device_kind


CASES: dict[str, CaseMaker] = {
  "compare": compare,
  "attention": attention,
  "step": step,
}


def versions() -> dict[str, str]:
  """Returns versions, the device and its platform."""
  named = {"device": provenance.device(), "platform": jax.default_backend()}
  return provenance.versions() | named | {"kind": kind()}


def main() -> None:
  """Answers requests; compiled programs are cached on disk."""
  jax.config.update("jax_compilation_cache_dir", str(ours.CACHE))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
  serve(CASES, versions)


if __name__ == "__main__":
  main()
