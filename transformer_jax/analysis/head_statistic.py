"""Statistics of the heads of a layer, one number for each text; their registry."""

import dataclasses
from typing import Any, ClassVar

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
  has that role. One that compares a text with all others, and needs "texts", has the
  methods `total` and `against`.

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

  def total(self, layer: HeadBatch) -> Any:
    """Returns sums over texts, a tree of arrays; those of all parts are added."""
    return ()

  def against(self, layer: HeadBatch, total: Any) -> jax.Array:
    """Returns what `score` does, of some texts, beside the `total` of all of them."""
    return self.score(layer)


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
  """Largest weight of a query, whichever key it is on.

  Voita et al., 2019, section 4, but that they leave out weights on the symbol at the
  end of a sentence: here a head that rests on a mark is as confident as another.
  https://arxiv.org/abs/1905.09418

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
  in all other texts, sum of min(w, mean w). It is 1 of a head that reads positions
  alone, one that attends evenly included, and falls to 0 with content.
  Clark et al., 2019, section 3.1, look at such heads. https://arxiv.org/abs/1906.04341

  >>> sorted(Positional().needs)
  ['texts']
  """

  needs: ClassVar[frozenset[str]] = frozenset({"texts"})

  def score(self, layer):
    return self.against(layer, self.total(layer))

  def total(self, layer):
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), _by_rank(_whole(layer)))

  def against(self, layer, total):
    layer = _whole(layer)
    q_BL, k_BM = layer.query_BL, layer.key_BM
    others_BLMH, others_BL = jax.tree.map(jnp.subtract, total, _by_rank(layer))
    mean_BLMH = others_BLMH / jnp.maximum(others_BL, 1)[..., None, None]
    mean_BHLM = jax.vmap(_at_rank)(mean_BLMH, q_BL, k_BM)
    mean_BHLM = jnp.where(layer.visible_BLM[:, None], mean_BHLM, 0)
    known_BL = jnp.take_along_axis(others_BL, jnp.maximum(q_BL, 0), axis=1) > 0.5
    size_BHLM = jnp.abs(layer.weight_BHLM)
    return layer.mean(jnp.sum(jnp.minimum(size_BHLM, mean_BHLM), axis=-1), known_BL)


def _whole(layer: HeadBatch) -> HeadBatch:
  """Returns the batch with ranks and queries that count for each of its texts."""
  B = len(layer.weight_BHLM)
  query_BL, key_BM, counts_BL = (
    jnp.broadcast_to(x, (B, x.shape[1]))
    for x in (layer.query_BL, layer.key_BM, layer.counts_BL)
  )
  return dataclasses.replace(
    layer, query_BL=query_BL, key_BM=key_BM, counts_BL=counts_BL
  )


def _by_rank(layer: HeadBatch) -> tuple[jax.Array, jax.Array]:
  """Returns sums of weights by ranks of query and key, and numbers of queries.

  Each text has its own: [B, L, M, H], [B, L]. By rank, padding and packing change
  nothing.
  """
  size_BHLM = jnp.abs(layer.weight_BHLM)
  size_BHLM = jnp.where(layer.counts_BL[:, None, :, None], size_BHLM, 0)
  ranks = layer.query_BL, layer.key_BM, layer.counts_BL
  return jax.vmap(_sums_of_text)(size_BHLM, *ranks)


def _sums_of_text(size_HLM, q_L, k_M, counts_L):
  ranks = jnp.maximum(q_L[:, None], 0), jnp.maximum(k_M, 0)
  size_LMH = jnp.moveaxis(size_HLM, 0, -1)
  return (
    jnp.zeros_like(size_LMH).at[ranks].add(size_LMH),
    jnp.zeros(q_L.shape).at[jnp.maximum(q_L, 0)].add(counts_L * 1.0),
  )


def _at_rank(mean_LMH, q_L, k_M):
  mean_LMH = mean_LMH[jnp.maximum(q_L[:, None], 0), jnp.maximum(k_M, 0)]
  return jnp.moveaxis(mean_LMH, -1, 0)
