"""The scale of attention scores: their variance, the weights, and the gradients.

Vaswani et al., 2017, section 3.2.1, footnote 4. https://arxiv.org/abs/1706.03762

  q . k = sum of d products of independent numbers with mean 0 and variance 1,
  so Var(q . k) = d, and Var(q . k / d^power) = d^(1 - 2 power)

Of scores with a small variance s2 the entropy of the weights is log M - s2 / 2.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from transformer_jax.data.base import Batch
from transformer_jax.models import capture
from transformer_jax.models.param_tree import flat
from transformer_jax.training.step import State, Trainer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScoreMeasures:
  """Scores and weights of attention, and what passes back through them.

  variance   of the scores that reach the softmax
  entropy    of the weights, as a part of that of equal weights: 0 to 1
  jacobian   norm of the derivatives of the weights by the scores, mean over queries
  gradient   norm of the gradient of a model's loss by all projections of queries and
             keys; NaN without a model

  >>> measured = of_scores(jnp.zeros((1, 2, 8)), jnp.ones((1, 2, 8), bool))
  >>> [round(float(x), 3) for x in (measured.variance, measured.entropy)]
  [0.0, 1.0]
  """

  variance: jax.Array
  entropy: jax.Array
  jacobian: jax.Array
  gradient: jax.Array | float = float("nan")


def derived_variance(width: int, power: float) -> float:
  """Returns the variance of q . k / d^power by the derivation.

  >>> derived_variance(64, 0.0), derived_variance(64, 0.5)
  (64.0, 1.0)
  """
  return float(width) ** (1 - 2 * power)


def of_gaussian(
  key: jax.Array, width: int, power: float, queries: int = 256, keys: int = 64
) -> ScoreMeasures:
  """Measures of scores of independent standard normal queries and keys.

  width     of a head, d
  power     scores are divided by d^power
  queries   number of queries, each with keys of its own
  keys      number of keys of each, M
  """
  of_query, of_keys = jax.random.split(key)
  q_LK = jax.random.normal(of_query, (queries, width))
  k_LMK = jax.random.normal(of_keys, (queries, keys, width))
  s_LM = jnp.einsum("lk,lmk->lm", q_LK, k_LMK) * width**-power
  return of_scores(s_LM, jnp.ones(s_LM.shape, bool))


def of_scores(s: jax.Array, mask: jax.Array) -> ScoreMeasures:
  """Measures of scores, [..., L, M], over all queries with more than one key.

  mask   bool, the keys that each query attends to
  """
  count = jnp.sum(mask, axis=-1)
  some = count > 1
  w = jax.nn.softmax(jnp.where(mask, s, -jnp.inf), axis=-1)
  entropy = -jnp.sum(jnp.where(w > 0, w * jnp.log(jnp.where(w > 0, w, 1.0)), 0.0), -1)
  part = entropy / jnp.log(jnp.where(some, count, 2))
  # The Jacobian diag(w) - w w^T has the squared norm sum w^2 - 2 sum w^3 + (sum w^2)^2.
  squares, cubes = jnp.sum(w**2, -1), jnp.sum(w**3, -1)
  norm = jnp.sqrt(jnp.maximum(squares - 2 * cubes + squares**2, 0.0))
  pairs = mask & some[..., None]
  return ScoreMeasures(
    variance=jnp.var(s, where=pairs),
    entropy=jnp.mean(part, where=some),
    jacobian=jnp.mean(norm, where=some),
  )


def of_model(trainer: Trainer, state: State, batch: Batch) -> ScoreMeasures:
  """Measures of all layers and heads of a model whose attention is a softmax.

  trainer   of the model and its loss
  state     of one seed
  batch     of its task
  """
  want = ("scores", "mask")
  _, found = capture.run(trainer.model, state.params, *batch.reads, want=want)
  s_NBHLM = jnp.stack([*found["scores"].values()])
  masks = [x if x.ndim == 4 else x[:, None] for x in found["mask"].values()]
  mask_NBHLM = jnp.broadcast_to(jnp.stack(masks), s_NBHLM.shape)
  grads = jax.grad(lambda params: trainer.loss(params, batch, state)[0])(state.params)
  norm = optax.tree.norm([x for path, x in flat(grads).items() if _of_scores(path)])
  return dataclasses.replace(of_scores(s_NBHLM, mask_NBHLM), gradient=norm)


def _of_scores(path: str) -> bool:
  """Returns whether a parameter is a projection of queries or keys."""
  return path.rpartition("/")[2] in ("query_DHK", "key_DGK", "key_DHK")
