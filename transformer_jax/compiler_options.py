"""Options of the compiler, for programs that train and for those that run seldom."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered

from transformer_jax.devices import platform

CompilerOptions = dict[str, Any] | None
UNKNOWN = "No such compile option"  # of a compiler older or newer than these options

# TPUs with SparseCores, small processors beside the large one: these carry out
# collectives while the large one computes. Left to itself the compiler waits for them.
SPARSE_CORES = {"TPU v5", "TPU v6 lite"}  # v5p and v6e, as their drivers call them
KINDS = ("all_gather", "all_reduce", "reduce_scatter")
OFFLOAD = {
  **{f"xla_tpu_enable_sparse_core_collective_offload_{kind}": True for kind in KINDS},
  **{f"xla_tpu_enable_async_collective_fusion_fuse_{kind}": False for kind in KINDS},
}

# On a CPU, code that is not optimized; fusions take XLA most of the time that is left.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def of_training(mesh: Mesh) -> CompilerOptions:
  """Returns the options for a mesh's devices, as `jax.jit` takes them; None: none.

  >>> import jax
  >>> of_training(jax.make_mesh((1,), ("data",), devices=jax.devices("cpu")[:1]))
  """
  kind = mesh.devices.flat[0].device_kind
  return OFFLOAD if mesh.size > 1 and kind in SPARSE_CORES else None


def compiled(
  lower: Callable[[CompilerOptions], Lowered], options: CompilerOptions
) -> Compiled:
  """Compiles a program with options, or without where the compiler does not know one.

  lower   lowers the program to be compiled with some options

  >>> double = lambda options: jax.jit(lambda x: 2 * x, compiler_options=options)
  >>> compiled(lambda x: double(x).lower(1.0), {"xla_of_another_version": True})(2.0)
  Array(4., dtype=float32, weak_type=True)
  """
  try:
    return lower(options).compile()
  except jax.errors.JaxRuntimeError as error:
    if not options or UNKNOWN not in str(error):
      raise
  return lower(None).compile()


def of_few_calls() -> CompilerOptions:
  """Returns the options of a program that runs a few times; None: none.

  A CPU compiles it three to six times as fast as a program that trains.

  >>> of_few_calls()["xla_backend_optimization_level"]
  0
  """
  if platform() != "cpu":
    return None
  return {name: value for name, value in QUICKLY.items() if _known(name, value)}


@functools.cache
def _known(name: str, value: Any) -> bool:
  """Returns whether the compiler of this JAX has an option."""
  try:
    jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
  except jax.errors.JaxRuntimeError as error:
    if UNKNOWN not in str(error):
      raise
    return False
  return True
