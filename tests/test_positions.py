"""The contract that an encoding inherits by being registered.

Every registered encoding meets every core and every kind of coordinates here. A formula
can still be wrong: see test_references.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.attention import cores
from transformer_jax.axes import Dims, axes_of
from transformer_jax.positions import bind, coords, positions
from transformer_jax.training import sharding

B, L, H, K, D = 2, 24, 4, 8, 32
DIMS = Dims(V=16, D=D, H=H, F=64, N=2, L=L)
PLAIN = sorted(set(positions) - {"randomized"})
SEGMENTS = jnp.array([[1] * 10 + [2] * 14, [3] * 4 + [1] * 20])
REAL = jnp.arange(L) >= jnp.array([[9], [2]])


def modes():
  """Returns coordinates of every kind, all with batch axis B: one program fits all."""
  rows = lambda at: jax.tree.map(lambda x: jnp.broadcast_to(x, (B, L)), at)
  causal = rows(coords.consecutive(1, L))
  return {
    "causal": causal,
    "packed": coords.packed(SEGMENTS),
    "left_padded": coords.padded(REAL),
    "right_padded": coords.padded(REAL[:, ::-1]),
    "prefix": causal.prefix(jnp.array([[5], [9]])),
    "bidirectional": causal.bidirectional(),
    "far": rows(coords.consecutive(1, L, 1000)),
    "randomized": coords.randomized(jax.random.key(0), causal, 64),
  }


MODES = modes()


@pytest.fixture(params=sorted(positions))
def encoding(request):
  return positions.build(request.param)


def inputs(encoding, seed=0):
  """Returns (params, q, k, v, x); parameters are moved off their neutral start."""
  keys = jax.random.split(jax.random.key(seed), 6)
  params = encoding.init(keys[0], DIMS)
  params = {n: x + 0.2 * jax.random.normal(keys[1], x.shape) for n, x in params.items()}
  q, k, v = (jax.random.normal(key, (B, L, H, K)) for key in keys[2:5])
  return params, q, k, v, jax.random.normal(keys[5], (B, L, D))


def attend(core, encoding, params, q, k, v, x, at):
  """Attends as a model's layer does, with coordinates that are placed already."""
  position = bind(encoding, params, DIMS)
  at = position.accumulate(position.read(position.embed(x, at.pos_BL), at))
  q, k = position.turn(q, k, at, at)
  return core(q, k, v, at, at, position)


@functools.cache
def program(core, encoding):
  """Returns jitted `(inputs, at, g) -> (output, gradients of sum(output * g))`."""

  def loss(inputs, at, g):
    out = attend(cores.build(core), encoding, *inputs, at)
    return jnp.sum(out * g), out

  gradient = jax.value_and_grad(loss, has_aux=True)

  def run(inputs, at, g):
    (_, out), grads = gradient(inputs, at, g)
    return out, grads

  return jax.jit(run)


def test_every_core_gives_the_dense_answer_and_gradients(encoding):
  everything = inputs(encoding)
  g = jax.random.normal(jax.random.key(9), (B, L, H, K))
  for mode, at in MODES.items():
    want, want_grads = program("dense", encoding)(everything, at, g)
    # A block of 7 does not divide 24: tiles are padded, split by the diagonal, skipped.
    got, got_grads = program("blockwise(block=7)", encoding)(everything, at, g)
    # Sums of float32 in another order; gradients add up to L * H * K terms.
    np.testing.assert_allclose(got, want, atol=2e-6, err_msg=mode)
    compare = functools.partial(np.testing.assert_allclose, atol=3e-5, rtol=2e-5)
    jax.tree.map(functools.partial(compare, err_msg=mode), got_grads, want_grads)


def test_packed_and_padded_rows_equal_the_texts_alone(encoding):
  params, *arrays = inputs(encoding)
  run = lambda arrays, at: program("dense", encoding)(
    (params, *arrays), at, jnp.ones((B, L, H, K))
  )[0]
  packed, padded = run(arrays, MODES["packed"]), run(arrays, MODES["left_padded"])
  # The second text of row 0, and the text of row 0 without its padding, moved to the
  # front of a causal row: what follows cannot matter.
  for got, start in ((packed, 10), (padded, 9)):
    moved = [jnp.roll(x, -start, axis=1) for x in arrays]
    alone = run(moved, MODES["causal"])
    np.testing.assert_allclose(got[0, start:], alone[0, : L - start], atol=2e-6)
  assert not np.any(padded[0, :9]), "a place without a token must attend to nothing"


def test_the_future_has_zero_gradient(encoding):
  everything = inputs(encoding)
  g = jnp.zeros((B, L, H, K)).at[:, 11].set(1.0)
  _, (_, *grads) = program("dense", encoding)(everything, MODES["causal"], g)
  for grad in grads:
    assert not np.any(grad[:, 12:]), "output 11 depends on a later token"
  assert np.any(grads[2][:, :12])


def test_shifting_positions_changes_nothing_exactly_when_declared(encoding):
  everything = inputs(encoding)
  g = jnp.ones((B, L, H, K))
  here = MODES["causal"]
  if not encoding.overrides("embed"):
    there = program("dense", encoding)(everything, MODES["far"], g)[0]
    moved = np.abs(there - program("dense", encoding)(everything, here, g)[0]).max()
  else:
    x, params = everything[-1], everything[0]
    embed = bind(encoding, params, DIMS).embed
    moved = np.abs(embed(x, here.pos_BL) - embed(x, here.pos_BL[:, ::-1])).max()
  # Phases of 1000 radians are exact to 6e-5 in float32.
  assert (moved < 5e-4) == encoding.relative, moved


def test_bfloat16_stays_within_its_epsilon(encoding):
  params, *arrays = inputs(encoding)
  half = [x.astype(jnp.bfloat16) for x in arrays]
  at = MODES["causal"]
  want = attend(cores.build("dense"), encoding, params, *map(jnp.float32, half), at)
  got = attend(cores.build("dense"), encoding, params, *half, at)
  assert got.dtype == jnp.bfloat16
  # Eight bits of mantissa, on turned queries and keys, on weights and on values.
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


def test_a_mesh_can_split_the_parameters_by_their_names(encoding):
  shapes = jax.eval_shape(lambda: encoding.init(jax.random.key(0), DIMS))
  where = sharding.split(sharding.make_mesh(2, 4), shapes)
  for name, found in where.items():
    assert ("tensor" in found.spec) == ("H" in axes_of(name)), name


def test_every_parameter_gets_a_gradient(encoding):
  everything = inputs(encoding)
  g = jax.random.normal(jax.random.key(9), (B, L, H, K))
  if encoding.overrides("embed"):
    embed = lambda p: bind(encoding, p, DIMS).embed(everything[-1], at.pos_BL).sum()
    at = MODES["causal"]
    grads = jax.grad(embed)(everything[0])
  else:
    _, (grads, *_) = program("dense", encoding)(everything, MODES["causal"], g)
  for name, grad in grads.items():
    # A shift of all scores of a row is no change after the softmax.
    assert np.any(np.abs(grad) > 1e-7) or name == "out_shift_H", name


def test_second_call_does_not_recompile_and_seeds_vmap(encoding):
  everything = inputs(encoding)
  run, g = program("dense", encoding), jnp.ones((B, L, H, K))
  run(everything, MODES["causal"], g)
  before = run._cache_size()
  run(inputs(encoding, seed=1), MODES["packed"], g)
  assert run._cache_size() == before
  seeds = jax.tree.map(lambda *x: jnp.stack(x), everything, inputs(encoding, seed=1))
  out = jax.vmap(run, (0, None, None))(seeds, MODES["causal"], g)[0]
  np.testing.assert_allclose(out[0], run(everything, MODES["causal"], g)[0], atol=2e-6)


def test_past_the_reach_nothing_is_clamped(encoding):
  reach = encoding.reach(DIMS)
  if reach is None or not encoding.overrides("embed"):
    assert encoding.reach(DIMS) is None or encoding.overrides("place")
    return
  params, *_, x = inputs(encoding)
  position = bind(encoding, params, DIMS)
  inside = position.embed(x[:, :1], jnp.full((B, 1), reach - 1))
  outside = position.embed(x[:, :1], jnp.full((B, 1), reach))
  assert np.all(np.isfinite(inside))
  assert np.all(np.isnan(outside)), "an undefined position must not look defined"


@pytest.mark.parametrize("name", PLAIN)
def test_randomized_positions_are_sorted_distinct_and_shared(name):
  encoding = positions.build(f"randomized({name}, longest=64)")
  at = encoding.place(jax.random.key(3), MODES["packed"])
  assert np.all(np.diff(np.asarray(at.pos_BL[0, 10:])) > 0)
  np.testing.assert_array_equal(at.pos_BL[0, :4], at.pos_BL[1, :4])
  assert int(at.pos_BL.max()) < 64
  np.testing.assert_array_equal(at.order_BL, MODES["packed"].order_BL)
  full = positions.build(f"randomized({name}, longest={L})")
  at = full.place(jax.random.key(3), MODES["causal"])
  np.testing.assert_array_equal(at.pos_BL, MODES["causal"].pos_BL)
  with pytest.raises(ValueError, match="raise longest to 24"):
    coords.randomized(jax.random.key(0), MODES["causal"], 20)


def test_the_forms_for_other_architectures_are_defined_or_refused(encoding):
  assert type(encoding.cross()).__name__ == "PositionalEncoding"
  if encoding.overrides("token_data"):
    with pytest.raises(ValueError, match="use it in a decoder"):
      encoding.bidirectional()
    return
  both = encoding.bidirectional()
  out = attend(cores.build("dense"), both, *inputs(both), MODES["bidirectional"])
  assert np.all(np.isfinite(out))


@pytest.mark.parametrize("causal", [True, False])
def test_t5_splits_buckets_only_when_it_looks_both_ways(causal):
  t5 = positions.build(f"t5(causal={causal})")
  table = {"table_HN": jnp.arange(32.0)}
  bias = t5.bias(table, jnp.array([5]), jnp.array([3, 5, 7]))
  assert bias.tolist() == [[2, 0, 0 if causal else 18]]
