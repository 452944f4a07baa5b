"""Logits that are not numbers have no accuracy: the score is undefined, for a reason.

Reported: tables that were read past their end made logits NaN, of which `argmax` is 0,
and the accuracy was 0.0, or that of always saying the first token.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_parameters

import transformer_jax.data  # noqa: F401, fills the registry of tasks
from experiments.runner.result import result_of
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.data.base import tasks
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.models import Architecture, Transformer
from transformer_jax.positions import coords, positions
from transformer_jax.training.loop import FitResult

TASK = "addition(reversed=True, reversed_operands=True)"
WHY = "logits of 4 of 4 examples are not numbers"


@functools.cache
def scored():
  """Scores two seeds, the second of which holds a NaN, at a length past the table."""
  task, encoding = (
    tasks.build(TASK),
    positions.build("abacus(max_positions=12, max_offset=2)"),
  )
  dims = Dims(V=task.vocabulary, D=8, H=2, F=8, L=task.tokens(4))
  core = cores.build("dense")
  model = Transformer(Architecture(dims, encoding, core, decoders=1))
  token_BL = jnp.zeros((1, task.tokens(4)), jnp.int32)
  at = coords.consecutive(*token_BL.shape)
  at = at.replace(data={name: token_BL for name in encoding.ids})
  shapes = jax.eval_shape(model.init, jax.random.key(0), token_BL, at)["params"]
  params = jax.tree.map(jnp.asarray, random_parameters.normal(shapes))
  lost = params | {"embedding_VD": params["embedding_VD"].at[0].set(jnp.nan)}
  both = jax.tree.map(lambda *x: jnp.stack(x), params, lost)
  evaluator = Evaluator(model, task, 4, 4)
  return evaluator, evaluator.run(both, (), (4, 16))


def test_a_score_of_no_numbers_is_undefined():
  evaluator, rows = scored()
  assert evaluator.undefined(16) is None  # no reach that is known beforehand
  for row in rows:
    defined = row["seed"] == 0 and row["length"] == 4
    assert ("reason" in row) != defined, row
    assert row.get("reason", WHY) == WHY
    assert np.isfinite(row["value"]) if defined else row["value"] is None


@pytest.mark.parametrize("lost", [{}, {1: 7}])
def test_the_result_says_so_by_length_and_seed(lost):
  evaluator, rows = scored()
  trainer = types.SimpleNamespace(length=4)
  experiment = types.SimpleNamespace(
    evaluator=evaluator, trainer=trainer, task=evaluator.task, seeds=(3, 5)
  )
  experiment.lengths = (4, 16)
  fitted = FitResult(None, 9, lost, finished=True)
  result = result_of(experiment, fitted, rows, {})
  if lost:  # what diverged has a reason of its own
    assert result["undefined"] == {"16": WHY}
    reasons = {r["reason"] for r in result["scores"] if r["seed"] == 5}
    assert reasons == {"diverged at step 7"}
  else:
    assert result["undefined"] == {"4": f"seed 5: {WHY}", "16": WHY}
