"""Every cell of docs/positions.md: encoding x core x use x mode works, or is refused.

The exhaustive sweep; what each encoding inherits quickly is in test_positions.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_positions import (
  CUT,
  DIMS,
  EITHER_WAY,
  MODES,
  B,
  K,
  L,
  attend,
  decoded,
  inputs,
  with_ids,
)

from transformer_jax.attention.cores import cores
from transformer_jax.models.compatibility import MODES as HOW
from transformer_jax.models.compatibility import USES, form, refusal
from transformer_jax.positions import bind, coords, positions

M = 17  # tokens of the text that a decoder attends to
CORES = {
  "dense": "dense",
  "blockwise": "blockwise(block=7)",
  "cudnn": "cudnn(implementation='xla')",
}
# They meet encodings in test_ring, test_pallas, test_kernel_attention; auto is another.
ELSEWHERE = {"auto", "linear", "pallas_gpu", "pallas_tpu", "ring"}
REAL = jnp.arange(M) < jnp.array([[17], [12]])
SOURCE = with_ids(coords.padded(REAL)).bidirectional()


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", sorted(positions))
def test_every_cell_works_or_is_refused(name, use):
  encoding = positions.build(name)
  assert {*CORES} | ELSEWHERE == {*cores}
  for core in CORES:
    for mode in HOW:
      reason = refusal(encoding, cores.build(CORES[core]), use, mode)
      if reason is None:
        CELLS[use, mode](CORES[core], form(encoding, use))
      elif core in reason:
        with pytest.raises(ValueError, match="whole rows|cudnn cannot"):
          run(CORES[core], form(encoding, use), MODES["causal"])
      elif (use, mode) != ("encoder", "decode"):
        says = f"{use} attention: .* use it in a decoder"
        with pytest.raises(ValueError, match=says):
          form(encoding, use)


def run(core, encoding, at):
  """Returns what a layer gives for all tokens at once."""
  return whole(core, encoding)(inputs(encoding), at)


@functools.cache
def whole(core, encoding):
  return jax.jit(lambda given, at: attend(cores.build(core), encoding, *given, at))


def close(got, want):
  np.testing.assert_allclose(got, want, atol=1e-5)


def train(at, core, encoding):
  """Equals the definition, and depends on all tokens that may be seen."""
  if at.pos_BL.max() < (encoding.num_positions(DIMS) or jnp.inf):
    close(run(core, encoding, at), run("dense", encoding, at))


def packed(at, core, encoding):
  """Equals each text alone, at the start of a row that ends with it."""
  params, *arrays = inputs(encoding)
  got = run(core, encoding, at)
  for row, text in ((0, slice(0, CUT)), (0, slice(CUT, L)), (1, slice(0, 4))):
    size = text.stop - text.start
    moved = [jnp.roll(x, -text.start, axis=1) for x in arrays]
    cut = lambda x, text=text, row=row: jnp.roll(x[row : row + 1], -text.start, axis=1)
    alone = jax.tree.map(lambda x, cut=cut: jnp.broadcast_to(cut(x), (B, L)), at)
    alone = alone.replace(order_BL=alone.order_BL.at[:, size:].set(-1))
    want = whole("dense", encoding)((params, *moved), alone)
    close(got[row, text], want[row, :size])


def decode(at, first, core, encoding):
  """Equals one pass, token by token after the first ones."""
  write = jax.jit(functools.partial(decoded, core, encoding, first=first))
  got, want = write(inputs(encoding), at), run("dense", encoding, at)
  last = slice(L - 1, None) if encoding.needs_full_text else slice(None)
  close(got[:, last], want[:, last])


@functools.cache
def between(core, encoding):
  """Returns `(own, source, q_at, k_at) -> what the one text reads from the other`."""

  def attend_to_source(own, source, q_at, k_at):
    position = bind(encoding, own[0], DIMS)
    q_at, k_at = position.keep(q_at), position.accumulate(position.keep(k_at))
    q, k = position.transform_qk(own[1], source[2], q_at, k_at)
    return cores.build(core)(q, k, source[3], q_at, k_at, position, K**-0.5)

  return jax.jit(attend_to_source)


def cross(core, encoding):
  """Equals the definition, whether a token reads alone or all read at once."""
  own, source = inputs(encoding), inputs(encoding, seed=1)
  source = jax.tree.map(lambda x: x[:, :M], source[1:])
  source, q_at = (None, *source), MODES["causal"].bidirectional()
  passed = between(core, encoding)(own, source, q_at, SOURCE)
  close(passed, between("dense", encoding)(own, source, q_at, SOURCE))
  last = jax.tree.map(lambda x: x[:, -1:], (own[1:], q_at))
  alone = between(core, encoding)((own[0], *last[0]), source, last[1], SOURCE)
  close(alone, passed[:, -1:])


def cross_packed(core, encoding):
  """Each text reads the source of the same number, and no other."""
  own, (_, *source) = inputs(encoding), inputs(encoding, seed=1)
  at = MODES["packed"].bidirectional()
  read = lambda source: between(core, encoding)(own, (None, *source), at, at)
  second = (at.segment_BL == 2)[..., None, None]
  changed = [jnp.where(second, 0.0, x) if x.ndim == 4 else x for x in source]
  moved = np.abs(read(source) - read(changed)).max((2, 3))
  np.testing.assert_array_equal(moved > 0, at.segment_BL == 2)


CAUSAL, PREFIX = MODES["causal"], EITHER_WAY["prefix"]
BOTH, BOTH_PACKED = EITHER_WAY["bidirectional"], EITHER_WAY["packed, bidirectional"]
PART = functools.partial
CELLS = {
  ("decoder", "train"): PART(train, CAUSAL),
  ("decoder", "packed"): PART(packed, MODES["packed"]),
  ("decoder", "decode"): PART(decode, MODES["left_padded"], 0),
  ("encoder", "train"): PART(train, BOTH),
  ("encoder", "packed"): PART(packed, BOTH_PACKED),
  ("prefix", "train"): PART(train, PREFIX),
  ("prefix", "packed"): PART(packed, EITHER_WAY["packed, prefix"]),
  ("prefix", "decode"): PART(decode, PREFIX, 9),
  ("cross", "train"): cross,
  ("cross", "packed"): cross_packed,
  ("cross", "decode"): cross,
}
