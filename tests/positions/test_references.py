"""Every encoding equals a slow NumPy version written from its paper's equation.

What is compared is the output of attention and its gradients in float32, through the
path a model takes, against float64 loops in `oracles/`.
"""

import dataclasses
import functools
import importlib
import math
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import Where

from transformer_jax import numpy_interpreter
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.positions import TrainContext, bind, coords, positions


def all_cases():
  """Returns the cases of every module in tests/oracles; some are of other things."""
  names = [module.name for module in pkgutil.iter_modules(oracles.__path__)]
  modules = [importlib.import_module(f"oracles.{name}") for name in names]
  return [case for module in modules for case in getattr(module, "CASES", ())]


B, L = 2, 9
DIMS = Dims(V=2, D=8, H=3, K=6, F=2, L=16)

CASES = {case.spec: case for case in all_cases()}
TWO_TEXTS = [0, 0, 1, 1, 1, 2, 2, 2, 2]
PADDED = [7, 7, 7, 7, 7, 7, 0, 0, 0]
IDS = {  # what a task may know of the token at a position, here by arithmetic
  "row": lambda pos: pos // 3,
  "column": lambda pos: pos % 3,
  "time": lambda pos: pos // 6,
  "abacus": lambda pos: (pos + 2) % 4,
  "step": lambda pos: pos // 2,
  "coupled": lambda pos: 5 - abs(pos - 4),
}


def where(text_L, pos_L):
  """Returns a row of tokens, with ids."""
  ids = {name: [at(pos) for pos in pos_L] for name, at in IDS.items()}
  return Where(text_L, pos_L, ids=ids)


ROWS = {  # rows of tokens, by hand: what the constructors of `coords` should mean
  "one text": [where([1] * L, [0, 1, 2, 3, 4, 5, 6, 7, 8])] * B,
  "packed": [
    where(TWO_TEXTS, [0, 0, 0, 1, 2, 0, 1, 2, 3]),
    where(PADDED, [0, 1, 2, 3, 4, 5, 0, 0, 0]),
  ],
}
PROJECT_qkvDHK = np.random.default_rng(1).normal(size=(3, DIMS.D, DIMS.H, DIMS.K)) / 3


def coordinates(rows):
  if rows == "one text":
    at = coords.consecutive(B, L)
  else:
    at = coords.packed(jnp.array([TWO_TEXTS, PADDED], jnp.int32))
  ids = {name: jnp.array([where.ids[name] for where in ROWS[rows]]) for name in IDS}
  return at.replace(data={f"{name}_BL": x for name, x in ids.items()})


def inputs(case, encoding=None):
  """Returns a point, parameters with {q, k, v, x}, and a cotangent, in float64."""
  point, cotangent = drawn(case.spec, encoding or positions.build(case.spec))
  return dict(point), cotangent


@functools.lru_cache(maxsize=8)
def drawn(spec, encoding):
  case, random = CASES[spec], np.random.default_rng(0)
  init = functools.partial(encoding.init, dims=DIMS)
  shapes = jax.eval_shape(init, jax.random.key(0))
  point = {name: random.normal(size=s.shape) for name, s in shapes.items()}
  point |= {name: np.array(x, float) for name, x in case.point.items()}
  point |= {name: random.normal(size=(B, L, DIMS.H, DIMS.K)) for name in "qkv"}
  point["x"] = random.normal(size=(B, L, DIMS.D))
  return point, random.normal(size=(B, L, DIMS.H, DIMS.K))


def ours(encoding, point, at):
  """Returns attention outputs as a model makes them: queries see embedded tokens."""
  point = dict(point)
  q, k, v, x = (point.pop(name) for name in "qkvx")
  position, at = bind(encoding, point, DIMS), encoding.assign_positions(None, at)
  x_BLD = position.embed(x, at)
  project = PROJECT_qkvDHK.astype(np.float32)
  q, k, v = jnp.stack([q, k, v]) + jnp.einsum("BLD,nDHK->nBLHK", x_BLD, project)
  at = position.accumulate(position.read(x_BLD, q, at))
  q, k = position.transform_qk(q, k, at, at)
  return cores.build("dense")(q, k, v, at, at, position, DIMS.K**-0.5)


def ours_with_gradient(encoding, point, cotangent, at):
  """Returns outputs and the gradient of their product with the cotangent."""
  given = point, cotangent, at
  shapes, tree = jax.tree.flatten(jax.tree.map(jax.typeof, given))
  return traced(encoding, tree, *shapes)(*given)


@functools.lru_cache(maxsize=8)
def traced(encoding, tree, *shapes):
  """Returns outputs and gradients as a function that runs in NumPy.

  What is compared is the formula. Compiling is what it would cost in JAX, and what XLA
  makes of an encoding is compared with another core's in test_positions.py: quickly
  for one of each class, and in `slow` for all.
  """

  def loss(point, cotangent, at):
    out_BLHK = ours(encoding, point, at)
    return jnp.sum(out_BLHK * cotangent), out_BLHK

  def run(*given):
    gradient, out_BLHK = jax.grad(loss, has_aux=True)(*given)
    return out_BLHK, gradient

  return numpy_interpreter.trace(run, *tree.unflatten(shapes))


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


# The first case of each encoding, and those that go another way through its code.
FIRST = {spec.partition("(")[0]: spec for spec in reversed(CASES)}.values()
BRANCHES = "grape_m(contextual=True)", "inkling(width=3, max_distance=6, floor=3)"
BRANCHES += "forgetting(gate='fixed', memory=(2, 16))", "rope(interleaved=True)"
BRANCHES += "alibi(both_ways='two_sided')", "rope_dynamic(original=3)"
BRANCHES += "path(rank=4, width=2, forget=True)", "kerple_log(exponent=True)"


@pytest.mark.parametrize(
  "spec",
  [
    pytest.param(spec, marks=[pytest.mark.slow] * (spec not in (*FIRST, *BRANCHES)))
    for spec in CASES
  ],
)
def test_attention_and_its_gradients_are_what_the_paper_says(spec):
  case, encoding = CASES[spec], positions.build(spec)
  compare = lambda encoding, at, here, name: assert_close(
    ours_with_gradient(encoding, *float32(inputs(case, encoding)), at)[0],
    oracle(case.paper, inputs(case, encoding)[0], here),
    name,
  )
  for rows, here in ROWS.items():
    compare(encoding, coordinates(rows), here, rows)
    if case.both_ways:
      at = coordinates(rows).bidirectional()
      here = [dataclasses.replace(w, both_ways=True) for w in here]
      compare(encoding.bidirectional(), at, here, f"{rows}, both ways")
    else:
      with pytest.raises(ValueError, match="use it in a decoder"):
        encoding.bidirectional()
  check_gradients(case)
  check_neutral(case)


def check_neutral(case):
  """Compares what is left of an encoding with the paper it becomes."""
  encoding, at, here = positions.build(case.spec), coordinates("packed"), ROWS["packed"]
  point, cotangent = inputs(case)
  for changes, same in case.neutral:
    filled = {name: np.full_like(point[name], x) for name, x in changes.items()}
    changed = point | filled
    out_BLHK, _ = ours_with_gradient(encoding, *float32((changed, cotangent)), at)
    assert_close(out_BLHK, oracle(same, changed, here), f"{changes}")


def check_gradients(case):
  encoding, here = positions.build(case.spec), ROWS["packed"]
  point, cotangent = inputs(case)
  _, gradient = ours_with_gradient(
    encoding, *float32((point, cotangent)), coordinates("packed")
  )
  assert set(gradient) == set(point)
  gradient = {name: np.asarray(x, float) for name, x in gradient.items()}
  for name, x in gradient.items():
    assert (np.abs(x).max() < 1e-5) == (name in case.cancels), name

  def loss(moved):
    return np.sum(oracle(case.paper, point | moved, here) * cotangent)

  names = {*point} - {*"qkvx"}
  for group in [{*"qkvx"}] + [names] * bool(names):
    check_slopes({name: gradient[name] for name in sorted(group)}, loss, point)


def check_slopes(gradient, loss, point):
  """Compares gradients with central differences of all their arrays at once.

  These move in a random direction, and then each along the largest entry of its own
  gradient.
  """
  random = np.random.default_rng(2)
  drawn = {name: random.normal(size=x.shape) for name, x in gradient.items()}
  own = {name: np.abs(x) == np.abs(x).max() for name, x in gradient.items()}
  for direction in (drawn, own):
    ahead, behind = (
      loss({name: point[name] + step * x for name, x in direction.items()})
      for step in (1e-5, -1e-5)
    )
    products = {name: x * direction[name] for name, x in gradient.items()}
    error = sum(map(np.sum, products.values())) - (ahead - behind) / 2e-5
    scale = sum(np.sum(np.abs(x)) for x in products.values())
    assert abs(error) < 5e-6 + 1e-5 * scale, [*gradient]


@pytest.mark.parametrize("name", sorted(positions))
def test_every_encoding_has_an_oracle_and_learns_what_the_paper_says(name):
  cases = [case for case in CASES.values() if case.spec.partition("(")[0] == name]
  assert cases, f"{name} needs a Case in tests/oracles"
  for case in cases:
    encoding = positions.build(case.spec)
    for dims in (DIMS, Dims(V=2, D=64, H=4, F=2, L=32)):
      shapes = jax.eval_shape(lambda d=dims, e=encoding: e.init(jax.random.key(0), d))
      count = sum(math.prod(x.shape) for x in shapes.values())
      assert count == case.parameters(dims), (case.spec, dims)


def test_randomized_draws_one_row_of_growing_positions_for_all_texts():
  encoding = positions.build("randomized(learned, max_positions=40)")
  placed = encoding.assign_positions(
    TrainContext(jax.random.key(4)), coordinates("packed")
  ).pos_BL
  placed = np.asarray(placed).tolist()
  texts = [placed[0][2:5], placed[0][5:], placed[1][:6]]
  assert all(text == texts[2][: len(text)] for text in texts), "one draw for all"
  assert sorted(set(texts[2])) == texts[2] and texts[2][-1] < 40


@pytest.mark.parametrize("spec", ["shaw(max_distance=3)", "transformer_xl"])
def test_scores_stay_in_float32_when_the_model_computes_in_bfloat16(spec):
  encoding = positions.build(spec)
  point, _ = inputs(CASES[spec])
  q, k = (jnp.asarray(point.pop(name), jnp.bfloat16) for name in "qk")
  position = bind(encoding, float32(point), DIMS)
  at, mask_BLM = coords.consecutive(1, L), jnp.ones((1, L, L), bool)
  s_BHLM = jnp.zeros((B, DIMS.H, L, L))
  score = jax.jit(lambda q, k: position.score(s_BHLM, q, k, at, at, mask_BLM, 0.5))
  assert_close(score(q, k), score(*float32((q, k))), spec, relative=1e-6)
