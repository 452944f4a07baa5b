"""Every encoding equals a slow NumPy version written from its paper's equation.

What is compared is the output of attention and its gradients in float32, through the
path a model takes, against float64 loops in `oracles.py`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import Where

from transformer_jax.attention import cores
from transformer_jax.axes import Dims
from transformer_jax.positions import bind, coords, positions

B, L = 2, 9
DIMS = Dims(V=2, D=8, H=3, K=6, F=2, N=1, L=16)

PAPERS = {
  "none": oracles.Paper(),
  "sinusoidal": oracles.Sinusoidal(),
  "learned": oracles.Learned(),
  "shaw(furthest=3)": oracles.Shaw(3),
  "t5(buckets=8, furthest=6)": oracles.T5(8, 6),
  "alibi": oracles.Alibi(DIMS.H),
  "rope(base=100)": oracles.Rope(100, neighbours=False),
  "rope(interleaved=True)": oracles.Rope(10_000, neighbours=True),
  "fire(width=5, threshold=4)": oracles.Fire(4),
  "transformer_xl": oracles.TransformerXL(),
  "forgetting": oracles.Forgetting(),
}
SLOPE_H = np.array([oracles.Alibi(DIMS.H).slope(h) for h in range(DIMS.H)])
NEUTRAL = {  # with these parameters an encoding is none, or another one
  "shaw(furthest=3)": [({"key_NK": 0, "value_NK": 0}, oracles.Paper())],
  "t5(buckets=8, furthest=6)": [({"table_HN": 0}, oracles.Paper())],
  "fire(width=5, threshold=4)": [({"out_HW": 0}, oracles.Paper())],
  "transformer_xl": [
    ({"content_HK": 0, "position_HK": 0, "project_HKD": 0}, oracles.Paper())
  ],
  "forgetting": [
    ({"forget_DH": 0, "forget_shift_H": 40}, oracles.Paper()),
    # A gate of exp(-m) for every token: log sigmoid(b) = -m.
    ({"forget_DH": 0, "forget_shift_H": -np.log(np.expm1(SLOPE_H))}, PAPERS["alibi"]),
  ],
}
TWO_TEXTS = [0, 0, 1, 1, 1, 2, 2, 2, 2]
PADDED = [7, 7, 7, 7, 7, 7, 0, 0, 0]
ROWS = {  # rows of tokens, by hand: what the constructors of `coords` should mean
  "one text": [Where([1] * L, [0, 1, 2, 3, 4, 5, 6, 7, 8])] * B,
  "packed": [
    Where(TWO_TEXTS, [0, 0, 0, 1, 2, 0, 1, 2, 3]),
    Where(PADDED, [0, 1, 2, 3, 4, 5, 0, 0, 0]),
  ],
}
PROJECT_qkvDHK = np.random.default_rng(1).normal(size=(3, DIMS.D, DIMS.H, DIMS.K)) / 3


def coordinates(rows):
  if rows == "one text":
    return coords.consecutive(B, L)
  return coords.packed(jnp.array([TWO_TEXTS, PADDED], jnp.int32))


def inputs(encoding):
  """Returns a point, parameters with {q, k, v, x}, and a cotangent, in float64."""
  random = np.random.default_rng(0)
  init = functools.partial(encoding.init, dims=DIMS)
  shapes = jax.eval_shape(init, jax.random.key(0))
  point = {name: random.normal(size=s.shape) for name, s in shapes.items()}
  if (
    "growth" in point
  ):  # fire: corners of the network between 0 and 1, none of them hit
    point |= {"growth": np.array(0.6), "stretch": np.array(-0.8)}
    point |= {"in_W": np.array([3.0, -2.0, 1.5, -1.0, 2.0])}
    point |= {"in_shift_W": np.array([-1.1, 1.3, -0.85, 0.55, -0.5])}
  point |= {name: random.normal(size=(B, L, DIMS.H, DIMS.K)) for name in "qkv"}
  point["x"] = random.normal(size=(B, L, DIMS.D))
  return point, random.normal(size=(B, L, DIMS.H, DIMS.K))


def ours(encoding, point, at):
  """Returns attention outputs as a model makes them: queries see embedded tokens."""
  point = dict(point)
  q, k, v, x = (point.pop(name) for name in "qkvx")
  position = bind(encoding, point, DIMS)
  x_BLD = position.embed(x, at.pos_BL)
  project = PROJECT_qkvDHK.astype(np.float32)
  q, k, v = jnp.stack([q, k, v]) + jnp.einsum("BLD,nDHK->nBLHK", x_BLD, project)
  at = position.accumulate(position.read(x_BLD, at))
  q, k = position.turn(q, k, at, at)
  return cores.build("dense")(q, k, v, at, at, position)


@functools.partial(jax.jit, static_argnums=0)
def ours_with_gradient(encoding, point, cotangent, at):
  """Returns outputs and the gradient of their product with the cotangent."""

  def loss(point):
    out_BLHK = ours(encoding, point, at)
    return jnp.sum(out_BLHK * cotangent), out_BLHK

  gradient, out_BLHK = jax.grad(loss, has_aux=True)(point)
  return out_BLHK, gradient


def oracle(paper, point, rows):
  """Returns the same outputs in float64 by loops."""
  out = []
  for n, where in enumerate(rows):
    x_LD = oracles.embedded(paper, point, point["x"][n], where)
    q, k, v = (
      point[name][n] + np.einsum("LD,DHK->LHK", x_LD, project)
      for name, project in zip("qkv", PROJECT_qkvDHK, strict=True)
    )
    out.append(oracles.attend(paper, point, q, k, v, x_LD, where))
  return np.array(out)


def float32(tree):
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def assert_close(actual, expected, case, relative=1e-5):
  """Compares relative to the largest entry: sums in float32 are no better."""
  atol = relative * np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, relative, atol, err_msg=case)


@pytest.mark.parametrize("spec", PAPERS)
def test_attention_and_its_gradients_are_what_the_paper_says(spec):
  encoding, paper = positions.build(spec), PAPERS[spec]
  point, cotangent = inputs(encoding)
  compare = lambda encoding, at, where, case: assert_close(
    ours_with_gradient(encoding, *float32((point, cotangent)), at)[0],
    oracle(paper, point, where),
    case,
  )
  for rows, where in ROWS.items():
    compare(encoding, coordinates(rows), where, rows)
    if spec != "forgetting":
      at = coordinates(rows).bidirectional()
      where = [dataclasses.replace(w, both_ways=True) for w in where]
      compare(encoding.bidirectional(), at, where, f"{rows}, both ways")
  check_gradients(spec)
  check_neutral(spec)


def check_neutral(spec):
  """Compares what is left of an encoding with the paper it becomes."""
  encoding, at, where = positions.build(spec), coordinates("packed"), ROWS["packed"]
  point, cotangent = inputs(encoding)
  for changes, same in NEUTRAL.get(spec, ()):
    filled = {name: np.full_like(point[name], x) for name, x in changes.items()}
    changed = point | filled
    out_BLHK, _ = ours_with_gradient(encoding, *float32((changed, cotangent)), at)
    assert_close(out_BLHK, oracle(same, changed, where), f"{changes}")


def check_gradients(spec):
  encoding, paper, where = positions.build(spec), PAPERS[spec], ROWS["packed"]
  point, cotangent = inputs(encoding)
  at = coordinates("packed")
  _, gradient = ours_with_gradient(encoding, *float32((point, cotangent)), at)
  assert set(gradient) == set(point)
  for name in point:
    loss = lambda value, name=name: np.sum(
      oracle(paper, point | {name: value}, where) * cotangent
    )
    check_slopes(name, np.asarray(gradient[name], float), loss, point[name])


def check_slopes(name, gradient, loss, value):
  """Compares a gradient with central differences, along a random and its own axis."""
  # One number added to all scores of a head cancels in the softmax: it cannot learn.
  cancels = name == "out_shift_H"
  assert (np.abs(gradient).max() < 1e-5) == cancels, name
  largest = np.abs(gradient) == np.abs(gradient).max()
  for direction in (np.random.default_rng(2).normal(size=value.shape), largest):
    step = 1e-5 * direction
    slope = (loss(value + step) - loss(value - step)) / 2e-5
    scale = np.sum(np.abs(gradient * direction))
    error = np.sum(gradient * direction) - slope
    assert abs(error) < 5e-6 + 1e-5 * scale, name


def test_forgetting_has_no_meaning_for_the_future():
  with pytest.raises(ValueError, match="use it in a decoder"):
    positions.build("forgetting").bidirectional()


@pytest.mark.parametrize("inner", ["rope(base=100)", "learned"])
def test_randomized_is_its_encoding_at_other_positions(inner):
  encoding = positions.build(f"randomized({inner}, longest=40, step=3)")
  point, _ = inputs(encoding)
  outputs = jax.jit(functools.partial(ours, encoding))
  for key in (jax.random.key(4), None):
    at = encoding.place(key, coordinates("packed"))
    placed = np.asarray(at.pos_BL).tolist()
    texts = [placed[0][2:5], placed[0][5:], placed[1][:6]]
    assert all(text == texts[2][: len(text)] for text in texts), "one draw for all"
    if key is None:
      assert texts[2] == [0, 3, 6, 9, 12, 15]
    else:
      assert sorted(set(texts[2])) == texts[2] and texts[2][-1] < 40
    where = [
      dataclasses.replace(w, pos_L=row)
      for w, row in zip(ROWS["packed"], placed, strict=True)
    ]
    expected = oracle(PAPERS[inner], point, where)
    assert_close(outputs(float32(point), at), expected, str(key))


@pytest.mark.parametrize("spec", ["shaw(furthest=3)", "transformer_xl"])
def test_scores_stay_in_float32_when_the_model_computes_in_bfloat16(spec):
  encoding = positions.build(spec)
  point, _ = inputs(encoding)
  q, k = (jnp.asarray(point.pop(name), jnp.bfloat16) for name in "qk")
  position = bind(encoding, float32(point), DIMS)
  at, seen_BLM = coords.consecutive(1, L), jnp.ones((1, L, L), bool)
  s_BHLM = jnp.zeros((B, DIMS.H, L, L))
  score = jax.jit(lambda q, k: position.score(s_BHLM, q, k, at, at, seen_BLM, 0.5))
  assert_close(score(q, k), score(*float32((q, k))), spec, relative=1e-6)
