"""What encodings do at the edge of what they define: a clear answer, never a guess."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.axes import Dims
from transformer_jax.positions import coords, positions

DIMS = Dims(V=2, D=8, H=2, F=2, L=4)


@pytest.mark.parametrize("pos", [-1, 4, 2**20])
def test_a_learned_table_has_no_position_before_or_past_it(pos):
  learned = positions.build("learned")
  params = {"table_LD": np.ones((4, 8), np.float32)}
  embed = jax.jit(learned.embed)
  at = coords.consecutive(1, 1, pos)
  assert np.all(np.isnan(embed(params, np.zeros((1, 1, 8)), at)))


def test_fire_starts_with_corners_between_the_nearest_and_the_farthest_key():
  init = jax.jit(positions.build("fire(width=200)").init, static_argnums=1)
  params = jax.device_get(init(jax.random.key(0), DIMS))
  # With all of them outside of (0, 1), units are straight lines or never on.
  corner_W = -params["in_shift_W"] / params["in_W"]
  assert 0.15 < np.mean((corner_W > 0) & (corner_W < 1)) < 0.35


def test_randomized_refuses_a_table_shorter_than_its_positions():
  encoding = positions.build("randomized(learned(max_positions=64), max_positions=100)")
  with pytest.raises(ValueError, match="below 100.*ends at 64.*max_positions"):
    encoding.init(jax.random.key(0), DIMS)
  encoding = positions.build("randomized(learned, max_positions=100)")
  params = jax.eval_shape(lambda: encoding.init(jax.random.key(0), DIMS))
  assert params["table_LD"].shape == (100, 8)


@pytest.mark.parametrize(
  "spec", ["t5(max_distance=16)", "t5(buckets=1)", "t5(buckets=2, causal=False)"]
)
def test_t5_refuses_sizes_that_make_no_buckets(spec):
  with pytest.raises(ValueError, match="t5 .*(max_distance|buckets)"):
    positions.build(spec)


@pytest.mark.parametrize("spec", ["sinusoidal", "transformer_xl"])
def test_waves_need_an_even_width(spec):
  encoding = positions.build(spec)
  dims = Dims(V=2, D=7, H=1, F=2, L=4)
  with pytest.raises(ValueError, match="even width, not 7"):
    params = encoding.init(jax.random.key(0), dims)
    encoding.embed(params, jnp.zeros((1, 1, 7)), coords.consecutive(1, 1))


def test_randomized_spreads_whole_texts_and_cannot_decode_them():
  encoding = positions.build("randomized(rope, max_positions=50, spread=True)")
  assert (
    encoding.needs_full_text and not positions.build("randomized(rope)").needs_full_text
  )
  real_BL = np.arange(8) >= np.array([[0], [3]])
  at = encoding.assign_positions(None, coords.padded(jnp.asarray(real_BL)))
  assert at.pos_BL[0].tolist() == [0, 6, 12, 18, 24, 30, 36, 42]  # 50 // 8 apart
  assert at.pos_BL[1, 3:].tolist() == [0, 10, 20, 30, 40]
  with pytest.raises(ValueError, match="cannot decode token by token"):
    encoding.assign_positions(None, coords.consecutive(2, 1, start=4))
  with pytest.raises(ValueError, match="raise max_positions to 51"):
    encoding.assign_positions(None, coords.consecutive(1, 51))
