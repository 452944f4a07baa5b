"""Encodings of rows and columns: recorded numbers, identities, places off the grid."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from test_papers import RAMP8, close, det
from test_recorded import recorded

from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, Transformer
from transformer_jax.positions import bind, coords, positions

DIMS = Dims(V=5, D=8, H=2, K=8, F=8, L=6)


def place(row, column):
  """Returns one token at a place of the grid."""
  ids = {"row_BL": jnp.array([[row]]), "column_BL": jnp.array([[column]])}
  return coords.consecutive(1, 1).replace(data=ids)


@functools.partial(interpreted, statics=1)
def turn(encoding, params, x_BLHK, at):
  """Returns queries after they were turned."""
  return encoding.transform_qk(params, x_BLHK, x_BLHK, at, at)[0]


def turned(spec, x_K, at):
  """Returns a query of one token after it was turned."""
  x_BLHK = jnp.asarray(x_K, jnp.float32)[None, None, None]
  return np.asarray(turn(positions.build(spec), {}, x_BLHK, at)[0, 0, 0])


def test_sinusoidal_2d_numbers():
  encoding = positions.build("sinusoidal_2d")
  zero_BLD = np.zeros((1, 1, 8), np.float32)
  waves_D = interpreted(encoding.embed)({}, zero_BLD, place(row=1, column=2))[0, 0]
  expected = [0.909297, 0.019999, -0.416147, 0.9998, 0.841471, 0.01, 0.540302, 0.99995]
  close(waves_D, expected)
  with pytest.raises(ValueError, match="divisible by 4, not 6"):
    encoding.embed({}, np.zeros((1, 1, 6), np.float32), place(0, 0))


def test_sinusoidal_2d_of_detr():
  there_DRC = recorded("transformers/sinusoidal_2d")["detr/4x5x16"]
  embed = interpreted(positions.build("sinusoidal_2d(detr=True)").embed)
  ours_LD = embed({}, np.zeros((1, 20, 16), np.float32), coords.grid(4, 5))[0]
  close(np.reshape(ours_LD, (4, 5, 16)), np.moveaxis(there_DRC, 0, 2))


def test_axial_rope_of_rotary_embedding_torch():
  there = recorded("rotary_embedding_torch/axial_rope")
  q_BHRCK = there["q"]
  B, H, rows, columns, K = q_BHRCK.shape
  flat = lambda x: np.moveaxis(x, 1, 3).reshape(B, rows * columns, H, K)
  at = coords.grid(rows, columns)
  # There the row comes first: the grid is turned over.
  at = at.replace(data={"row_BL": at.data["column_BL"], "column_BL": at.data["row_BL"]})
  encoding = positions.build("axial_rope(base=1e4, width=16)")
  close(turn(encoding, {}, flat(q_BHRCK), at), flat(there["q_rotated"]), atol=5e-6)


def test_axial_rope_numbers():
  # Angles 2, 0.2 of the column and 1, 0.1 of the row.
  x_K = np.tile([1.0, 0.0], 4)
  y_K = turned("axial_rope", x_K, place(row=1, column=2))
  close(np.arctan2(y_K[1::2], y_K[::2]), [2, 0.2, 1, 0.1])
  for width in (6, 12):
    with pytest.raises(ValueError, match="width from 4 to 8 that 4 divides"):
      turned(f"axial_rope(width={width})", x_K, place(1, 2))


def test_each_axis_turns_its_own_pairs_and_both_alike():
  at = lambda *where: turned("axial_rope", RAMP8, place(*where))
  here, right, below = at(3, 3), at(3, 5), at(5, 3)
  close(right[4:], here[4:])
  close(below[:4], here[:4])
  assert np.all(right[:4] != here[:4]) and np.all(below[4:] != here[4:])
  swapped = turned("axial_rope", np.roll(RAMP8, 4), place(5, 3))
  close(np.roll(swapped, 4), right)


def test_axial_rope_in_one_row_is_rope_on_half_of_the_features():
  q_BLHK = np.float32(det((1, 6, 2, 8), 0.3))
  at, line = coords.grid(1, 6), positions.build("rope(base=100, interleaved=True)")
  got = turn(positions.build("axial_rope"), {}, q_BLHK, at)
  close(got[..., :4], turn(line, {}, q_BLHK[..., :4], at))
  close(got[..., 4:], q_BLHK[..., 4:])


def test_mixed_rope_without_rows_is_rope_of_the_column():
  q_BLHK = np.float32(det((1, 6, 2, 8), 0.3))
  params = {"column_HR": jnp.tile(0.01 ** (jnp.arange(4) / 4), (2, 1))}
  params["row_HR"] = jnp.zeros((2, 4))
  at, line = coords.grid(2, 3), positions.build("rope(base=100, interleaved=True)")
  got = turn(positions.build("mixed_rope"), params, q_BLHK, at)
  close(got, turn(line, {}, q_BLHK, at.replace(pos_BL=at.data["column_BL"])))


def test_mixed_rope_starts_with_axes_that_each_head_turns_by_its_own_angle():
  dims = dataclasses.replace(DIMS, H=3)
  init = jax.jit(positions.build("mixed_rope").init, static_argnums=1)
  params = init(jax.random.key(3), dims)
  direction_HR = params["column_HR"] + 1j * params["row_HR"]
  size = 10.0 ** -np.array([0, 0, 0.5, 0.5])
  close(np.abs(direction_HR), np.tile(size, (3, 1)))
  close(direction_HR[:, 1::2] / direction_HR[:, ::2], np.full((3, 2), 1j))
  angle_H = np.angle(direction_HR[:, 0])
  assert len({*np.round(angle_H, 3)}) == 3
  with pytest.raises(ValueError, match="even head width, not 7"):
    positions.build("mixed_rope").init(
      jax.random.key(0), dataclasses.replace(DIMS, K=7)
    )


def test_learned_2d_ends_where_its_tables_end():
  encoding = positions.build("learned_2d(height=2, width=3)")
  params = {"row_ND": jnp.ones((2, 8)), "column_ND": 2 * jnp.ones((3, 8))}
  embed = interpreted(lambda at: encoding.embed(params, jnp.zeros((1, 1, 8)), at)[0, 0])
  close(embed(place(1, 2)), np.full(8, 3))
  assert np.all(np.isnan(embed(place(2, 2)))) and np.all(np.isnan(embed(place(1, 3))))


@pytest.mark.parametrize(
  "spec", ["sinusoidal_2d", "learned_2d", "axial_rope", "mixed_rope"]
)
def test_a_token_off_the_grid_gets_no_position(spec):
  encoding = positions.build(spec)

  @interpreted
  def run(at):
    params = encoding.init(jax.random.key(0), DIMS)
    position, x_BLD = bind(encoding, params, DIMS), jnp.ones((1, 1, 8))
    q_BLHK = jnp.ones((1, 1, 2, 8))
    return position.embed(x_BLD, at), *position.transform_qk(q_BLHK, q_BLHK, at, at)

  for x in run(place(-1, -1)):
    np.testing.assert_array_equal(x, np.ones_like(x))
  assert any(not np.allclose(x, 1) for x in run(place(1, 2)))


def test_a_finer_grid_may_be_squeezed_into_the_trained_one():
  at = coords.grid(1, 4)
  at = at.replace(data={name: n_BL / 2 for name, n_BL in at.data.items()})
  column_L1 = np.array([[0], [0.5], [1], [1.5]])
  x_BLHK = np.tile(np.float32([1, 0]), 4)[None, None, None].repeat(4, axis=1)
  y_BLHK = turn(positions.build("axial_rope"), {}, x_BLHK, at)
  angle_LR = np.arctan2(y_BLHK[0, :, 0, 1::2], y_BLHK[0, :, 0, ::2])
  close(angle_LR, np.concatenate([column_L1 * [1, 0.1], 0 * column_L1 * [1, 1]], 1))


def test_an_encoder_of_patches_sees_where_they_are_and_asks_for_their_places():
  encoding = positions.build("by_layer((mixed_rope, axial_rope))")
  model = Transformer(Architecture(DIMS, encoding, cores.build("dense"), encoders=2))
  token_BL, at = np.array([[3, 0, 0, 0, 0, 0]]), coords.grid(2, 3)
  shapes = jax.eval_shape(model.init, jax.random.key(0), token_BL, at)
  random = np.random.default_rng(0)
  params = jax.tree.map(lambda x: np.float32(random.normal(size=x.shape)), shapes)
  run = interpreted(lambda data: model.apply(params, token_BL, at.replace(data=data)))
  here = run(at.data)
  close(run({name: n_BL + 7 for name, n_BL in at.data.items()}), here, atol=1e-4)
  over = run({"row_BL": at.data["column_BL"], "column_BL": at.data["row_BL"]})
  assert np.abs(over - here).max() > 0.1
  with pytest.raises(ValueError, match="reads row_BL, which these tokens do not have"):
    jax.eval_shape(model.apply, params, token_BL)
