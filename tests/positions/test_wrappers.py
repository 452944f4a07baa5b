"""Encodings around encodings: in training, by layer, and inside each other."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from test_papers import close, det, one_head

from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, Transformer
from transformer_jax.positions import (
  PositionalEncoding,
  TrainContext,
  bind,
  coords,
  positions,
)
from transformer_jax.positions.shared.schedule import Part
from transformer_jax.positions.shared.tempered import tokens_in_horizon

B, L = 3, 8
DIMS = Dims(V=7, D=16, H=2, F=16, L=L)
AT = coords.consecutive(1, L)
TOKEN_BL = np.arange(B * L).reshape(B, L) % 5


@functools.partial(jax.jit, static_argnums=0)
def place(encoding, at, seed=0, progress=0.5):
  """Returns where a batch of B rows is placed in training."""
  return encoding.assign_positions(TrainContext(jax.random.key(seed), progress, B), at)


def placed(spec, seed=0, at=AT, progress=0.5):
  """Returns the positions of a batch of B rows in training."""
  return np.asarray(place(positions.build(spec), at, seed, progress).pos_BL)


def evaluated(spec, at=AT):
  """Returns the positions in evaluation."""
  return np.asarray(positions.build(spec).assign_positions(None, at).pos_BL)


# Where tokens are placed


def test_shape_moves_each_row_by_its_own_shift_and_only_in_training():
  plain_L = np.arange(L)
  shifts = []
  for seed in range(20):
    shift_BL = placed("shape(rope, max_shift=3)", seed) - plain_L
    assert np.all(shift_BL == shift_BL[:, :1])
    shifts.append(shift_BL[:, 0])
  assert {*np.ravel(shifts)} == {0, 1, 2, 3}
  assert any(len({*row}) > 1 for row in shifts), "rows have shifts of their own"
  np.testing.assert_array_equal(evaluated("shape"), [plain_L])


@pytest.mark.parametrize("spec", ["rope", "alibi", "shaw(max_distance=3)"])
def test_shape_leaves_relative_encodings_as_they_are(spec):
  q_LK, k_LK, v_LK = det((L, 4), 0.1), det((L, 4), 0.6), det((L, 4), 1.1)
  params = {
    "alibi": {"slope_H": [0.5]},
    "shaw(max_distance=3)": {"key_NK": det((7, 4), 1.6), "value_NK": det((7, 4), 2.1)},
  }.get(spec, {})
  moved = place(positions.build(f"shape({spec})"), AT)
  moved = moved.replace(pos_BL=moved.pos_BL[:1])
  assert moved.pos_BL[0, 0] > 10
  plain, shifted = (one_head(spec, params, q_LK, k_LK, v_LK, at) for at in (AT, moved))
  jax.tree.map(functools.partial(close, atol=5e-5), shifted, plain)


def test_shape_gives_a_table_room_for_the_shift():
  rows = lambda spec: positions.build(spec).num_positions(DIMS)
  assert rows("shape(learned, max_shift=3)") == L + 3 and rows("shape(rope)") is None
  with pytest.raises(
    ValueError, match="8 tokens by up to 5.*ends at 9.*max_positions to 13"
  ):
    positions.build("shape(learned(9), max_shift=5)").init(jax.random.key(0), DIMS)


def test_cape_moves_blurs_and_stretches_but_keeps_the_order():
  plain_L, first = np.arange(L), []
  for seed in range(20):
    pos_BL = placed("cape(rope, shift=3, noise=0.5, scale=2)", seed)
    assert np.all(np.diff(pos_BL) > 0) and not np.all(pos_BL == np.round(pos_BL))
    first.append(pos_BL[:, 0])
  assert np.min(first) < -3 and np.max(first) > 3, "scales reach past the shift"
  assert np.abs(first).max() <= 2 * (3 + 0.5)
  for changes, check in (
    ("shift=2, noise=0, scale=1", lambda p: np.diff(p - plain_L)),  # one shift per row
    ("shift=0, noise=0, scale=3", lambda p: p[:, 2:] / p[:, 1:2] - plain_L[2:]),
  ):
    pos_BL = placed(f"cape(rope, {changes})")
    close(check(pos_BL), 0 * check(pos_BL), atol=2e-6)
    assert len({*pos_BL[:, 1]}) == B, "rows draw for themselves"
  noise_BL = placed("cape(rope, shift=0, noise=0.25, scale=1)") - plain_L
  assert 0.1 < np.abs(noise_BL).max() <= 0.25 and len({*noise_BL.ravel()}) == B * L
  stretch = [placed("cape(rope, 0, 0, 3)", n)[:, 1] for n in range(20)]
  assert 1 / 3 <= np.min(stretch) < 0.5 and 2 < np.max(stretch) <= 3
  np.testing.assert_array_equal(evaluated("cape"), [plain_L])


@pytest.mark.parametrize("changes", ["shift=-1", "noise=0.6", "scale=0.5"])
def test_cape_refuses_what_would_break_the_order(changes):
  with pytest.raises(ValueError, match="shift must be 0 or more, noise from 0 to 0.5"):
    positions.build(f"cape(rope, {changes})")


def test_interpolation_divides_positions_in_evaluation_only():
  np.testing.assert_array_equal(placed("interpolated(rope, 4)"), AT.pos_BL)
  np.testing.assert_array_equal(evaluated("interpolated(rope, 4)"), AT.pos_BL / 4)
  with pytest.raises(ValueError, match="give a positive one"):
    positions.build("interpolated(rope, factor=0)")


@pytest.mark.parametrize("name", ["cape", "interpolated"])
def test_tables_cannot_be_asked_between_whole_positions(name):
  with pytest.raises(ValueError, match=f"{name} asks.* t5 has a table.*such as rope"):
    positions.build(f"{name}(t5)")
  with pytest.raises(ValueError, match="every has a table"):
    positions.build(f"{name}(every(2, rope, t5))")


def with_ids(name, ids_L):
  return coords.consecutive(1, len(ids_L)).replace(
    data={name: jnp.array([ids_L], jnp.int32)}
  )


def test_abacus_numbers():
  at = with_ids("abacus_BL", [1, 2, 0, 1, 0, 1, 2, 3])  # 98+5=301
  encoding, offsets = positions.build("abacus(rope, max_offset=4)"), set()
  for seed in range(30):
    id_L = place(encoding, at, seed).data["abacus_BL"][0].tolist()
    k = id_L[0] - 1
    assert id_L == [1 + k, 2 + k, 0, 1 + k, 0, 1 + k, 2 + k, 3 + k]
    offsets.add(k)
  assert offsets == {0, 1, 2, 3, 4}, "k = 4 is the paper's [5, 6, 0, 5, 0, 5, 6, 7]"
  still = encoding.assign_positions(None, at).data["abacus_BL"]
  np.testing.assert_array_equal(still, at.data["abacus_BL"])


def test_abacus_adds_rows_of_its_table_and_ends_with_it():
  encoding = positions.build("abacus(learned, max_positions=3)")
  params = {"abacus_ND": det((3, 16), 0.1), "table_LD": det((L, 16), 0.7)}
  at, zero_BLD = with_ids("abacus_BL", [0, 1, 3, 4]), np.zeros((1, 4, 16), np.float32)
  x_LD = interpreted(encoding.embed)(params, zero_BLD, at)[0] - params["table_LD"][:4]
  close(x_LD[:3], np.stack([np.zeros(16), *params["abacus_ND"][[0, 2]]]))
  assert np.all(np.isnan(x_LD[3])), "past the table nothing is clamped"


def test_coupled_positions_are_those_of_the_task_from_a_random_start():
  # 653+049=2070 with the answer reversed: marks have the smallest place.
  id_L = np.array([4, 3, 2, 1, 4, 3, 2, 1, 2, 3, 4, 5])
  at = with_ids("coupled_BL", [0, *id_L])
  np.testing.assert_array_equal(evaluated("coupled", at)[0], [0, *id_L])
  starts, rows_apart = set(), False
  for seed in range(30):
    pos_BL = placed("coupled(learned, max_positions=9)", seed, at)
    start_B1 = pos_BL[:, 1:2] - 4
    np.testing.assert_array_equal(pos_BL[:, 1:], id_L + start_B1)
    assert not np.any(pos_BL[:, 0]), "0 belongs nowhere and stays"
    starts |= {*start_B1[:, 0].tolist()}
    rows_apart |= len({*start_B1[:, 0].tolist()}) > 1
  assert starts == {0, 1, 2, 3, 4}, "the largest place is at most `max_positions`"
  assert rows_apart, "each row draws a start of its own"
  paper = [8, 7, 6, 5, 8, 7, 6, 5, 6, 7, 8, 9]
  np.testing.assert_array_equal(id_L + 4, paper)


def test_coupled_gives_a_table_one_row_more_than_its_largest_position():
  shapes = lambda spec: jax.eval_shape(
    lambda: positions.build(spec).init(jax.random.key(0), DIMS)
  )
  assert shapes("coupled(max_positions=20)")["table_LD"].shape == (21, 16)
  with pytest.raises(
    ValueError, match="up to 20, but.*ends at 20; give it max_positions=21"
  ):
    shapes("coupled(learned(20), max_positions=20)")


@pytest.mark.parametrize("name", ["abacus", "coupled"])
def test_ids_that_a_task_does_not_supply_are_asked_for(name):
  with pytest.raises(
    ValueError, match=f"{name} reads {name}_BL, which these tokens do"
  ):
    positions.build(name).assign_positions(None, AT)


def test_drope_has_positions_until_they_are_dropped():
  for progress, kept in ((0.0, 1), (0.8, 1), (0.875, 0), (1.0, 0)):
    np.testing.assert_array_equal(placed("drope", progress=progress), AT.pos_BL * kept)
  np.testing.assert_array_equal(placed("drope(rope, 0.5)", progress=0.6), AT.pos_BL * 0)
  np.testing.assert_array_equal(evaluated("drope"), AT.pos_BL * 0)
  with pytest.raises(
    ValueError, match="does not switch off sinusoidal; use a relative"
  ):
    positions.build("drope(sinusoidal)")


@pytest.mark.parametrize("spec", ["rope", "alibi", "t5"])
def test_at_one_position_relative_encodings_are_none(spec):
  q_LK, k_LK, v_LK = det((L, 4), 0.1), det((L, 4), 0.6), det((L, 4), 1.1)
  params = {"alibi": {"slope_H": [0.5]}, "t5": {"table_HN": det((1, 32), 0.3)}}
  at = positions.build(f"drope({spec})").assign_positions(None, AT)
  _, out = one_head(f"drope({spec})", params.get(spec, {}), q_LK, k_LK, v_LK, at)
  close(out, one_head("none", {}, q_LK, k_LK, v_LK, AT)[1])


def test_randomized_over_all_positions_is_the_identity():
  np.testing.assert_array_equal(
    placed(f"randomized(rope, max_positions={L})"), AT.pos_BL
  )


def test_wrappers_inside_of_each_other_place_from_the_outside_in():
  spec = "randomized(interpolated(rope, 4), max_positions=16)"
  at = placed(spec)
  np.testing.assert_array_equal(at, placed("randomized(rope, max_positions=16)"))
  np.testing.assert_array_equal(evaluated(spec), AT.pos_BL / 4)
  moved = placed("shape(randomized(rope, max_positions=16))")
  assert np.all(np.diff(moved) > 0) and moved.max() < 16, (
    "the inner one has the last say"
  )
  twice = placed("shape(shape(rope, 9), 9)") - np.arange(L)
  once = placed("shape(rope, 9)") - np.arange(L)
  assert len({*(twice - once)[:, 0].tolist(), *once[:, 0].tolist()}) > B
  assert np.any(twice != 2 * once), "each draws its own"


# Two texts on one axis


def test_across_uses_the_encoding_between_two_texts():
  t5 = positions.build("across(t5)")
  assert t5.cross() == positions.build("t5(causal=False)")
  assert positions.build("across(every(2, none, rope))").layer(0).cross() == Part(
    positions.build("rope"), 1
  )
  assert positions.build("log_n(t5)").cross() == PositionalEncoding()
  with pytest.raises(ValueError, match="forgetting reads the tokens of one text"):
    positions.build("across(forgetting)")


def drawn(model, *args, **kwargs):
  """Returns random parameters, without compiling the model's own start."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), *args, **kwargs)
  random = np.random.default_rng(0)
  return jax.tree.map(lambda x: np.float32(0.5 * random.normal(size=x.shape)), shapes)


def make(spec, **changes):
  changes = {"decoders": 2} | changes
  return Transformer(
    Architecture(DIMS, positions.build(spec), cores.build("dense"), **changes)
  )


def test_across_puts_source_and_target_on_one_axis():
  model = make("across(rope)", encoders=1, decoders=1)
  token_BL = np.arange(B * L).reshape(B, L) % DIMS.V
  params = drawn(model, token_BL, source_BL=token_BL)
  run = interpreted(
    lambda at, there: model.apply(params, token_BL, at, token_BL, there)
  )
  here, moved = AT, AT.replace(pos_BL=AT.pos_BL + 5)
  same = run(here, here)
  close(run(moved, moved), same, atol=2e-5)
  assert np.abs(run(here, moved) - same).max() > 0.1


# Temperatures


def factors(spec, at, params=None, L_trained=8):
  """Returns by how much each query is multiplied, n_LH of one row."""
  encoding, dims = positions.build(spec), Dims(V=2, D=8, H=2, F=2, L=L_trained)
  init = interpreted(lambda key: encoding.init(key, dims))
  params = init(jax.random.key(0)) if params is None else params

  @interpreted
  def run(params, at):
    ones_BLHK = jnp.ones((1, at.order_BL.shape[1], 2, 4))
    return bind(encoding, params, dims).transform_qk(ones_BLHK, ones_BLHK, at, at)

  q_BLHK, k_BLHK = run(params, at)
  np.testing.assert_array_equal(k_BLHK, np.ones_like(k_BLHK))
  np.testing.assert_array_equal(q_BLHK, q_BLHK[..., :1] * np.ones(4))
  return np.asarray(q_BLHK)[0, :, :, 0]


SHIFTED = coords.consecutive(1, L, start=100)  # keys count, not their numbers
TEXTS = coords.packed(jnp.array([[1, 1, 1, 2, 2, 2, 2, 0]]))
SEEN = [1, 2, 3, 1, 2, 3, 4, 1]  # the last is no token: anything finite


def test_log_n_is_s_log_n_of_the_keys_that_a_query_sees():
  params = {"sharpness_H": jnp.array([0.43, 2.0])}
  log = lambda n_L: np.outer(np.log(n_L), [0.43, 2.0])
  close(factors("log_n", SHIFTED, params), log(np.arange(1, 9)))
  close(factors("log_n", TEXTS, params)[:7], log(SEEN[:7]))
  close(factors("log_n", TEXTS.bidirectional(), params)[:7], log([3] * 3 + [4] * 4))
  start_LH = factors("log_n", coords.consecutive(1, 1024), L_trained=1024)
  close(start_LH.mean(0), np.ones(2), atol=1e-5)
  close(start_LH[-1] / math.log(1024), [0.168, 0.168], atol=5e-4)
  fixed = factors("log_n(learned=False)", AT)
  close(fixed[:, 0], np.log(np.arange(1, 9)) / math.log(8))


def test_counting_keys_takes_memory_linear_in_the_length():
  memory = lambda L: (
    jax.jit(lambda at: tokens_in_horizon(at, at))
    .lower(coords.consecutive(1, L))
    .compile()
    .memory_analysis()
    .temp_size_in_bytes
  )
  assert memory(8192) < 3 * memory(4096)


def test_nope_scaled_numbers():
  at = coords.consecutive(1, 4)
  for slope, expected in ((0.3973, 0.193847), (0.3010, (1 + 0.301 * math.log(4)) / 8)):
    found = factors(f"nope_scaled(slope={slope}, trained=1)", at)
    close(found / math.sqrt(64), np.full((4, 2), expected))
  by_text = factors("nope_scaled(trained=3)", TEXTS)[:7, 0]
  close(by_text, [1] * 3 + [1 + 0.3973 * math.log(4 / 3)] * 4)
  close(factors("nope_scaled", AT, L_trained=3 * L), np.ones((L, 2)))
  long = factors("nope_scaled", AT, L_trained=2)
  close(long, np.full((L, 2), 1 + 0.3973 * math.log(4)))


def test_log_steps_numbers():
  encoding = positions.build("log_steps")
  one = coords.consecutive(1, 1).bidirectional()

  @jax.jit
  def factor(n):  # of a query that sees n of 131072 keys
    keys = coords.padded(jnp.arange(131072)[None] < n)
    return encoding.factor({}, one, keys)

  found = [float(factor(pos + 1)[0, 0, 0, 0]) for pos in (0, 8191, 16383, 131071)]
  close(found, [1, 1.069315, 1.109861, 1.283321])
  steps = factors("log_steps(step=3, gain=0.5)", SHIFTED)[:, 1]
  close(steps, 1 + 0.5 * np.log([1, 1, 2, 2, 2, 3, 3, 3]))


# Inside of each other


@pytest.mark.parametrize(
  "spec",
  [
    "randomized(every(2, alibi, rope), max_positions=99)",
    "abacus(fire)",
    "log_n(shape(rope))",
  ]
  + ["coupled(every(2, rope, t5))", "interpolated(nope_scaled(rope))"],
)
def test_wrappers_compose_in_a_model(spec):
  model = make(spec)
  ids = {"abacus_BL": AT.pos_BL % 3, "coupled_BL": 1 + AT.pos_BL // 2}
  at = AT.replace(data=ids)
  run = lambda params, rngs: model.apply(params, TOKEN_BL, at, rngs=rngs)
  train = lambda params: run(params, {"position": jax.random.key(1)})
  params = drawn(model, TOKEN_BL, at)
  for apply in (train, lambda params: run(params, {})):
    assert jax.eval_shape(apply, params).shape == (B, L, DIMS.V)
