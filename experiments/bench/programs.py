"""Compiled programs of the benchmark, and facts on them."""

import hashlib

import jax


def compiled(function, *args):
  """Returns a call of the compiled function, and the facts on its program."""
  lowered = jax.jit(function).lower(*args)
  program = lowered.compile()
  facts = {
    "temporary_bytes": planned_bytes(program, "temp"),
    "output_bytes": planned_bytes(program, "output"),
    "program": hashlib.sha256(lowered.as_text().encode()).hexdigest()[:12],
  }
  return lambda: jax.block_until_ready(program(*args)), facts


def planned_bytes(program: jax.stages.Compiled, kind: str) -> int:
  """Returns XLA's plan of a program's memory; kind: temp or output."""
  memory = program.memory_analysis()
  assert memory is not None, "XLA plans the memory of every program"
  return getattr(memory, f"{kind}_size_in_bytes")
