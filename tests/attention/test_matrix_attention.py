"""Every cell of variant x encoding x core works, or is refused by name.

The exhaustive sweep; what each variant inherits quickly is in test_attentions.py, and
every encoding with every use of plain attention in test_matrix.py.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_attentions import (
  ARGUMENTS,
  CORES,
  MESHES,
  SCORED,
  SUMS,
  TILED,
  attend,
  check_refusal,
  close,
  compare_cores,
  decoder,
  hooks_of,
  inputs,
  inputs_at,
  jit,
  make,
  other,
  placed,
)
from test_positions import DIMS, EITHER_WAY, MODES, B, L

from transformer_jax.attention import attentions
from transformer_jax.models import empty_cache
from transformer_jax.models.compatibility import form
from transformer_jax.positions import positions

# All of these meet every encoding in the definition and those of KINDS in all cores;
# in tiles just the variants of FIRST meet all, for tiles know the others by them.
SPECS = [ARGUMENTS.get(name, [name])[0] for name in SCORED] + SUMS


def class_of(spec):
  """Returns what a layer knows of a variant: hooks, parameters, widths of heads."""
  variant = attentions.build(spec)
  learned = jax.eval_shape(lambda: variant.init(jax.random.key(0), DIMS))
  return hooks_of(spec), tuple(learned), variant.projections()


FIRST = {class_of(spec): spec for spec in reversed(SPECS)}.values()
# One of each kind: nothing, turned, a table, slopes, keys with data, added to values.
KINDS = ["none", "rope", "t5", "alibi", "forgetting", "shaw"]
# Scores of up to 58 and 51, where others are up to 11, are rounded as much more.
ROUGH = {("cosine", "pope"): 4e-5, ("qk_norm_l2", "pope"): 4e-5}
SHORT = {m: MODES[m] for m in ("causal", "packed", "left_padded", "first_half")}


@functools.lru_cache(maxsize=4)  # thousands of programs would stay in memory
def forward(layer):
  """Returns jitted `(params, x, at) -> what the layer makes of its tokens`."""
  return jit(lambda *given: attend(layer, *given)[0])


def run(layer, at, core=None):
  """Runs a layer, whose core may need a mesh."""
  with MESHES.get(core, contextlib.nullcontext)():
    return forward(layer)(*inputs(other(layer, core="dense")), placed(layer, at))


def fits(layer, at):
  return placed(layer, at).pos_BL.max() < (
    layer.position.num_positions(DIMS) or jnp.inf
  )


def see_pair_refused(layer, reason):
  """Checks that the definition itself refuses an encoding and a variant."""
  assert layer.position.name in reason and layer.variant.name in reason, reason
  check_refusal(layer, "", reason)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(positions))
@pytest.mark.parametrize("spec", SPECS)
def test_every_cell_works_or_is_refused(spec, name):
  dense = make(attentions.build(spec), positions.build(name))
  reason = dense.arch.core.refusal(dense.position, dense.variant)
  if reason:
    return see_pair_refused(dense, reason)
  kinds = {mode: at for mode, at in SHORT.items() if fits(dense, at)}
  near = ROUGH.get((spec, name), 1e-5)
  want = {mode: run(dense, at) for mode, at in kinds.items()}
  if not dense.position.needs_full_text:
    close(want["first_half"][:, :12], want["causal"][:, :12], atol=near / 2)
  if name in KINDS:
    writes_what_it_reads(dense, want["left_padded"])
  for core in TILED:
    tested = other(dense, core=CORES.get(core, core))
    reason = tested.arch.core.refusal(dense.position, dense.variant)
    if reason:
      check_refusal(tested, core, reason)
    elif name in KINDS or core == "linear" or (core == "blockwise" and spec in FIRST):
      for mode, at in kinds.items():
        close(run(tested, at, core), want[mode], f"{core}, {mode}", atol=near)


def writes_what_it_reads(layer, want):
  """Decodes on the cache, token by token."""
  at, (empty,) = placed(layer, MODES["left_padded"]), empty_cache(layer.arch, B, L + 3)
  one_seed = jax.tree.map(lambda x: x[None], inputs(layer))
  got = decoder(layer)(*one_seed, at, empty)[0]
  real = np.array(at.real_BL)
  real[:, : L - 1] &= not layer.position.needs_full_text
  close(got[real], want[real], atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("use", ["decoder", "encoder"])
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("spec", SPECS)
def test_gradients_of_every_core_are_those_of_the_definition(spec, name, use):
  try:
    parts = (form(x, use) for x in (attentions.build(spec), positions.build(name)))
    dense = make(*parts)
  except ValueError as error:
    assert f"{use} attention: " in str(error) and "use it in a decoder" in str(error)
    return
  reason = dense.arch.core.refusal(dense.position, dense.variant)
  if reason:
    return see_pair_refused(dense, reason)
  assert jax.eval_shape(dense.init, jax.random.key(0), *inputs_at(dense))
  for core in ("blockwise", "blockwise at once", "cudnn"):
    compare_cores(dense, core, MODES if use == "decoder" else EITHER_WAY)
