"""Numbers and properties that each encoding's paper implies, worked out by hand.

The numbers come from the formulas evaluated in NumPy on `det` inputs, which anybody can
repeat: det(shape, s)[n] = sin(0.37 n + s).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from oracles import classic

from transformer_jax.attention.cores import cores
from transformer_jax.attention.cores.context import Context
from transformer_jax.attention.variants.bound_variant import visible
from transformer_jax.axes import Dims
from transformer_jax.positions import Bound, coords, positions
from transformer_jax.positions.alibi import slopes
from transformer_jax.positions.sinusoidal import sinusoids
from transformer_jax.positions.t5 import T5, bucket_of_distance

RAMP8 = np.arange(1, 9) / 10


def det(shape, s):
  return np.sin(0.37 * np.arange(math.prod(shape)) + s).reshape(shape)


def close(actual, expected, atol=2e-6):
  np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


@functools.partial(interpreted, statics=1)
def attend(encoding, params, q_BLHK, k_BLHK, v_BLHK, at):
  """Returns scores s_BHLM before the mask and attention outputs o_BLHK."""
  position = Bound(encoding, params)
  at = position.accumulate(at)
  q, k = position.transform_qk(q_BLHK, k_BLHK, at, at)
  scale = q.shape[-1] ** -0.5
  s_BHLM = Context(at, at, position, scale).scores(q, k, visible(at, at))
  return s_BHLM, cores.build("dense")(q, k, v_BLHK, at, at, position)


def one_head(spec, params, q_LK, k_LK, v_LK, at):
  """Returns scores s_LM and outputs o_LK of a single head."""
  params = {n: jnp.asarray(x, jnp.float32) for n, x in params.items()}
  q, k, v = (jnp.asarray(x, jnp.float32)[None, :, None] for x in (q_LK, k_LK, v_LK))
  s_BHLM, out_BLHK = attend(positions.build(spec), params, q, k, v, at)
  return s_BHLM[0, 0], out_BLHK[0, :, 0]


def test_none_still_counts_tokens_when_causal():
  first_L1 = np.eye(6)[:, :1]
  _, out = one_head(
    "none", {}, first_L1 * 0, first_L1 * 0, first_L1, coords.consecutive(1, 6)
  )
  close(out[:, 0], [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6])


def test_none_sees_no_order_when_it_looks_both_ways():
  x, order = det((6, 4), 0.2), np.array([3, 0, 5, 4, 1, 2])
  causal = coords.consecutive(1, 6)
  for at, same in ((causal, False), (causal.bidirectional(), True)):
    out, moved = (one_head("none", {}, y, y, y, at)[1] for y in (x, x[order]))
    assert np.allclose(out[order], moved, atol=1e-6) == same


def test_sinusoidal_numbers():
  both = lambda pos_L: (sinusoids(pos_L, 8), sinusoids(pos_L, 8, interleaved=False))
  waves, split = map(np.asarray, interpreted(both)(jnp.arange(110)))
  close(waves[0], [0, 1] * 4)
  close(waves[1], [0.841471, 0.540302, 0.099833, 0.995004, 0.01, 0.99995, 0.001, 1.0])
  expected = [-0.958924, 0.479426, 0.049979, 0.005, 0.283662, 0.877583, 0.99875]
  close(split[5], [*expected, 0.999988])
  close(waves[3] @ waves[7], 2.266609)
  close(waves[103] @ waves[107], 2.266609, atol=1e-5)
  close(np.sum(waves**2, axis=-1), 4)


def test_shaw_numbers():
  params = {"key_NK": det((5, 4), 1.6), "value_NK": det((5, 4), 2.1)}
  q, k, v = det((4, 4), 0.1), det((4, 4), 0.6), det((4, 4), 1.1)
  at = coords.consecutive(1, 4).bidirectional()
  scores, out = one_head("shaw(max_distance=2)", params, q, k, v, at)
  close(scores[0], [0.191183, 0.833723, -0.039993, 0.486921])
  close(out[3], [-1.45899, -1.284445, -0.936057, -0.460977])


def test_transformer_xl_numbers():
  params = {"content_HK": det((1, 4), 0.2), "position_HK": det((1, 4), 0.5)}
  params["project_HKD"] = det((8, 4), 1.3).T[None]
  q, k = det((4, 4), 0.1), det((4, 4), 0.6)
  scores, _ = one_head("transformer_xl", params, q, k, k, coords.consecutive(1, 4))
  close(scores[2], [-0.092271, 0.427021, -0.365064, -1.260361])


def test_t5_numbers():
  causal, both = (bucket_of_distance(T5(causal=c)) for c in (True, False))
  past, future = slice(128, None, -1), slice(128, None)
  first = lambda table: [int(np.argmax(table == b)) for b in range(table.max() + 1)]
  edges = [16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]
  assert first(causal[past]) == [*range(16), *edges]
  assert first(both[past]) == [*range(8), 8, 12, 16, 23, 32, 46, 64, 91]
  assert not np.any(causal[future])
  np.testing.assert_array_equal(both[129:], both[past][1:] + 16)
  assert 16 not in both, "the future at distance 0 is the token itself"


@pytest.mark.parametrize(
  "buckets, max_distance", [(32, 128), (16, 64), (64, 1000), (8, 6)]
)
@pytest.mark.parametrize("causal", [True, False])
def test_t5_tables_are_exact_from_far_past_to_far_future(buckets, max_distance, causal):
  ahead = np.arange(-300, 301)
  paper = classic.T5(buckets, max_distance)
  expected = [paper.bucket(int(n), not causal) for n in ahead]
  bias = interpreted(T5(buckets, max_distance, causal).bias)
  numbers = {"table_HN": np.arange(buckets, dtype=np.float32)}
  np.testing.assert_array_equal(bias(numbers, np.zeros(1, int), ahead)[0], expected)


def test_alibi_numbers():
  geometric = [2.0**-k for k in range(1, 9)]
  assert slopes(8) == geometric
  close(slopes(12), [*geometric, 0.707107, 0.353553, 0.176777, 0.088388])
  assert slopes(6) == [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]
  assert slopes(3) == [0.0625, 0.00390625, 0.25]
  assert slopes(1) == [0.00390625]
  close(slopes(16)[0], 0.707107)
  zero = np.zeros((4, 2))
  scores, _ = one_head(
    "alibi", {"slope_H": [0.5]}, zero, zero, zero, coords.consecutive(1, 4)
  )
  close(scores[3], [-1.5, -1.0, -0.5, 0.0])


def test_fire_numbers():
  fire, dims = positions.build("fire"), Dims(V=2, D=12, H=12, F=2, L=4)
  params = jax.eval_shape(lambda: fire.init(jax.random.key(0), dims))
  assert sum(math.prod(x.shape) for x in params.values()) == 462
  # One hidden unit that passes the share on as the bias.
  params = {"growth": jnp.float32(0.1), "stretch": jnp.float32(1)}
  params |= {"in_W": jnp.ones(1), "in_shift_W": jnp.zeros(1)}
  params |= {"out_HW": jnp.ones(1), "out_shift_H": jnp.float32(0)}
  i, j = np.array([[100, 90], [100, 0], [512, 0], [1000, 0], [1000, 990], [0, 0]]).T
  share = interpreted(fire.bias)(params, jnp.array(i), jnp.array(j))
  close(np.diag(share), [0.175255, 0.606282, 1, 1, 0.15019, 0])


def test_rope_numbers():
  half, neighbours = positions.build("rope"), positions.build("rope(interleaved=True)")
  turn = interpreted(
    lambda rope, x, p: rope.rotate({}, jnp.asarray(x)[None, None, None], p[None, None])[
      0, 0, 0
    ],
    statics=1,
  )
  at = lambda rope, x, p: turn(rope, x, jnp.array(p))
  close(
    at(half, RAMP8, 3),
    [-0.169559, 0.013755, 0.278868, 0.397598]
    + [-0.480884, 0.632306, 0.708684, 0.801196],
  )
  close(
    at(neighbours, RAMP8, 3),
    [-0.127223, -0.183886, 0.168393, 0.470791]
    + [0.481778, 0.614728, 0.697597, 0.802096],
  )
  match = lambda rope, i, j: at(rope, RAMP8, i) @ at(rope, RAMP8[::-1], j)
  close(match(half, 7, 3), 0.827883)
  close(match(half, 107, 103), 0.827883, atol=1e-5)
  close(match(neighbours, 7, 3), 0.835001)
  close(at(half, RAMP8, 0), RAMP8)
  close(jnp.linalg.norm(at(half, RAMP8, 999)), np.linalg.norm(RAMP8))
  close(at(half, at(half, RAMP8, 50), -50), RAMP8)
  to_half = np.array([0, 2, 4, 6, 1, 3, 5, 7])
  close(at(neighbours, RAMP8, 3)[to_half], at(half, RAMP8[to_half], 3))


def test_forgetting_numbers():
  forgetting = positions.build("forgetting")
  logits_BLD = jnp.asarray(det((1, 5, 1), 0.4), jnp.float32)
  params = {"forget_DH": jnp.ones((1, 1)), "forget_shift_H": jnp.zeros(1)}
  at = Bound(forgetting, params).read(logits_BLD, None, coords.consecutive(1, 5))
  kept = [-0.517275, -0.40447, -0.338666, -0.313759, -0.326239]
  close(at.data["kept_BLH"][0, :, 0], kept)
  scores, _ = one_head("forgetting", params, *np.zeros((3, 5, 2)), at)
  close(scores[4], [-1.383134, -0.978664, -0.639998, -0.326239, 0.0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_positions_up_to_a_million_stay_distinct(dtype):
  far = np.array([2**20 - 1, 2**20, 2**20 + 1])
  ones, zeros = np.ones((1, 3, 1, 8), dtype), np.zeros((1, 3, 8), dtype)
  rope, sinusoidal = positions.build("rope"), positions.build("sinusoidal")
  run = interpreted(
    lambda at: (rope.rotate({}, ones, at.pos_BL), sinusoidal.embed({}, zeros, at))
  )
  turned, waves = run(coords.consecutive(1, 3, 2**20 - 1))
  assert turned.dtype == waves.dtype == dtype
  # A phase of a million radians is exact to a sixteenth in float32.
  paper = classic.Rope(1e4, False)
  close(
    turned[0, :, 0], [paper.transform_qk({}, np.ones(8), p) for p in far], atol=0.07
  )
  paper = classic.Sinusoidal()
  close(waves[0], [paper.embed({}, np.zeros(8), p, {}) for p in far], atol=0.07)


def test_distances_between_far_positions_are_exact():
  far = jnp.arange(2**20 - 4, 2**20 + 4)
  distance = np.abs(np.arange(8)[:, None] - np.arange(8))
  bias = positions.build("alibi").bias({"slope_H": jnp.float32(0.5)}, far, far)
  np.testing.assert_array_equal(bias, -distance / 2)
