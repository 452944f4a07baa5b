"""No two draws of random numbers have one key: in a start, in steps, between seeds.

Whatever is built of encodings, variants and wrappers: layers, parameters, dropout,
positions and batches each draw numbers of their own. What the devices of `pmap` draw is
in cases/test_pmap_noise.py.
"""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import pytest
from random_keys import drawn
from test_attentions import SPECS as VARIANTS
from test_positions import with_ids

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import resolve
from transformer_jax.attention import attentions
from transformer_jax.axes import Dims
from transformer_jax.data.base import Batch, tasks
from transformer_jax.models.parameters import Parameters
from transformer_jax.positions import coords, positions

SMALL = {
  "task": "copy(symbols=8)",
  "train.length": 4,
  "train.batch_size": 2,
  "model.width": 32,
  "model.heads": 4,
  "model.feedforward": 8,
  "model.layers": 2,
  "model.dropout": 0.1,
  "model.attention_dropout": 0.1,
  "model.core": "dense",
}
WRAPPED = [
  "randomized(log_n(rope))",
  "shape(cape(randomized(sinusoidal)))",
  "abacus(coupled(learned(max_positions=300)))",
  "coupled(shape(fire, max_shift=9))",
  "cape(drope(by_layer((kerple_log, forgetting))))",
  "randomized(every(2, path(forget=True), dape(kerple_log(exponent=True))))",
  "tupe(plus=t5, untie=True)",
  "cape(across(cpb(depth=2)))",
]
# One draw that two parameters are made of.
SHARED = {"mixed_rope": 1}
# A pattern that is drawn alike in every layer and step, and never trained.
PATTERNS = ("bigbird",)
QUICK = ("mixed_rope",), ("multiplicative", "bigbird")


def trainer(position="rope", attention="multihead", **more):
  """Returns a trainer of a small model; what its task does not suit is not checked."""
  made = build(resolve(base.get_config(), SMALL | more)).trainer
  arch = dataclasses.replace(
    made.model.arch,
    position=positions.build(position),
    attention=attentions.build(attention),
  )
  return dataclasses.replace(made, model=made.model.clone(arch=arch))


def keys_of(made):
  """Returns the keys of a start and of two steps, of two seeds."""
  found = []
  for seed in (0, 1):
    found += drawn(made.init, jnp.uint32(seed))
    state = made.shapes
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state.params)
    tokens = made.task.tokens(made.length) - 1
    token_BL = jnp.zeros((made.batch_size, tokens), jnp.int32)
    at = with_ids(coords.consecutive(1, tokens))
    batch = Batch(token_BL, token_BL, jnp.ones(token_BL.shape), at)
    for step in (0, 1):

      def one(step, key, state=state, params=params, batch=batch):
        now = dataclasses.replace(state, step=step, params=params, key=key)
        return made.batch((), now), made.loss(params, batch, now)[0]

      found += drawn(one, jnp.int32(step), jax.random.key(seed))
  return found


def repeated(keys):
  return sum(n - 1 for n in collections.Counter(keys).values())


def slow_but(names, quick):
  slow = lambda name: () if name in quick else pytest.mark.slow
  return [pytest.param(name, marks=slow(name)) for name in names]


@pytest.mark.parametrize(
  "position", slow_but([*positions, *WRAPPED], QUICK[0] + tuple(WRAPPED[1:2]))
)
def test_a_model_draws_from_no_key_twice(position):
  keys = keys_of(trainer(position))
  # Two seeds draw in a start, for dropout and for batches.
  assert len(keys) > 20
  assert repeated(keys) == 2 * 2 * SHARED.get(position, 0)


@pytest.mark.parametrize("attention", slow_but(VARIANTS, QUICK[1]))
def test_a_variant_draws_from_no_key_twice(attention):
  if attention in PATTERNS:
    made = attentions.build(attention)
    assert repeated(drawn(lambda key: made.init(key, trainer().model.arch.dims),
                          jax.random.key(0))) == 0  # fmt: skip
  else:
    assert repeated(keys_of(trainer("none", attention))) == 0


@pytest.mark.parametrize(
  "more",
  [
    pytest.param({"model.kind": "encoder_decoder", "task": "pairs(copy)"},
                 marks=pytest.mark.slow),
    pytest.param(
      {"model.family": "recurrent(link='luong')", "model.kind": "encoder_decoder",
       "task": "pairs(copy)", "model.position": "none", "model.attention_dropout": 0.0,
       "model.feedforward": 256}, marks=pytest.mark.slow),
    {"model.scan": True, "model.position": "deberta"},
  ],
)  # fmt: skip
def test_other_models_draw_from_no_key_twice(more):
  made = build(resolve(base.get_config(), SMALL | more)).trainer
  found, state = [], made.shapes
  params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state.params)
  for seed in (0, 1):

    def one(seed, params=params, state=state):
      key = jax.random.key(seed)
      now = dataclasses.replace(state, step=jnp.int32(0), params=params, key=key)
      return made.init(seed).params, made.loss(params, made.batch((), now), now)

    found += drawn(one, jnp.uint32(seed))
  assert len(found) > 20 and repeated(found) == 0


WITHOUT_TEXT = [name for name in tasks if ".algorithmic." in tasks[name].__module__]
OF_TEXT = ("tagging", "classification")


@pytest.mark.parametrize(
  "task",
  [
    pytest.param("algorithmic", marks=pytest.mark.slow),
    *("mqar", "flip_flop", "solve_equation", "scan"),
    *("blanks(copy)", "pairs(sort)"),
  ],
)
def test_a_batch_draws_from_no_key_twice(task):
  names = sorted({*WITHOUT_TEXT} - {*OF_TEXT}) if task == "algorithmic" else [task]
  for name in names:
    made = tasks.build(name)
    keys = drawn(lambda key, made=made: made.batch((), key, 3, 6), jax.random.key(0))
    assert keys and repeated(keys) == 0, name


def test_the_parts_of_a_sum_start_with_different_numbers():
  dims = Dims(V=4, D=8, H=2, F=4, L=4)
  both = attentions.build("additive + sinks")
  one = attentions.build("sinks").init(jax.random.key(0), dims)["sink_H"]
  assert repeated(drawn(lambda key: both.init(key, dims), jax.random.key(0))) == 0
  assert not jnp.any(both.init(jax.random.key(0), dims)["sink_H"] == one)


def test_parameters_of_one_draw_start_together_and_others_apart():
  """The draws are read off the program of `init`, whoever wrote it."""

  def start(key, dims):
    first, second = jax.random.split(key)
    x_H, y_H = (jax.random.normal(key, (dims.H,)) for key in (first, second))
    return {"a_H": x_H, "b_H": -x_H, "c_H": y_H, "d_H": y_H + x_H, "e_H": 2 * y_H}

  class Own:
    def init(self, key, dims):
      return start(key, dims)

  dims = Dims(V=4, D=8, H=2, F=4, L=4)
  made = Parameters(Own().init, dims).init(jax.random.key(0))["params"]
  assert jnp.all(made["b_H"] == -made["a_H"])
  assert jnp.all(made["e_H"] == 2 * made["c_H"])
  assert jnp.allclose(made["d_H"], made["a_H"] + made["c_H"])
