"""JAX functions that run with NumPy give JAX's numbers, their gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import numpy_interpreter, triangular

X_LM = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
N_L = np.array([3, -1, 0, 9], np.int32)
HALF = jnp.bfloat16


def indexing(x_LM, n_L):
  row_LM = jnp.pad(x_LM, ((1, 0), (0, 2)), constant_values=2.0)
  return {
    "rows": x_LM[n_L % 4],
    "filled": x_LM.at[n_L].get(
      mode="fill", fill_value=7.0, wrap_negative_indices=False
    ),
    "along": jnp.take_along_axis(x_LM, jnp.abs(n_L)[:, None] % 6, axis=1),
    "added": jnp.zeros(5).at[jnp.abs(n_L)].add(x_LM[:, 0]),
    "set": jnp.zeros(5).at[jnp.abs(n_L)].set(x_LM[:, 0], mode="drop"),
    "padded": row_LM,
    "inner": jax.lax.pad(x_LM, 0.0, ((0, 1, 2), (-1, 0, 0))),
    "slice": jax.lax.dynamic_slice(x_LM, (n_L[3], 1), (2, 3)),
    "update": jax.lax.dynamic_update_slice(x_LM, x_LM[:2, :2], (n_L[0], n_L[1])),
    "updates": jax.vmap(
      lambda x_M, n: jax.lax.dynamic_update_slice(x_M, x_M[:2], (n,))
    )(x_LM, n_L),
    "strided": x_LM[::2, ::-1],
    "sorted": jnp.sort(x_LM, axis=1),
    "order": jnp.argsort(x_LM, axis=0),
    "joined": jnp.concatenate([jnp.tile(x_LM, 2), jnp.roll(x_LM, 2, axis=1)], axis=1),
    "split": jnp.split(x_LM, [1, 4], axis=1)[1],
  }


def arithmetic(x_LM, n_L):
  return {
    "whole": (n_L // 2, n_L % 4, jnp.abs(n_L) ** 3, -n_L >> 1, n_L & 3),
    "divided": jax.lax.div(n_L, 2),
    "powers": (x_LM**2, x_LM**3, 1.0 / (1 + x_LM**2), jnp.abs(x_LM) ** 0.3),
    "rounded": (jnp.round(x_LM * 2.5), jnp.floor(x_LM), jnp.sign(x_LM), jnp.ceil(x_LM)),
    "curves": (jnp.exp(x_LM), jnp.tanh(x_LM), jnp.sin(x_LM), jax.nn.softplus(x_LM)),
    "gates": (jax.nn.sigmoid(x_LM), jax.nn.gelu(x_LM), jax.lax.rsqrt(1 + x_LM**2)),
    "clipped": jnp.clip(x_LM, -0.5, 0.5),
    "chosen": jnp.where(x_LM > 0, x_LM, -1.0),
    "half": x_LM.astype(HALF).astype(jnp.float32),
    "sums": (
      x_LM.sum(),
      x_LM.max(1),
      x_LM.prod(0),
      (x_LM > 0).any(1),
      jnp.argmax(x_LM),
    ),
    "running": (jnp.cumsum(x_LM, 1), jax.lax.cummax(x_LM, 0, reverse=True)),
    "softmax": jax.nn.softmax(x_LM, axis=1),
  }


def products(x_LM, n_L):
  half_LM = x_LM.astype(HALF)
  x_BLM = jnp.stack([x_LM, 2 * x_LM, -x_LM])
  step = lambda carry, x_M: (carry * 0.5 + x_M, jnp.tanh(carry))
  return {
    "matrices": jnp.einsum("BLM,BKM->BLK", x_BLM, x_BLM + 1),
    "heads": jnp.einsum("BLM,BKM->KLB", x_BLM, x_BLM),
    "half": half_LM @ half_LM.T.astype(jnp.float32),
    "scan": jax.lax.scan(step, x_LM[0], x_LM),
    "back": jax.lax.scan(step, x_LM[0], x_LM, reverse=True)[1],
    "while": jax.lax.while_loop(lambda x: x < 9, lambda x: 2 * x + 1, n_L[0]),
    "whiles": jax.vmap(
      lambda n: jax.lax.while_loop(lambda x: x < 9, lambda x: 2 * x + 1, n)
    )(jnp.abs(n_L)),
    "cond": jax.lax.cond(n_L[0] > 0, jnp.sin, jnp.cos, x_LM),
    "mapped": jax.vmap(lambda x_M, n: x_M[n % 6] * x_M)(x_LM, n_L),
    "kept": jax.checkpoint(jnp.sin)(x_LM),
    "solved": jnp.linalg.solve(jnp.eye(4) + x_LM[:, :4] @ x_LM[:, :4].T, x_LM),
  }


@pytest.mark.parametrize("function", [indexing, arithmetic, products])
def test_numbers_and_gradients_are_those_of_jax(function):
  def total(x_LM, n_L):
    leaves = [y for y in jax.tree.leaves(function(x_LM, n_L)) if y.dtype == jnp.float32]
    return sum(jnp.vdot(jnp.ravel(y), jnp.cos(jnp.arange(y.size))) for y in leaves)

  both = lambda *args: (function(*args), jax.grad(total)(*args))
  if function is products:  # JAX has no gradient of a while loop
    both = lambda *args: (function(*args), args)
  want, got = jax.jit(both)(X_LM, N_L), numpy_interpreter.evaluate(both, X_LM, N_L)
  for (path, x), y in zip(
    jax.tree_util.tree_leaves_with_path(want), jax.tree.leaves(got), strict=True
  ):
    assert x.dtype == y.dtype and x.shape == y.shape, path
    np.testing.assert_allclose(y, x, rtol=2e-5, atol=1e-5, err_msg=str(path))


def test_random_numbers_are_random_and_the_same_each_time():
  def draw():
    keys = jax.random.split(jax.random.key(0), 3)
    return (
      jax.random.normal(keys[0], (200,)),
      jax.random.uniform(keys[1], (200,)),
      jax.random.randint(keys[2], (200,), 0, 5),
      jax.random.permutation(jax.random.fold_in(keys[0], 1), 20),
    )

  normal, uniform, whole, order = numpy_interpreter.evaluate(draw)
  assert abs(normal.mean()) < 0.3 and 0.8 < normal.std() < 1.2
  assert 0 <= uniform.min() < 0.1 < 0.9 < uniform.max() < 1
  assert {*whole.tolist()} == {0, 1, 2, 3, 4} and sorted(order) == list(range(20))
  np.testing.assert_array_equal(numpy_interpreter.evaluate(draw)[0], normal)


def test_what_is_left_out_is_not_computed():
  both = lambda x: {"sum": jnp.sum(x + 1), "sine": jnp.sin(x)}
  run = numpy_interpreter.trace(both, jnp.arange(3.0))
  part = numpy_interpreter.without(run, "sine")
  names = [eqn.primitive.name for eqn in part.jaxpr.jaxpr.eqns]
  assert part(np.arange(3.0)) == {"sum": 6.0}
  assert "sin" not in names and "add" in names


def test_a_triangular_system_is_solved_as_numpy_solves_it():
  random = np.random.default_rng(0)
  low = np.tril(random.normal(size=(8, 8)), -1).astype(np.float32)
  b = random.normal(size=(8, 3)).astype(np.float32)
  got = numpy_interpreter.trace(triangular.solve_unit_lower, low, b)(low, b)
  want = np.linalg.solve(np.eye(8) + low.astype(np.float64), b)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
