"""entmax with a learned alpha near 1.

Reported: the weights left the softmax, and the gradient of alpha was noise, then NaN.
Right: weights tend to the softmax, and both gradients stay those of the formula, here
in float64, by halving and by differences.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted

from transformer_jax.attention import attentions

LOGITS = [-100.0, -40, -20, -17, -14, -12, -8, -4, -2, 0, 2, 20]
SIZES = [6, 700]


def example(n):
  random = np.random.default_rng(n)
  return 3 * random.normal(size=n).astype(np.float32), np.cos(np.arange(n))


def right(scores, logit):
  """Returns the weights in float64; `logit` is that of alpha - 1."""
  beta = 1 / (1 + np.exp(-np.float64(logit)))
  x = np.float64(scores) - scores.max()
  if beta < 1e-13:
    return np.exp(x) / np.exp(x).sum()

  def weigh(t):
    inside = beta * (x - t) > -1
    power = np.log1p(np.where(inside, beta * (x - t), 0)) / beta
    return np.where(inside, np.exp(power), 0)

  low, high = 0.0, np.log(len(x)) + 1
  for _ in range(200):
    middle = (low + high) / 2
    low, high = (middle, high) if weigh(middle).sum() >= 1 else (low, middle)
  return weigh(low) / weigh(low).sum()


@functools.cache
def program():
  variant = attentions.build("entmax(learned=True)")

  def loss(logit, scores, value):
    seen = jnp.ones((1, 1, 1, scores.size), bool)
    w = variant.weigh({"alpha_logit_H": logit[None]}, scores[None, None, None], seen)
    return jnp.sum(w * value), w[0, 0, 0]

  return interpreted(jax.value_and_grad(loss, (0, 1), has_aux=True))


@pytest.mark.parametrize("n", SIZES)
def test_weights_and_gradients_are_those_of_the_formula(n):
  scores, value = example(n)
  for logit in LOGITS:
    (_, w), (d_logit, d_scores) = program()(jnp.float32(logit), scores, value)
    np.testing.assert_allclose(w, right(scores, logit), rtol=2e-5, atol=1e-7)

    loss = lambda logit, scores=scores: right(scores, logit) @ value
    step = 1e-4
    want = (loss(logit + step) - loss(logit - step)) / (2 * step)
    np.testing.assert_allclose(d_logit, want, rtol=2e-3, atol=1e-8, err_msg=str(logit))

    best = np.argsort(-scores)[:3]
    for key in best:
      move = step * (np.arange(n) == key)
      scores64 = np.float64(scores)
      want = loss(logit, scores64 + move) - loss(logit, scores64 - move)
      np.testing.assert_allclose(d_scores[key], want / (2 * step), rtol=1e-3, atol=1e-5)


def test_it_ends_in_the_softmax():
  scores, value = example(6)
  (_, w), grads = program()(jnp.float32(-100), scores, value)
  np.testing.assert_allclose(w, jax.nn.softmax(scores), rtol=1e-5)
  slope = jax.grad(lambda s: jnp.sum(jax.nn.softmax(s) * value))
  want = interpreted(slope)(scores)
  np.testing.assert_allclose(grads[1], want, rtol=1e-4, atol=1e-7)
  assert grads[0] == 0 or abs(grads[0]) < 1e-30  # the logit has no way to go
