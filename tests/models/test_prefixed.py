"""A prompt that is seen whole: who sees whom, and that it trains."""

import jax
import numpy as np
import pytest

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import resolve
from transformer_jax.attention.variants.bound_variant import visible
from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import SEPARATOR
from transformer_jax.spec import SpecError


@pytest.mark.parametrize("mode", ["batch", "score"])
def test_every_token_sees_the_prompt_and_else_only_the_past(mode):
  task, key = tasks.build("prefixed(copy)"), jax.random.key(0)

  @jax.jit
  def drawn(key):
    if mode == "batch":
      batch = task.batch((), key, 4, 5)
    else:
      batch = task.score((), key, 4, 3, 5)
    return batch, visible(batch.at, batch.at)

  batch, mask_BLM = jax.device_get(drawn(key))
  for row, input_L in enumerate(np.asarray(batch.input_BL)):
    start = np.flatnonzero(np.asarray(batch.at.order_BL)[row] == 0)[0]
    separator = np.flatnonzero(input_L == SEPARATOR)[0]
    L = len(input_L)
    for i in range(start, L):
      expected = [start <= j <= max(i, separator) for j in range(L)]
      np.testing.assert_array_equal(mask_BLM[row, i], expected)


def test_a_prefix_decoder_and_an_encoder_train_and_are_scored():
  small = {"train.length": 4, "train.batch_size": 4, "seeds": (0,), "model.layers": 1}
  for kind, task in (("prefix_decoder", "prefixed(copy)"), ("encoder", "blanks(copy)")):
    config = resolve(base.get_config(), small | {"task": task, "model.kind": kind})
    experiment = build(config)
    trainer, evaluator = experiment.trainer, experiment.evaluator
    state = trainer.shapes
    step = lambda state, trainer=trainer: trainer.steps((), state, 2)
    assert jax.eval_shape(step, state)[1]["loss"].shape == (2,)
    stack = lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype)
    evaluator.check(jax.tree.map(stack, state.params), (), (4, 8))


def test_a_task_without_a_prompt_is_refused():
  with pytest.raises(SpecError, match="write prefixed"):
    tasks.build('prefixed(text(source="stdlib"))')
