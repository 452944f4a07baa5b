"""One device = eight devices: every axis of a mesh, two mixed ones, every kind of hook.

Training and decoding of a decoder and of an encoder-decoder. Numbers differ in their
last digits, since sums over devices add in another order; decoded tokens are equal.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_parameters
from test_training import close

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import ConfigError, resolve, validate
from transformer_jax.attention.cores import cores
from transformer_jax.evaluation.decode import Writer, greedy, later
from transformer_jax.mesh_shape import AXES
from transformer_jax.positions import positions
from transformer_jax.positions.base import HOOKS
from transformer_jax.training import dispatch, sharding

MESHES = {
  "data": {"data": 8},
  "fsdp": {"fsdp": 8},
  "tensor": {"tensor": 8},
  "sequence": {"sequence": 8},
  "seed": {"seed": 8},
  "data, fsdp, tensor": {"data": 2, "fsdp": 2, "tensor": 2},
  "seed, fsdp, sequence": {"seed": 2, "fsdp": 2, "sequence": 2},
}
# Encodings that use every kind of hook.
ENCODINGS = {
  "randomized(rope_yarn, max_positions=64)": [
    *("assign_positions", "rotate", "temperature"),
  ],
  "learned": ["embed"],
  "forgetting": ["token_data", "accumulate"],
  "pope": ["transform_qk"],
  "t5": ["bias"],
  "alibi(both_ways='two_sided')": ["mask"],
  "deberta": ["borrow", "prepare", "score"],
  "shaw": ["values"],
  "cope": ["full_scores"],
}
CAUSAL = ("cope",)  # has no form that looks both ways
TASKS = {"decoder": "copy(symbols=12)", "encoder_decoder": "pairs(copy(symbols=12))"}
SIZES = {
  "train.length": 7,  # 16 tokens, and 8 on each side of pairs
  "train.batch_size": 8,
  "train.optimizer": "adamw(lr=1e-2)",
  "model.width": 16,
  "model.heads": 8,
  "model.feedforward": 16,
  "model.layers": 1,
}
SEEDS = tuple(range(8))
STEPS = 6  # decoded tokens
QUICK = (("t5", "encoder_decoder", "data, fsdp, tensor"),)
QUICK += (("pope", "decoder", "seed, fsdp, sequence"),)
CASES = [
  pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
  for case in itertools.product(ENCODINGS, TASKS, MESHES)
  if not (case[0] in CAUSAL and case[1] == "encoder_decoder")
]


def config(encoding, kind, **sizes):
  model = {"model.position": encoding, "model.kind": kind, "task": TASKS[kind]}
  shape = {f"mesh.{axis}": size for axis, size in sizes.items()}
  config = resolve(base.get_config(), SIZES | model | shape | {"seeds": SEEDS})
  ring = cores.build("ring").refusal(positions.build(encoding)) is None
  config.model.core = "ring" if "sequence" in sizes and ring else "dense"
  validate(config, devices=8)
  return config


@functools.lru_cache(maxsize=2)
def trained(encoding, kind, *shape):
  """Returns metrics and parameters by seed, after two steps from random parameters."""
  trainer, mesh = build(config(encoding, kind)).trainer, sharding.make_mesh()
  if shape:
    trainer = build(config(encoding, kind, **dict(shape))).trainer
    mesh = sharding.make_mesh(**dict(shape))
  seeds = SEEDS[: max(2, mesh.shape["seed"])] if shape else SEEDS
  program = dispatch.compile_steps(trainer, seeds, (), mesh, 2)
  state = program.init()
  params = placed(stacked(trainer, seeds), state.params)
  state, metrics = program((), dataclasses.replace(state, params=params))
  return jax.device_get(metrics), jax.device_get(state.params)


def stacked(trainer, seeds):
  """Returns random parameters, those of each seed other ones."""
  one = random_parameters.normal(trainer.shapes.params, 0.3)
  return jax.tree.map(lambda x: np.stack([x * 1.1**n for n in seeds]), one)


def placed(tree, like):
  """Puts arrays on the devices of others, in memory of their own."""
  return jax.tree.map(lambda x, y: jax.device_put(x, y.sharding), tree, like)


@functools.lru_cache(maxsize=2)
def decoded(encoding, kind, *shape):
  """Returns logits and tokens by text, decoded through the cache with one seed.

  Logits are those after the prompt and after each of some random tokens; tokens those
  of greedy decoding.
  """
  mesh = sharding.make_mesh(**dict(shape))
  trainer = build(config(encoding, kind, **dict(shape))).trainer
  params = random_parameters.normal(trainer.shapes.params, 0.3)
  params = jax.device_put(params, sharding.split(mesh, params))
  rows_BL, next_BL = np.random.default_rng(0).integers(4, 16, (2, 8, 8))
  prompt_BL = rows_BL if kind == "decoder" else rows_BL[:, :1]
  rows_BL, prompt_BL = (sharding.place_rows(mesh, x) for x in (rows_BL, prompt_BL))

  @jax.jit
  def write(params, rows_BL, prompt_BL):
    model, memory = trainer.model, None
    if kind == "encoder_decoder":
      memory = model.apply({"params": params}, rows_BL, method="encode")
    writer = Writer(model, params, memory)
    first_BV, at, cache = writer.start(prompt_BL, None, STEPS)

    def read(carry, token_B):
      logits_BV, cache = writer.next(token_B, *carry)
      return (later(carry[0], 1), cache), logits_BV

    _, others_NBV = jax.lax.scan(read, (at, cache), next_BL.T[:STEPS])
    tokens = greedy(model, params, prompt_BL, STEPS, memory=memory)
    return jnp.concatenate([first_BV[None], others_NBV]), tokens

  with jax.set_mesh(mesh):
    return jax.device_get(write(params, rows_BL, prompt_BL))


@pytest.mark.parametrize(("encoding", "kind", "mesh"), CASES)
def test_eight_devices_train_as_one(encoding, kind, mesh):
  want = trained(encoding, kind)
  got = trained(encoding, kind, *MESHES[mesh].items())
  seeds = len(got[0]["loss"])
  want = jax.tree.map(lambda x: x[:seeds], want)
  assert np.all(np.isfinite(want[0]["loss"]))
  close(got, want)


@pytest.mark.parametrize(("encoding", "kind", "mesh"), CASES)
def test_eight_devices_decode_as_one(encoding, kind, mesh):
  want = decoded(encoding, kind)
  got = decoded(encoding, kind, *MESHES[mesh].items())
  assert np.std(want[0], axis=(0, 1)).min() > 0.1, "logits depend on the text"
  close(got[0], want[0])
  np.testing.assert_array_equal(got[1], want[1])


def test_every_axis_and_every_hook_has_its_case():
  used = {axis for mesh in MESHES.values() for axis in mesh}
  assert used == set(AXES)
  assert {hook for hooks in ENCODINGS.values() for hook in hooks} == set(HOOKS)
  for name, hooks in ENCODINGS.items():
    forms = [positions.build(name)]
    forms += [] if name in CAUSAL else [forms[0].bidirectional()]
    assert all(any(form.overrides(hook) for form in forms) for hook in hooks), name
  for name in CAUSAL:
    with pytest.raises(ConfigError, match=f"{name} in encoder attention"):
      build(config(name, "encoder_decoder"))
