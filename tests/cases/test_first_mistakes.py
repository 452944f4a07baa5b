"""What people write first when they add an encoding.

Reported: a misspelt hook trained as `none`; a bias of all heads at once ended in
"IndexError: Too many indices". Right: one sentence each, with class, hook, the shape
had and wanted, and the right name.
"""

import dataclasses

import jax.numpy as jnp
import pytest

from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture
from transformer_jax.positions import PositionalEncoding
from transformer_jax.spec import SpecError

DIMS = Dims(V=7, D=16, H=2, F=16, L=8)


@dataclasses.dataclass(frozen=True)
class Misspelt(PositionalEncoding):
  """A hook that does not exist."""

  def init(self, key, dims):
    return {"rate_H": jnp.ones(dims.H)}

  def biass(self, params, pos_L, pos_M):
    return -params["rate_H"] * jnp.abs(pos_L[:, None] - pos_M[None, :])


@dataclasses.dataclass(frozen=True)
class AllHeads(PositionalEncoding):
  """A bias for all heads at once, as in other libraries."""

  def init(self, key, dims):
    return {"rate_H": jnp.ones(dims.H)}

  def bias(self, params, pos_L, pos_M):
    return -params["rate_H"][:, None, None] * jnp.abs(pos_L[:, None] - pos_M[None, :])


def refusal(encoding):
  with pytest.raises(SpecError) as error:
    Architecture(DIMS, encoding, cores.build("dense"), decoders=1)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_a_misspelt_hook_is_refused_with_the_right_name():
  said = refusal(Misspelt())
  assert "Misspelt.biass is not a hook" in said and "rename it to bias" in said


def test_a_bias_of_all_heads_is_refused_with_both_shapes():
  said = refusal(AllHeads())
  assert "AllHeads.bias returns (3, 5, 7)" in said and "must be (5, 7)" in said
  assert "called for one head" in said
