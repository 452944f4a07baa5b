"""What computing in bfloat16 costs each encoding: rounding, and never its positions."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.contract.harness import DIMS, MODES, attend, inputs
from transformer_jax import numpy_interpreter
from transformer_jax.attention.cores import cores
from transformer_jax.positions import positions
from transformer_jax.positions.rope import Rope

ROUNDING = 2.0**-8  # of bfloat16: eight bits of mantissa
# A few roundings in a row: vectors, rotated vectors, weights, outputs.
ALLOWED = 6 * ROUNDING


def error(encoding):
  """Returns by how much attention in bfloat16 is off, relative to the largest output.

  From position 1,000 on, where a phase in bfloat16 would be off by up to four radians.
  """
  count = encoding.num_positions(DIMS)
  near = encoding.ids or (count is not None and count < 1024)
  at = MODES["causal" if near else "moved"]
  params, *vectors = inputs(encoding)
  rounded = [x.astype(jnp.bfloat16) for x in vectors]
  exact = [x.astype(jnp.float32) for x in rounded]
  run = functools.partial(attend, cores.build("dense"), encoding)
  half, whole = (
    np.asarray(numpy_interpreter.evaluate(run, params, *given, at), np.float32)
    for given in (rounded, exact)
  )
  return np.abs(half - whole).max() / np.abs(whole).max()


@pytest.mark.parametrize("name", sorted(positions))
def test_bfloat16_rounds_vectors_and_not_positions(name):
  assert error(positions.build(name)) < ALLOWED


class HalfPhases(Rope):
  """RoPE whose phases have the type of the vectors."""

  def rotate(self, params, x_BLHK, pos_BL):
    return super().rotate(params, x_BLHK, pos_BL.astype(x_BLHK.dtype))


def test_phases_in_bfloat16_would_be_seen():
  assert error(HalfPhases()) > 5 * ALLOWED
