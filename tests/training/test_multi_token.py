"""Multi-token prediction: against NumPy, in parts, in packed texts, in evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.axes import Dims
from transformer_jax.data.base import Batch, tasks
from transformer_jax.models import Architecture, Transformer
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError
from transformer_jax.training.auxiliary import TrainingPass, auxiliary_losses
from transformer_jax.training.auxiliary.multi_token import later
from transformer_jax.training.auxiliary.training_pass import Hidden
from transformer_jax.training.optimizers import build
from transformer_jax.training.step import Trainer

B, L, D, V = 2, 7, 4, 6


def oracle(x_BLD, output_VD, future_NDD, target_BL, weight_BL, segment_BL):
  """Returns the loss place by place, as the docstring says it."""
  total = 0.0
  for b in range(B):
    for t in range(L):
      for n, future_DD in enumerate(future_NDD):
        then = t + n + 1
        if then >= L or segment_BL[b, then] != segment_BL[b, t]:
          continue
        if not weight_BL[b, then]:
          continue
        logits_V = output_VD @ (x_BLD[b, t] + x_BLD[b, t] @ future_DD)
        log_V = logits_V - np.log(np.sum(np.exp(logits_V)))
        total -= weight_BL[b, t] * log_V[target_BL[b, then]]
  return total / weight_BL.sum()


@pytest.mark.parametrize("chunks", [1, 3])
def test_the_loss_is_the_oracle_s_and_so_are_its_gradients(chunks):
  rng = np.random.default_rng(0)
  x_BLD, output_VD = rng.normal(size=(B, L, D)), rng.normal(size=(V, D))
  future_NDD = rng.normal(size=(2, D, D))
  target_BL = rng.integers(V, size=(B, L))
  weight_BL = np.array([[0, 1, 1, 1, 1, 1, 1], [1, 1, 0.5, 1, 0, 1, 1]])
  segment_BL = np.array([[1] * 7, [1, 1, 1, 2, 2, 2, 2]])
  at = coords.packed(jnp.asarray(segment_BL))
  batch = Batch(target_BL, target_BL, weight_BL.astype(np.float32), at)
  loss = auxiliary_losses.build("multi_token(tokens=3)")

  def value(x_BLD, output_VD, future_NDD):
    captured = {"hidden": {"output": Hidden(x_BLD, output_VD, chunks)}}
    counts, own = {"targets": weight_BL.sum()}, {"future_NDD": future_NDD}
    return loss.loss(TrainingPass(captured, batch, counts, own))

  given = [x.astype(np.float32) for x in (x_BLD, output_VD, future_NDD)]
  got, grads = evaluate(jax.value_and_grad(value, argnums=(0, 1, 2)), *given)
  exact = [x_BLD, output_VD, future_NDD]
  fixed = target_BL, weight_BL, segment_BL
  np.testing.assert_allclose(got, oracle(*exact, *fixed), rtol=1e-5)
  for n, grad in enumerate(grads):
    some = rng.normal(size=grad.shape)
    moved = [[*exact], [*exact]]
    moved[0][n], moved[1][n] = exact[n] + 1e-5 * some, exact[n] - 1e-5 * some
    slope = (oracle(*moved[0], *fixed) - oracle(*moved[1], *fixed)) / 2e-5
    np.testing.assert_allclose(np.sum(grad * some), slope, rtol=1e-4, atol=1e-5)


def test_later_targets_end_with_the_text():
  target_BL = jnp.arange(L)[None]
  at = coords.packed(jnp.array([[1, 1, 1, 2, 2, 2, 2]]))
  batch = Batch(target_BL, target_BL, jnp.ones((1, L)), at)
  then_BL, weight_BL = evaluate(lambda: later(batch, 2))
  np.testing.assert_array_equal(weight_BL, [[1, 0, 0, 1, 1, 0, 0]])
  np.testing.assert_array_equal(np.asarray(then_BL)[weight_BL > 0], [2, 5, 6])


def trainer(**changes):
  task = tasks.build("copy(symbols=5)")
  arch = Architecture(
    Dims(V=task.vocabulary, D=8, H=2, F=8, L=16), position="rope", decoders=1
  )
  optimizer, rate = build("sgd(lr=0.1)", "constant", 0.0, 4, 8)
  settings = {"batch_size": 4, "length": 5, "auxiliary": ("multi_token(tokens=3)",)}
  return Trainer(Transformer(arch), task, optimizer, rate, **settings | changes)


def test_heads_are_trained_and_left_out_of_what_is_scored():
  one = trainer(ema=0.9)
  state = jax.jit(one.init)(0)
  batch = evaluate(lambda state: one.batch((), state), state)
  after, metrics = jax.jit(one.step)(state, batch)
  assert np.any(after.params["auxiliary"]["multi_token"]["future_NDD"])
  assert after.eval_params.keys() == state.params.keys() - {"auxiliary"}
  assert metrics["auxiliary/multi_token(tokens=3)"] > 0
  plain = trainer(auxiliary=())
  same = jax.tree.map(np.array_equal, jax.jit(plain.init)(0).params, state.eval_params)
  assert all(jax.tree.leaves(same))
  in_parts = dataclasses.replace(one, accumulate=2)
  for x, y in zip(
    jax.tree.leaves(jax.jit(in_parts.step)(state, batch)[0].params),
    jax.tree.leaves(after.params),
    strict=True,
  ):
    np.testing.assert_allclose(x, y, atol=1e-6)


def test_what_cannot_be_is_one_sentence():
  with pytest.raises(
    SpecError, match="tokens is 1; the next token is predicted anyway"
  ):
    auxiliary_losses.build("multi_token(tokens=1)")
  task = tasks.build("blanks(copy)")
  arch = Architecture(Dims(V=20, D=8, H=2, F=8, L=16), position="rope", encoders=1)
  with pytest.raises(
    SpecError, match="predicts later tokens, which an encoder has read"
  ):
    dataclasses.replace(trainer(), model=Transformer(arch), task=task)
