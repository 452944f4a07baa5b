"""Small classifiers of texts for the tests of fine-tuning: configs and first states."""

import jax
import jax.numpy as jnp
import pytest

from experiments.configs import base
from experiments.setup.validate import ConfigError, resolve
from transformer_jax.training.dispatch import Program

TINY = {
  "seeds": (0, 1), "model.kind": "encoder", "model.width": 16, "model.layers": 1,
  "model.heads": 2, "model.feedforward": 32, "model.position": "learned(32)",
  "model.core": "dense", "train.length": 12, "train.batch_size": 16, "train.steps": 60,
  "train.steps_per_dispatch": 60, "train.checkpoint_every": 60,
  "train.optimizer": "adamw(lr=1e-2)", "train.schedule": "constant",
  "evaluate.lengths": (1,), "evaluate.examples": 16, "evaluate.batch_size": 16,
}  # fmt: skip
# What the recorded BERT is, and a task over its 97 tokens.
BERT = TINY | {
  "model.width": 32, "model.layers": 2, "model.heads": 4, "model.feedforward": 48,
  "model.position": "learned(48)", "model.attention": "multihead(bias=True)",
  "model.norm_placement": "post", "model.norm": "layernorm(epsilon=1e-12)",
  "model.activation": "gelu(approximate=False)", "model.feedforward_bias": True,
  "model.embedding": "tokens(power=0, types=2, norm='layernorm(epsilon=1e-12)')",
}  # fmt: skip


def config(texts, changes=TINY, fields="", **more):
  task = f"classification({str(texts)!r}, classes=2{fields})"
  flat = {key.replace("__", "."): value for key, value in more.items()}
  return resolve(base.get_config(), {"task": task, **changes, **flat})


def refusal(action, kind=ConfigError):
  with pytest.raises(kind) as caught:
    action()
  return str(caught.value)


def first_state(built):
  """Returns what trains nothing: a program whose first state is the model's own."""
  return Program(None, lambda: own_state(built), None, 0.0, 0)


def own_state(built):
  """Returns what seeds start from by themselves, compiled quickly."""
  seed_S = jnp.array(built.seeds, jnp.uint32)
  return jax.jit(jax.vmap(built.trainer.init))(seed_S)
