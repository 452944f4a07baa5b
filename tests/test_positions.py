"""The contract that an encoding inherits by being registered.

Every registered encoding meets every core and every kind of coordinates here. A formula
can still be wrong: see test_references.py.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transformer_jax.attention import cores
from transformer_jax.attention.cache import empty, newest, remember
from transformer_jax.axes import Dims, axes_of
from transformer_jax.positions import (
  Moment,
  bind,
  coords,
  positions,
)
from transformer_jax.positions.base import HOOKS
from transformer_jax.positions.randomized import Randomized
from transformer_jax.training import sharding

B, L, H, K, D = 2, 24, 4, 8, 32
DIMS = Dims(V=16, D=D, H=H, F=64, N=2, L=L)
# The second text of row 0 is the shorter one: a leak from the first would show.
CUT = 14
SEGMENTS = jnp.array([[1] * CUT + [2] * (L - CUT), [3] * 4 + [1] * 20])
REAL = jnp.arange(L) >= jnp.array([[9], [2]])
FAR = 2**20


def with_ids(at):
  """Adds the ids that some encodings read, here as functions of the order."""
  n_BL = jnp.maximum(at.order_BL, 0) % 240  # a whole number of rows from 1000 on
  ids = {"row_BL": n_BL // 5, "column_BL": n_BL % 5}
  ids |= {"abacus_BL": (n_BL + 2) % 4, "coupled_BL": jnp.abs(n_BL - 11)}
  return at.replace(data=ids)


def modes():
  """Returns coordinates of every kind, all with batch axis B: one program fits all."""
  rows = lambda at: jax.tree.map(lambda x: jnp.broadcast_to(x, (B, L)), at)
  causal = rows(coords.consecutive(1, L))
  kinds = {
    "causal": causal,
    "packed": coords.packed(SEGMENTS),
    "left_padded": coords.padded(REAL),
    "right_padded": coords.padded(REAL[:, ::-1]),
    "first_half": coords.padded(jnp.arange(L) < jnp.full((B, 1), 12)),
    "moved": rows(coords.consecutive(1, L, 1000)),
    "far": rows(coords.consecutive(1, L, FAR)),
    "randomized": coords.randomized(jax.random.key(0), causal, 64),
  }
  return {name: with_ids(at) for name, at in kinds.items()}


MODES = modes()
EITHER_WAY = {
  "bidirectional": MODES["causal"].bidirectional(),
  "packed, bidirectional": MODES["packed"].bidirectional(),
  "padded, bidirectional": MODES["left_padded"].bidirectional(),
  "prefix": MODES["causal"].prefix(jnp.array([[5], [9]])),
  "packed, prefix": MODES["packed"].prefix(jnp.array([[3], [2]])),
}


@pytest.fixture(params=sorted(positions))
def encoding(request):
  return positions.build(request.param)


@functools.cache
def inputs(encoding, seed=0):
  """Returns (params, q, k, v, x); parameters are moved off their neutral start."""
  keys = jax.random.split(jax.random.key(seed), 6)
  params = jax.jit(encoding.init, static_argnums=1)(keys[0], DIMS)
  params = {n: x + 0.2 * jax.random.normal(keys[1], x.shape) for n, x in params.items()}
  q, k, v = (jax.random.normal(key, (B, L, H, K)) for key in keys[2:5])
  return params, q, k, v, jax.random.normal(keys[5], (B, L, D))


def attend(core, encoding, params, q, k, v, x, at):
  """Attends as a model's layer does, with coordinates that are placed already."""
  position = bind(encoding, params, DIMS)
  q, k, v, at = read(position, q, k, v, x, at)
  at = position.accumulate(at)
  q, k = position.turn(q, k, at, at)
  return core(q, k, v, at, at, position, K**-0.5)


def read(position, q, k, v, x, at):
  """Returns vectors that hold the embedded tokens, and coordinates that were read."""
  x = position.embed(x, at)
  q, k, v = (y + 0.3 * x.reshape(y.shape) for y in (q, k, v))
  return q, k, v, position.read(x, q, at)


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


def outputs(encoding, at, given=None):
  """Returns what dense attention gives."""
  given = inputs(encoding) if given is None else given
  return program("dense", encoding)(given, at, jnp.ones((B, L, H, K)))[0]


def compare_cores(encoding, kinds):
  """Compares dense with blockwise, values and gradients, or sees it refused."""
  everything, blockwise = inputs(encoding), "blockwise(block=7)"
  g = jax.random.normal(jax.random.key(9), (B, L, H, K))
  refusal = cores.build(blockwise).refusal(encoding)
  if refusal:
    assert encoding.name in refusal and "blockwise" in refusal and "dense" in refusal
    with pytest.raises(ValueError, match="whole rows"):
      attend(cores.build(blockwise), encoding, *everything, MODES["causal"])
    assert encoding.overrides("rows")
    return
  for mode, at in kinds.items():
    if at.pos_BL.max() >= (encoding.reach(DIMS) or jnp.inf):
      continue
    want, want_grads = program("dense", encoding)(everything, at, g)
    # A block of 7 does not divide 24: tiles are padded, split by the diagonal, skipped.
    got, got_grads = program(blockwise, encoding)(everything, at, g)
    # Sums of float32 in another order; gradients add up to L * H * K terms.
    compare = functools.partial(np.testing.assert_allclose, err_msg=mode)
    compare(got, want, atol=2e-6)
    compare = functools.partial(compare, atol=3e-5, rtol=2e-5)
    jax.tree.map(compare, got_grads, want_grads)


def test_every_core_gives_the_dense_answer_and_gradients(encoding):
  compare_cores(encoding, MODES)


def test_attention_that_looks_both_ways_is_defined_or_refused(encoding):
  assert encoding.cross() == encoding.cross().bidirectional()
  try:
    both = encoding.bidirectional()
  except ValueError as error:
    assert "use it in a decoder" in str(error)
    return
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
  assert not np.any(padded[0, :9]), "a place without a token must attend to nothing"


def test_what_comes_later_changes_nothing_unless_declared(encoding):
  whole = outputs(encoding, MODES["causal"])
  first = outputs(encoding, MODES["first_half"])
  same = np.allclose(first[:, :12], whole[:, :12], atol=2e-6)
  assert same or encoding.whole_text


def test_the_future_has_zero_gradient(encoding):
  everything = inputs(encoding)
  g = jnp.zeros((B, L, H, K)).at[:, 11].set(1.0)
  _, (_, *grads) = program("dense", encoding)(everything, MODES["causal"], g)
  for grad in grads:
    assert not np.any(grad[:, 12:]), "output 11 depends on a later token"
  assert np.any(grads[2][:, :12])


def test_shifting_positions_changes_nothing_exactly_when_declared(encoding):
  here, there = MODES["causal"], MODES["moved"]
  if encoding.reach(DIMS):
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
  collapse = lambda at: at.replace(pos_BL=jnp.full_like(at.pos_BL, at.pos_BL[0, 0]))
  effect = lambda at: np.abs(outputs(encoding, at) - outputs(encoding, collapse(at)))
  near, far = effect(MODES["causal"]).max(), effect(MODES["far"]).max()
  if encoding.reach(DIMS) is None:
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
  fields = {field.name for field in dataclasses.fields(encoding)}
  assert not fields & {*HOOKS}, "a field must not hide a hook"


def test_a_mesh_can_split_the_parameters_by_their_names(encoding):
  shapes = jax.eval_shape(lambda: encoding.init(jax.random.key(0), DIMS))
  where = sharding.split(sharding.make_mesh(2, 4), shapes)
  for name, found in where.items():
    assert ("tensor" in found.spec) == ("H" in axes_of(name)), name


def test_every_parameter_learns_and_a_second_call_compiles_nothing(encoding):
  """Gradient descent on parameters, queries, keys, values and tokens fits a target."""
  given, at, run = inputs(encoding), MODES["packed"], program("dense", encoding)
  target = 0.3 * jnp.cos(jnp.arange(B * L * H * K)).reshape(B, L, H, K)
  out, grads = run(given, at, -target)
  compiled, losses = run._cache_size(), []
  for name, grad in run(given, at, out - target)[1][0].items():
    # A shift of all scores of a row is no change after the softmax.
    assert np.any(np.abs(grad) > 1e-7) or name.endswith("out_shift_H"), name
  for _ in range(15):
    _, grads = run(given, at, out - target)
    rate = 1.0 / (10 + optax.tree.norm(grads))
    given = jax.tree.map(lambda x, d, rate=rate: x - rate * d, given, grads)
    out, _ = run(given, at, target)
    losses.append(float(jnp.sum((out - target) ** 2)))
  assert losses[-1] < 0.8 * losses[0], losses
  assert run._cache_size() == compiled


def test_seeds_vmap(encoding):
  first, second = inputs(encoding), inputs(encoding, seed=1)
  seeds = jax.tree.map(lambda *x: jnp.stack(x), first, second)
  run = functools.partial(attend, cores.build("dense"), encoding)
  out = jax.jit(jax.vmap(run, (0,) * 5 + (None,)))(*seeds, MODES["packed"])
  for n, one in enumerate((first, second)):
    alone = outputs(encoding, MODES["packed"], one)
    np.testing.assert_allclose(out[n], alone, atol=2e-6)


def test_decoding_on_the_cache_equals_one_pass(encoding):
  """Token by token, with padding on the left, and room left in the cache."""
  at, given = MODES["left_padded"], inputs(encoding)
  got = jax.jit(functools.partial(decoded, "dense", encoding))(given, at)
  want = outputs(encoding, at)
  last = slice(L - 1, None) if encoding.whole_text else slice(None)
  np.testing.assert_allclose(got[:, last], want[:, last], atol=1e-5)


def decoded(core, encoding, given, at, first=0):
  """Returns the outputs of a layer that gets `first` tokens, then one at a time."""
  params, *arrays = given
  position, core = bind(encoding, params, DIMS), cores.build(core)

  def step(cache, tokens):
    q, k, v, here = read(position, *tokens)
    kept, k_at, cache = remember(cache, {"key": k, "value": v}, here)
    k, v = kept["key"], kept["value"]
    k_at = position.accumulate(k_at)
    q_at = newest(k_at, cache, q.shape[1])
    q, k = position.turn(q, k, q_at, k_at)
    return cache, core(q, k, v, q_at, k_at, position, K**-0.5)

  _, k, v, start = jax.eval_shape(functools.partial(read, position), *arrays, at)
  room = lambda y: jax.ShapeDtypeStruct((B, L + 3, *y.shape[2:]), y.dtype)
  cache = empty(*jax.tree.map(room, ({"key": k, "value": v}, start)))
  prompt = jax.tree.map(lambda y: y[:, :first], (*arrays, at))
  cache, out = step(cache, prompt) if first else (cache, jnp.zeros((B, 0, H, K)))
  one_by_one = lambda y: jnp.moveaxis(y[:, first:, None], 1, 0)
  rest = jax.lax.scan(step, cache, jax.tree.map(one_by_one, (*arrays, at)))[1]
  return jnp.concatenate([out, jnp.moveaxis(rest[:, :, 0], 0, 1)], axis=1)


def test_past_the_reach_nothing_is_clamped(encoding):
  reach = encoding.reach(DIMS)
  if reach is None:
    return
  here = MODES["causal"]
  inside = here.replace(pos_BL=jnp.minimum(here.pos_BL, reach - 1))
  outside = here.replace(pos_BL=here.pos_BL + reach)
  assert np.all(np.isfinite(outputs(encoding, inside)))
  assert np.all(np.isnan(outputs(encoding, outside))), "undefined must not look defined"


def test_randomized_positions_are_sorted_distinct_and_shared(encoding):
  if encoding.overrides("place"):
    return
  wrapped = Randomized(encoding, longest=64)
  at = wrapped.place(Moment(jax.random.key(3)), MODES["packed"])
  assert np.all(np.diff(np.asarray(at.pos_BL[0, CUT:])) > 0)
  np.testing.assert_array_equal(at.pos_BL[0, :4], at.pos_BL[1, :4])
  assert int(at.pos_BL.max()) < 64
  np.testing.assert_array_equal(at.order_BL, MODES["packed"].order_BL)
  full = Randomized(encoding, longest=L)
  at = full.place(Moment(jax.random.key(3)), MODES["causal"])
  np.testing.assert_array_equal(at.pos_BL, MODES["causal"].pos_BL)
  with pytest.raises(ValueError, match="raise longest to 24"):
    coords.randomized(jax.random.key(0), MODES["causal"], 20)


@pytest.mark.parametrize("causal", [True, False])
def test_t5_splits_buckets_only_when_it_looks_both_ways(causal):
  t5 = positions.build(f"t5(causal={causal})")
  table = {"table_HN": jnp.arange(32.0)}
  bias = t5.bias(table, jnp.array([5]), jnp.array([3, 5, 7]))
  assert bias.tolist() == [[2, 0, 0 if causal else 18]]
