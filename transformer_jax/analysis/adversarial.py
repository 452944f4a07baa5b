"""Adversarial attention: weights far from those of a model, with the same output.

Jain and Wallace, 2019, section 4.2.2. https://arxiv.org/abs/1902.10186

  maximize   JSD(weights, other weights)    where   TVD(output, other output) <= epsilon

Theirs are found by Adam on logits of the weights, with a penalty on what the output
moves above epsilon; so are these, for each text on its own. What is found is a lower
bound: weights that are farther away may exist.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from transformer_jax.analysis.explanation import Explained, shift, total_variation

Predict = Callable[[jax.Array], jax.Array]  # from weights_BHLM to probability_BV


@dataclasses.dataclass(frozen=True)
class Search:
  """Search for adversarial weights.

  epsilon   the most that the output may move: total variation distance
  steps     updates of Adam from each start
  starts    random starts; the best of all counts
  rate      learning rate
  penalty   factor on what the output moves above epsilon
  spread    standard deviation of the logits at a start

  >>> Search().epsilon
  0.01
  """

  epsilon: float = 0.01
  steps: int = 300
  starts: int = 2
  rate: float = 0.1
  penalty: float = 50.0
  spread: float = 3.0

  def __post_init__(self):
    if not 0 < self.epsilon < 1:
      raise ValueError(f"epsilon={self.epsilon}: write a number between 0 and 1")
    for name in ("steps", "starts"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name}={getattr(self, name)}: write 1 or more")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adversarial:
  """The farthest weights that were found for each text.

  weights_BHLM   those of the model where none was found
  shift_B        their divergence from those of the model; 0 where none was found

  >>> found = Adversarial(jnp.ones((1, 1, 1, 1)), jnp.zeros(1))
  >>> found.shift_B.shape
  (1,)
  """

  weights_BHLM: jax.Array
  shift_B: jax.Array

  def better(self, other: "Adversarial", allowed_B: jax.Array) -> "Adversarial":
    """Returns for each text the other weights, where allowed and farther away."""
    better_B = allowed_B & (other.shift_B > self.shift_B)
    return Adversarial(
      jnp.where(better_B[:, None, None, None], other.weights_BHLM, self.weights_BHLM),
      jnp.where(better_B, other.shift_B, self.shift_B),
    )


def search(
  predict: Predict, of: Explained, key: jax.Array, how: Search = Search()
) -> Adversarial:
  """Returns the farthest weights found, whose output stays within epsilon.

  predict   from weights_BHLM to probability_BV
  of        output and weights of the model
  key       of the starts
  how       the search
  """
  best = Adversarial(of.weights_BHLM, jnp.zeros(len(of.weights_BHLM)))
  for one in jax.random.split(key, how.starts):
    best = _from_start(predict, of, one, how, best)
  return best


def _from_start(
  predict: Predict, of: Explained, key: jax.Array, how: Search, best: Adversarial
) -> Adversarial:
  """Returns the best of the weights so far and of those on the way from one start."""
  adam = optax.adam(how.rate)

  def weights(logits_BHLM):
    masked_BHLM = jnp.where(of.key_BHLM, logits_BHLM, -jnp.inf)
    masked_BHLM = jnp.where(of.key_BHLM.any(-1, keepdims=True), masked_BHLM, 0.0)
    share_BHLM = jnp.where(of.key_BHLM, jax.nn.softmax(masked_BHLM), 0.0)
    return of.mass_BHL1 * share_BHLM

  def loss(logits_BHLM):
    other_BHLM = weights(logits_BHLM)
    moved_B = total_variation(of.probability_BV, predict(other_BHLM))
    apart = Adversarial(other_BHLM, shift(of, other_BHLM))
    above_B = jnp.maximum(moved_B - how.epsilon, 0.0)
    return jnp.sum(how.penalty * above_B - apart.shift_B), (apart, moved_B)

  def step(carry, _):
    logits_BHLM, state, best = carry
    grads, (apart, moved_B) = jax.grad(loss, has_aux=True)(logits_BHLM)
    best = best.better(apart, moved_B <= how.epsilon)
    updates, state = adam.update(grads, state)
    return (optax.apply_updates(logits_BHLM, updates), state, best), None

  start_BHLM = how.spread * jax.random.normal(key, of.weights_BHLM.shape)
  carry = start_BHLM, adam.init(start_BHLM), best
  return jax.lax.scan(step, carry, length=how.steps)[0][2]
