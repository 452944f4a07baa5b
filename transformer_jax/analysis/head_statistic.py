"""Statistics of the heads of a layer, one number for each text; their registry."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from transformer_jax.analysis.head_batch import HeadBatch
from transformer_jax.spec import Registry


class HeadStatistic:
  """Base class of statistics of heads. Subclasses are frozen dataclasses.

  bounds    least and largest value; None: there is none
  role      name of a head with a high value, as in "previous-token"; "": it has none
  needs     what it reads beside weights: "tokens", "delimiters", "counts" of tokens,
            other "texts"; where an input lacks it, the statistic is left out

  A subclass with a role has a field `threshold`, the mean over texts above which a head
  has that role.

  >>> statistic = head_statistics.build("previous(threshold=0.4)")
  >>> statistic.role, statistic.bounds
  ('previous-token', (0.0, 1.0))
  """

  bounds: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
  role: ClassVar[str] = ""
  needs: ClassVar[frozenset[str]] = frozenset()

  def score(self, layer: HeadBatch) -> jax.Array:
    """Returns a number for each text and head, [B, H]; NaN: a text has none."""
    raise NotImplementedError


head_statistics = Registry("head statistic", HeadStatistic)


def distance_BLM(layer: HeadBatch) -> jax.Array:
  """Returns the ranks of queries minus those of keys."""
  return layer.query_BL[:, :, None] - layer.key_BM[:, None, :]


@head_statistics.register("distance")
@dataclasses.dataclass(frozen=True)
class MeanDistance(HeadStatistic):
  """Mean distance in tokens between a query and the keys it attends to.

  Vig and Belinkov, 2019, section 4.4. https://arxiv.org/abs/1906.04284
  In cross-attention: of their ranks in target and source.

  >>> MeanDistance().bounds
  (0.0, None)
  """

  bounds: ClassVar[tuple[float | None, float | None]] = (0.0, None)

  def score(self, layer):
    far_BLM = jnp.abs(distance_BLM(layer))
    size_BHLM = jnp.abs(layer.weight_BHLM)
    return layer.mean(jnp.sum(size_BHLM * far_BLM[:, None], axis=-1))


@head_statistics.register("entropy")
@dataclasses.dataclass(frozen=True)
class Entropy(HeadStatistic):
  """Entropy of the weights of a query, in nats: 0 on one key, log n on n keys alike.

  Clark et al., 2019, section 3.3. https://arxiv.org/abs/1906.04341

  >>> Entropy().bounds
  (0.0, None)
  """

  bounds: ClassVar[tuple[float | None, float | None]] = (0.0, None)

  def score(self, layer):
    size_BHLM = jnp.abs(layer.weight_BHLM)
    return layer.mean(-jnp.sum(xlogy(size_BHLM, size_BHLM), axis=-1))


@head_statistics.register("confidence")
@dataclasses.dataclass(frozen=True)
class Confidence(HeadStatistic):
  """Largest weight of a query.

  Voita et al., 2019, section 4. https://arxiv.org/abs/1905.09418

  >>> Confidence().bounds
  (0.0, 1.0)
  """

  def score(self, layer):
    return layer.mean(jnp.max(jnp.abs(layer.weight_BHLM), axis=-1))


@head_statistics.register("positional")
@dataclasses.dataclass(frozen=True)
class Positional(HeadStatistic):
  """Share of weight that is the same whatever the text: content-free attention.

  The overlap of a query's weights with the mean weights that queries of its rank have
  in the other rows of the batch, sum of min(w, mean w). It is 1 of a head that reads
  positions alone, one that attends evenly included, and falls to 0 with content. Larger
  batches are closer to all texts. Clark et al., 2019, section 3.1, look at such heads.

  >>> sorted(Positional().needs)
  ['texts']
  """

  needs: ClassVar[frozenset[str]] = frozenset({"texts"})

  def score(self, layer):
    # Weights by rank, so that padding and packing change nothing.
    size_BHLM = jnp.abs(layer.weight_BHLM)
    B = len(size_BHLM)
    q_BL = jnp.broadcast_to(layer.query_BL, (B, layer.query_BL.shape[1]))
    k_BM = jnp.broadcast_to(layer.key_BM, (B, layer.key_BM.shape[1]))
    counts_BL = jnp.broadcast_to(layer.counts_BL, q_BL.shape)
    size_BHLM = jnp.where(counts_BL[:, None, :, None], size_BHLM, 0)
    own_BLMH, number_BL = jax.vmap(_by_rank)(size_BHLM, q_BL, k_BM, counts_BL)
    others_BLMH = jnp.sum(own_BLMH, axis=0) - own_BLMH
    others_BL = jnp.sum(number_BL, axis=0) - number_BL
    mean_BLMH = others_BLMH / jnp.maximum(others_BL, 1)[..., None, None]
    mean_BHLM = jax.vmap(_at_rank)(mean_BLMH, q_BL, k_BM)
    mean_BHLM = jnp.where(layer.visible_BLM[:, None], mean_BHLM, 0)
    known_BL = jnp.take_along_axis(others_BL, jnp.maximum(q_BL, 0), axis=1) > 0
    return layer.mean(jnp.sum(jnp.minimum(size_BHLM, mean_BHLM), axis=-1), known_BL)


def _by_rank(size_HLM, q_L, k_M, counts_L):
  """Returns sums of weights by ranks of query and key, and numbers of queries."""
  ranks = jnp.maximum(q_L[:, None], 0), jnp.maximum(k_M, 0)
  size_LMH = jnp.moveaxis(size_HLM, 0, -1)
  return (
    jnp.zeros_like(size_LMH).at[ranks].add(size_LMH),
    jnp.zeros(q_L.shape).at[jnp.maximum(q_L, 0)].add(counts_L * 1.0),
  )


def _at_rank(mean_LMH, q_L, k_M):
  mean_LMH = mean_LMH[jnp.maximum(q_L[:, None], 0), jnp.maximum(k_M, 0)]
  return jnp.moveaxis(mean_LMH, -1, 0)
