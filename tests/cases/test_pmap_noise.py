"""Random numbers of `pmap`: dropout and positions.

Reported: every device dropped the same units of its rows and placed them alike. Right:
what one device draws for a row is drawn for it anywhere, so the losses are equal.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import resolve
from transformer_jax.training.pmap import pmap_step, replicate

SMALL = {
  "task": "copy(symbols=8)",
  "train.length": 6,
  "train.batch_size": 8,
  "model.width": 16,
  "model.heads": 2,
  "model.feedforward": 16,
  "model.layers": 1,
}


@pytest.mark.parametrize(
  "more",
  [
    {
      "model.dropout": 0.5,
      "model.attention_dropout": 0.5,
      "model.position": "shape(cape(sinusoidal), max_shift=50)",
    },
    {"model.position": "randomized(rope, max_positions=64)"},
    {"task": "addition", "model.position": "abacus(coupled)"},
    {
      "model.family": "recurrent",
      "model.position": "none",
      "model.dropout": 0.5,
      "model.layers": 2,
      "model.feedforward": 256,
    },
  ],
)
def test_devices_draw_what_one_device_draws(more):
  trainer = build(resolve(base.get_config(), SMALL | more)).trainer
  state = jax.jit(trainer.init)(jnp.uint32(0))
  batch = jax.jit(lambda state: trainer.batch((), state))(state)
  _, one = jax.jit(trainer.step)(state, batch)
  devices = jax.devices()[:4]
  _, four = pmap_step(trainer, devices)(replicate(state, devices), batch)
  for name in ("loss", "grad_norm"):
    np.testing.assert_allclose(four[name], np.full(4, one[name]), rtol=1e-5)
