"""What makes thousands of small programs of a test process cheaper to compile.

JAX makes an MLIR context for each program, which loads all dialects: 3 ms, of the 14
that an operation takes which runs for the first time. And it hashes each program for a
cache, also where no folder is named for one: 1 ms.
"""

import functools
import os

import jax
from jax._src.interpreters import mlir

from experiments.runner import compile_cache

CACHE = "jax_enable_compilation_cache"

_context = functools.cache(mlir.make_ir_context)


def share_one_context():
  """Has JAX lower programs in one MLIR context, until `forget_context`."""
  mlir.make_ir_context = _context


def forget_context():
  """Frees the attributes, constants among them, of the programs lowered so far."""
  _context.cache_clear()


def hash_programs_of_runs_alone():
  """Turns the cache on for runs, which name their folder, and off elsewhere."""
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update(CACHE, False)
    compile_cache.SETTINGS[CACHE] = True
