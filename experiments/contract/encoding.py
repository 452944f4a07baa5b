"""Contract of a positional encoding: every core, every kind of coordinates, the cache.

Every registered encoding is tested for it (tests/positions/test_positions.py), a user's
by `python -m experiments.check my_file:MyClass`. A formula can still be wrong.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.contract.harness import (
  CUT,
  DIMS,
  EITHER_WAY,
  HOLES,
  MODES,
  B,
  D,
  H,
  K,
  L,
  attend,
  compare_cores,
  decoded,
  fit,
  inputs,
  outputs,
  program,
  refused,
  with_ids,
)
from transformer_jax.attention.cores import cores
from transformer_jax.axes import axes_of
from transformer_jax.positions import TrainContext, coords
from transformer_jax.positions.base import HOOKS
from transformer_jax.positions.randomized import Randomized
from transformer_jax.training import sharding


def test_every_core_gives_the_dense_answer_and_gradients(encoding):
  compare_cores(encoding, MODES)


def test_attention_that_looks_both_ways_is_defined_or_refused(encoding):
  looks_both_ways_or_is_refused(encoding)


def looks_both_ways_or_is_refused(encoding, compared=True):
  assert encoding.cross() == encoding.cross().bidirectional()
  try:
    both = encoding.bidirectional()
  except ValueError as error:
    assert "use it in a decoder" in str(error)
    return
  if compared:
    compare_cores(both, EITHER_WAY)
  for mode, at in EITHER_WAY.items():
    assert np.all(np.isfinite(outputs(both, at, inputs(both)))), mode
  packed = outputs(both, EITHER_WAY["packed, bidirectional"], inputs(both))
  moved = [jnp.roll(x, -CUT, axis=1) for x in inputs(both)[1:]]
  alone = coords.padded(jnp.arange(L) < jnp.full((B, 1), L - CUT))
  alone = with_ids(alone).bidirectional()
  alone = outputs(both, alone, (inputs(both)[0], *moved))
  np.testing.assert_allclose(packed[0, CUT:], alone[0, : L - CUT], atol=5e-6)


def test_packed_and_padded_rows_equal_the_texts_alone(encoding):
  params, *arrays = inputs(encoding)
  packed, padded = (outputs(encoding, MODES[m]) for m in ("packed", "left_padded"))
  # The second text of row 0, and the text of row 0 without its padding, moved to the
  # front of a row that ends with them.
  for got, start in ((packed, CUT), (padded, 9)):
    moved = [jnp.roll(x, -start, axis=1) for x in arrays]
    here = with_ids(coords.padded(jnp.arange(L) < jnp.full((B, 1), L - start)))
    alone = outputs(encoding, here, (params, *moved))
    np.testing.assert_allclose(got[0, start:], alone[0, : L - start], atol=5e-6)
  # A text goes on after padding.
  real, n = np.flatnonzero(HOLES), HOLES.sum()
  moved = [x.at[:, :n].set(x[:, real]) for x in arrays]

  def at(mask):
    return with_ids(coords.padded(jnp.broadcast_to(mask, (B, L))))

  alone = outputs(encoding, at(jnp.arange(L) < n), (params, *moved))
  np.testing.assert_allclose(
    outputs(encoding, at(HOLES))[:, real], alone[:, :n], atol=1e-5
  )
  assert not np.any(padded[0, :9]), "a place without a token must attend to nothing"


def test_what_comes_later_changes_nothing_unless_declared(encoding):
  whole = outputs(encoding, MODES["causal"])
  first = outputs(encoding, MODES["first_half"])
  same = np.allclose(first[:, :12], whole[:, :12], atol=2e-6)
  assert same or encoding.needs_full_text


def test_the_future_has_zero_gradient(encoding):
  everything = inputs(encoding)
  g = jnp.zeros((B, L, H, K)).at[:, 11].set(1.0)
  _, (_, *grads) = program("dense", encoding)(everything, MODES["causal"], g)
  for grad in grads:
    assert not np.any(grad[:, 12:]), "output 11 depends on a later token"
  assert np.any(grads[2][:, :12])


def test_shifting_positions_changes_nothing_exactly_when_declared(encoding):
  here, there = MODES["causal"], MODES["moved"]
  if encoding.num_positions(DIMS):
    here, there = (
      at.replace(pos_BL=at.pos_BL // 2 + n) for n, at in ((0, here), (3, here))
    )
  moved = outputs(encoding, there) - outputs(encoding, here)
  # Phases of 1000 radians are exact to 6e-5 in float32.
  assert (np.abs(moved).max() < 5e-4) == encoding.relative, np.abs(moved).max()


def test_positions_of_a_million_stay_distinct(encoding):
  """Neighbours differ there as much as they do at the start of a text."""
  if encoding.ids:
    return  # the task says where these tokens are

  def effect(at):  # of positions, against all tokens at the first one's
    collapsed = at.replace(pos_BL=jnp.full_like(at.pos_BL, at.pos_BL[0, 0]))
    return np.abs(outputs(encoding, at) - outputs(encoding, collapsed)).max()

  near, far = effect(MODES["causal"]), effect(MODES["far"])
  if encoding.num_positions(DIMS) is None:
    assert far >= 0.2 * near, (near, far)
  if encoding.relative:
    drift = outputs(encoding, MODES["far"]) - outputs(encoding, MODES["causal"])
    # A phase of a million radians is exact to a sixteenth in float32.
    assert np.abs(drift).max() < 0.05


def test_bfloat16_stays_within_its_epsilon(encoding):
  params, *arrays = inputs(encoding)
  run = jax.jit(functools.partial(attend, cores.build("dense"), encoding))
  got = run(params, *(x.astype(jnp.bfloat16) for x in arrays), MODES["causal"])
  assert got.dtype == jnp.bfloat16
  half = [x.astype(jnp.bfloat16).astype(jnp.float32) for x in arrays]
  want = outputs(encoding, MODES["causal"], (params, *half))
  # Eight bits of mantissa, on rotated queries and keys, on weights and on values.
  np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.06)


def test_parameters_have_the_axes_of_their_names(encoding):
  sizes = {"H": H, "K": K, "D": D}
  shapes = jax.eval_shape(lambda: encoding.init(jax.random.key(0), DIMS))
  for name, x in shapes.items():
    letters = axes_of(name)
    assert len(letters) == x.ndim, name
    for letter, size in zip(letters, x.shape, strict=True):
      assert sizes.get(letter, size) == size, name
  for name, x in encoding.constants(DIMS).items():
    assert len(axes_of(name)) == x.ndim, name
  fields = {field.name for field in dataclasses.fields(encoding)}
  assert not fields & {*HOOKS}, "a field must not hide a hook"


def test_a_mesh_can_split_the_parameters_by_their_names(encoding):
  shapes = jax.eval_shape(lambda: encoding.init(jax.random.key(0), DIMS))
  where = sharding.split(sharding.make_mesh(2, 4), shapes)
  for name, sharded in where.items():
    assert ("tensor" in sharded.spec) == ("H" in axes_of(name)), name


def test_every_parameter_learns_and_a_second_call_compiles_nothing(encoding):
  """Gradient descent on parameters, queries, keys, values and tokens fits a target."""
  given, at = jax.device_get(inputs(encoding)), MODES["packed"]
  run = program("dense", encoding)
  target = 0.3 * np.cos(np.arange(B * L * H * K, dtype=np.float32))
  target = target.reshape(B, L, H, K)
  out = jax.device_get(run(given, at, target)[0])
  compiled = run._cache_size()
  for name, grad in run(given, at, out - target)[1][0].items():
    # A shift of all scores of a row is no change after the softmax.
    assert np.any(np.abs(grad) > 1e-7) or name.endswith("out_shift_H"), name
  losses = fit(lambda given, g: run(given, at, g), given, target, steps=15)
  assert losses[-1] < 0.8 * losses[0], losses
  assert run._cache_size() == compiled


def test_decoding_on_the_cache_equals_one_pass_for_every_seed(encoding):
  """Token by token, with padding on the left, and room left in the cache."""
  at, each = MODES["left_padded"], [inputs(encoding, seed) for seed in range(2)]
  seeds = jax.tree.map(lambda *x: np.stack(x), *jax.device_get(each))
  run = jax.vmap(functools.partial(decoded, "dense", encoding), (0, None))
  got = jax.jit(run)(seeds, at)
  last = slice(L - 1, None) if encoding.needs_full_text else slice(None)
  for n, given in enumerate(each):
    want = outputs(encoding, at, given)
    np.testing.assert_allclose(got[n][:, last], want[:, last], atol=1e-5)


def test_beyond_the_number_of_positions_nothing_is_clamped(encoding):
  num_positions = encoding.num_positions(DIMS)
  if num_positions is None:
    return
  here = MODES["causal"]
  inside = here.replace(pos_BL=jnp.minimum(here.pos_BL, num_positions - 1))
  outside = here.replace(pos_BL=here.pos_BL + num_positions)
  assert np.all(np.isfinite(outputs(encoding, inside)))
  assert np.all(np.isnan(outputs(encoding, outside))), "undefined must not look defined"


def test_randomized_positions_are_sorted_distinct_and_shared(encoding):
  if encoding.overrides("assign_positions"):
    return
  wrapped = Randomized(encoding, max_positions=64)
  at = wrapped.assign_positions(TrainContext(jax.random.key(3)), MODES["packed"])
  assert np.all(np.diff(np.asarray(at.pos_BL[0, CUT:])) > 0)
  np.testing.assert_array_equal(at.pos_BL[0, :4], at.pos_BL[1, :4])
  assert int(at.pos_BL.max()) < 64
  np.testing.assert_array_equal(at.order_BL, MODES["packed"].order_BL)
  full = Randomized(encoding, max_positions=L)
  at = full.assign_positions(TrainContext(jax.random.key(3)), MODES["causal"])
  np.testing.assert_array_equal(at.pos_BL, MODES["causal"].pos_BL)
  with refused("raise max_positions to 24"):
    coords.randomized(jax.random.key(0), MODES["causal"], 20)
