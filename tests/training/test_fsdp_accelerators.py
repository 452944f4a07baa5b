"""Accelerators gather the weights of every attention, mixer and feed-forward layer."""

import jax
import pytest

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import resolve
from transformer_jax import matmul, weight_gradients
from transformer_jax.attention import attentions
from transformer_jax.training import dispatch, sharding

SMALL = {"task": "copy(symbols=12)", "train.length": 6, "train.batch_size": 8}
SMALL |= {"model.width": 32, "model.heads": 4, "model.layers": 2}
SMALL |= {"model.feedforward": 64, "model.position": "none"}
OTHERS = [
  {"model.feedforward_kind": "experts(4, 2, shared=16)"},
  {"model.attention": "mla(latent=16, part=0, queries=16)"},
]
CASES = [{"model.attention": name} for name in attentions] + OTHERS


@pytest.mark.slow  # 2 s each
@pytest.mark.parametrize("overrides", CASES, ids=str)
def test_gradients_of_a_step_are_summed_into_parts(overrides, monkeypatch):
  """By reduce-scatters, of most matrices that `fsdp` splits."""
  for module in (matmul, weight_gradients):
    monkeypatch.setattr(module, "platform", lambda: "tpu")
  trainer = build(resolve(base.get_config(), SMALL | overrides)).trainer
  mesh = sharding.make_mesh(fsdp=4, data=2)
  lowered, _ = dispatch.lower_steps(trainer, 1, (), mesh, 1)
  shardings = jax.tree.leaves(sharding.split(mesh, trainer.shapes.params))
  split = [each for each in shardings if "fsdp" in each.spec]
  assert lowered.as_text().count("stablehlo.reduce_scatter") >= 0.6 * len(split)
