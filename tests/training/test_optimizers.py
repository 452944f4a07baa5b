"""Optimizers: recorded steps of PyTorch, and what each one registered must do."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transformer_jax.spec import SpecError
from transformer_jax.training import sharding
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.optimizers import build, optimizers
from transformer_jax.training.step import State

RECORDED = pathlib.Path(__file__).parents[2] / "third_party" / "torch"
# {PyTorch's, with its recorded settings: ours}
TORCH = {
  "adam_paper": "adam(lr=0.05, b2=0.98, eps=1e-9)",
  "adamw": "adamw(lr=0.05, weight_decay=0.1, b2=0.999)",
  "adamw_b": "adamw(lr=0.1, b2=0.95, weight_decay=0.3)",
  "sgd": "sgd(lr=0.03)",
  "momentum": "sgd(lr=0.03, momentum=0.9)",
  "rmsprop": "rmsprop(lr=0.02, decay=0.99, eps_in_sqrt=False)",
  "adagrad": "adagrad(lr=0.2, initial_accumulator_value=0.0, eps=1e-10)",
  "radam": "radam(lr=0.05)",
  "adamax": "adamax(lr=0.05)",
}


@functools.cache
def recorded():
  with np.load(RECORDED / "optimizers.npz", allow_pickle=False) as file:
    return dict(file.items())


@pytest.mark.parametrize("name", TORCH)
def test_steps_are_those_of_pytorch(name):
  A, B, w, b = (recorded()[f"{name}/{x}"] for x in ("A", "B", "w0", "b0"))
  transform, _ = build(TORCH[name], "constant", 0.0, 10, 4)
  # The vector decays in PyTorch, so it is named as a matrix.
  params = {"w_DF": w, "b_FW": b[:, None]}

  def objective(params):
    w, b = params["w_DF"], params["b_FW"][:, 0]
    square = 0.5 * jnp.sum(w * (A @ w)) - jnp.sum(B * w) + 0.5 * jnp.sum((b - 1) ** 2)
    return square + 0.25 * jnp.sum((w @ b) ** 2)

  @jax.jit
  def step(params, moments):
    grads = jax.grad(objective)(params)
    updates, moments = transform.update(grads, moments, params)
    return optax.apply_updates(params, updates), moments

  moments = transform.init(params)
  for n in range(10):
    params, moments = step(params, moments)
    # Divisions by small roots carry the rounding of ten steps; radam rectifies them.
    close = functools.partial(np.testing.assert_allclose, atol=1e-4, rtol=0)
    close(params["w_DF"], recorded()[f"{name}/w"][n])
    close(params["b_FW"][:, 0], recorded()[f"{name}/b"][n])


SHAPES = {"embedding_VD": (8, 8), "query_DHK": (8, 4, 2), "in_DF": (8, 16)}
SHAPES |= {"out_FD": (16, 8), "gain_D": (8,), "growth": ()}
LAYERS = 2
QUICK = ("adafactor", "lamb", "muon")
EACH = [
  x if x in QUICK else pytest.param(x, marks=pytest.mark.slow) for x in optimizers
]
SMALL = {"adafactor": "adafactor(min_dim_size_to_factor=4, momentum=0.9)"}
SMALL |= {"muon": "muon(weight_decay=0.1)", "lamb": "lamb(weight_decay=0.1)"}
SEEDS = 2


def random(rng, lead=()):
  return {
    name: rng.normal(size=(*lead, *s)).astype(np.float32) for name, s in SHAPES.items()
  }


def trees(stacked):
  """Returns parameters and two gradients, whose layers are in one array or apart."""
  rng = np.random.default_rng(0)
  for _ in range(3):
    one, layers = random(rng), random(rng, (LAYERS,))
    if stacked:
      yield one | {"layers": {"block": layers}}
      continue
    parts = range(LAYERS)
    yield one | {
      f"layer_{n}": {"block": {k: x[n] for k, x in layers.items()}} for n in parts
    }


def steps(transform, params, *grads):
  """Returns the parameters after a step for each gradient."""
  moments = transform.init(params)
  for each in grads:
    updates, moments = transform.update(each, moments, params)
    params = optax.apply_updates(params, updates)
  return params


def made(name):
  transform, _ = build(SMALL.get(name, name), "constant", 1.0, 10, 8)
  return transform


@functools.cache
def alone(name):
  """Returns the parameters with layers apart, after two steps on one device."""
  return jax.device_get(
    jax.jit(functools.partial(steps, made(name)))(*trees(stacked=False))
  )


@pytest.mark.parametrize("name", EACH)
def test_layers_in_a_stack_are_updated_each_alone(name):
  got = jax.jit(functools.partial(steps, made(name)))(*trees(stacked=True))
  for n in range(LAYERS):
    for key, want in alone(name)[f"layer_{n}"]["block"].items():
      np.testing.assert_allclose(
        got["layers"]["block"][key][n], want, atol=1e-5, rtol=1e-4, err_msg=key
      )
  start = next(trees(stacked=False))
  moved = jax.tree.map(lambda x, y: np.any(x != y), alone(name), start)
  assert all(jax.tree.leaves(moved)), moved
  assert all(map(np.all, map(np.isfinite, jax.tree.leaves(alone(name)))))


@pytest.mark.parametrize("name", EACH)
def test_a_mesh_gives_the_numbers_of_one_device(name):
  """Moments are split as a training splits them; seeds are stacked."""
  transform, mesh = made(name), sharding.make_mesh(1, 2, fsdp=2, seed=2)
  stacked = [
    jax.tree.map(lambda x: np.stack([x] * SEEDS), tree) for tree in trees(stacked=True)
  ]

  def state(params):
    return State(jnp.int32(0), params, transform.init(params), jax.random.key(0))

  shapes = jax.eval_shape(jax.vmap(state), stacked[0])
  where = sharding.split_stacked(mesh, shapes)
  one_step = jax.vmap(functools.partial(_step, transform))
  with jax.set_mesh(mesh):
    place = jax.jit(jax.vmap(state), out_shardings=where)
    step = jax.jit(one_step, out_shardings=where)
    now = place(stacked[0])
    for grads in stacked[1:]:
      now = step(now, jax.device_put(grads, where.params))
  for n in range(LAYERS):
    for key, want in alone(name)[f"layer_{n}"]["block"].items():
      for got in np.asarray(now.params["layers"]["block"][key])[:, n]:
        np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-4, err_msg=key)


def _step(transform, state, grads):
  updates, moments = transform.update(grads, state.moments, state.params)
  params = optax.apply_updates(state.params, updates)
  return State(state.step + 1, params, moments, state.key)


def test_the_schedule_multiplies_the_learning_rate():
  params = {"in_DF": jnp.ones((2, 2))}
  transform, rate = build("sgd(lr=2.0)", "constant(warmup=4)", 0.0, 10, 8)
  moments = transform.init(params)
  for n in range(6):
    updates, moments = transform.update(params, moments, params)
    np.testing.assert_allclose(updates["in_DF"], -min(n / 4, 1) * 2.0, rtol=1e-6)
    np.testing.assert_allclose(rate(n), min(n / 4, 1) * 2.0, rtol=1e-6)


def test_only_matrices_decay():
  for name, decay in (("lion", "weight_decay"), ("adafactor", "weight_decay_rate")):
    params = {"in_DF": jnp.ones((2, 2)), "gain_D": jnp.ones(2)}
    transform = build(f"{name}({decay}=0.5)", "constant", 0.0, 10, 8)[0]
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = transform.update(still, transform.init(params), params)
    assert np.all(updates["in_DF"] < 0) and not np.any(updates["gain_D"])


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("lin(lr=1e-3)", "unknown optimizer 'lin'. Did you mean 'lion'"),
    ("lion(beta1=0.9)", "has no argument 'beta1'. Did you mean 'b1'"),
    ("lion(learning_rate=1e-3)", "has no argument 'learning_rate'"),
    ("lion(b1=1.0)", "b1 is 1.0; write 0 or more and below 1"),
    ("sgd(momentum='high')", "momentum is 'high'; write a number or None"),
    ("sgd(nesterov=1)", "nesterov is 1; write True or False"),
    ("adafactor(min_dim_size_to_factor=4.5)", "write a whole number"),
    ("prodigy(betas=0.9)", "write a tuple of a number, a number"),
  ],
)
def test_a_wrong_optimizer_is_one_sentence(spec, says):
  with pytest.raises(SpecError, match=re.escape(says)):
    optimizers.build(spec)


@pytest.mark.parametrize("name", [*QUICK, "sgd"])
def test_moments_are_restored_bit_for_bit(name, tmp_path):
  start, grads, _ = trees(stacked=True)

  def state(params, grads):
    transform = made(name)
    updates, moments = transform.update(grads, transform.init(params), params)
    params = optax.apply_updates(params, updates)
    return State(jnp.int32(1), params, moments, jax.random.key(0))

  saved = jax.jit(state)(start, grads)
  with Keeper(tmp_path) as keeper:
    keeper.save(1, saved, {})
  with Keeper(tmp_path) as keeper:
    found, _ = keeper.restore(jax.eval_shape(state, start, grads))
  assert jax.tree.structure(found) == jax.tree.structure(saved)
  for x, y in zip(
    jax.tree.leaves(found.moments), jax.tree.leaves(saved.moments), strict=True
  ):
    np.testing.assert_array_equal(x, y)
