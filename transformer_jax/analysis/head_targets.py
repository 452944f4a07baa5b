"""Shares of attention on keys of some kind: places, delimiters, rare tokens, copies.

A head has a role where its mean share is above a threshold, half of its weight unless
written otherwise: Clark et al., 2019, section 3.1, count the heads that put more than
50% of their attention on the previous token, or on the next one.
https://arxiv.org/abs/1906.04341
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.analysis.head_batch import HeadBatch
from transformer_jax.analysis.head_statistic import (
  HeadStatistic,
  distance_BLM,
  head_statistics,
)
from transformer_jax.spec import SpecError

HALF = 0.5


def check_match(statistic: "DuplicateToken | Induction") -> None:
  """Raises SpecError unless a token or more has to be equal."""
  if statistic.match < 1:
    raise SpecError(f"match is {statistic.match}; write a whole number of 1 or more")


class TargetShare(HeadStatistic):
  """Base class: the share of weight on keys of a kind, over queries that see such keys.

  >>> class Second(TargetShare):
  ...   def of(self, layer):
  ...     return (layer.key_BM == 1)[:, None, :]
  >>> Second().bounds
  (0.0, 1.0)
  """

  def of(self, layer: HeadBatch) -> jax.Array:
    """Returns whether a key is of the kind, for a query, [B, L, M]; B, L may be 1."""
    raise NotImplementedError

  def score(self, layer):
    return layer.share(self.of(layer))


@head_statistics.register("previous")
@dataclasses.dataclass(frozen=True)
class PreviousToken(TargetShare):
  """Share of weight on the token before.

  Clark et al., 2019, section 3.1. https://arxiv.org/abs/1906.04341

  threshold   mean share above which a head is a previous-token head

  >>> PreviousToken().threshold
  0.5
  """

  threshold: float = HALF
  role: ClassVar[str] = "previous-token"

  def of(self, layer):
    return distance_BLM(layer) == 1


@head_statistics.register("next")
@dataclasses.dataclass(frozen=True)
class NextToken(TargetShare):
  """Share of weight on the token after; a causal model sees none.

  Clark et al., 2019, section 3.1. https://arxiv.org/abs/1906.04341

  threshold   mean share above which a head is a next-token head

  >>> NextToken().role
  'next-token'
  """

  threshold: float = HALF
  role: ClassVar[str] = "next-token"

  def of(self, layer):
    return distance_BLM(layer) == -1


@head_statistics.register("same")
@dataclasses.dataclass(frozen=True)
class SameToken(TargetShare):
  """Share of weight on the token itself; in cross-attention on the one of equal rank.

  Clark et al., 2019, section 3.1. https://arxiv.org/abs/1906.04341

  threshold   mean share above which a head is a same-token head

  >>> SameToken().role
  'same-token'
  """

  threshold: float = HALF
  role: ClassVar[str] = "same-token"

  def of(self, layer):
    return distance_BLM(layer) == 0


@head_statistics.register("first")
@dataclasses.dataclass(frozen=True)
class FirstToken(TargetShare):
  """Share of weight on the first token of the text, where heads rest.

  Xiao et al., 2024, call it an attention sink. https://arxiv.org/abs/2309.17453

  threshold   mean share above which a head is a first-token head

  >>> FirstToken().role
  'first-token'
  """

  threshold: float = HALF
  role: ClassVar[str] = "first-token"

  def of(self, layer):
    return (layer.key_BM == 0)[:, None, :]


@head_statistics.register("delimiter")
@dataclasses.dataclass(frozen=True)
class Delimiter(TargetShare):
  """Share of weight on delimiters: white space, punctuation, marks.

  Clark et al., 2019, section 3.2. https://arxiv.org/abs/1906.04341

  threshold   mean share above which a head is a delimiter head

  >>> sorted(Delimiter().needs)
  ['delimiters', 'tokens']
  """

  threshold: float = HALF
  role: ClassVar[str] = "delimiter"
  needs: ClassVar[frozenset[str]] = frozenset({"tokens", "delimiters"})

  def of(self, layer):
    return layer.vocabulary.delimiter_V[layer.key_token_BM][:, None, :]


@head_statistics.register("rare")
@dataclasses.dataclass(frozen=True)
class RareToken(TargetShare):
  """Share of weight on the rarest token that a query sees, by its count in the data.

  Voita et al., 2019, section 5.3. https://arxiv.org/abs/1905.09418

  threshold   mean share above which a head is a rare-token head

  >>> sorted(RareToken().needs)
  ['counts', 'tokens']
  """

  threshold: float = HALF
  role: ClassVar[str] = "rare-token"
  needs: ClassVar[frozenset[str]] = frozenset({"tokens", "counts"})

  def of(self, layer):
    count_B1M = layer.vocabulary.count_V[layer.key_token_BM][:, None, :]
    seen_BLM = jnp.where(layer.visible_BLM, count_B1M, jnp.inf)
    return count_B1M == jnp.min(seen_BLM, axis=-1, keepdims=True)


@head_statistics.register("duplicate")
@dataclasses.dataclass(frozen=True)
class DuplicateToken(TargetShare):
  """Share of weight on other places with the query's token.

  Wang et al., 2023, section 3.1. https://arxiv.org/abs/2211.00593

  match       number of tokens that are equal, the query's own and those before it
  threshold   mean share above which a head is a duplicate-token head

  >>> DuplicateToken(match=3).match
  3
  """

  match: int = 1
  threshold: float = HALF
  role: ClassVar[str] = "duplicate-token"
  needs: ClassVar[frozenset[str]] = frozenset({"tokens"})

  def __post_init__(self):
    check_match(self)

  def of(self, layer):
    return copies_BLM(layer, self.match)


@head_statistics.register("induction")
@dataclasses.dataclass(frozen=True)
class Induction(TargetShare):
  """Share of weight on tokens that came after the query's token elsewhere.

  The prefix matching of Olsson et al., 2022, on texts as they are, in place of repeated
  random tokens. https://arxiv.org/abs/2209.11895

  match       number of tokens that are equal, the query's own and those before it
  threshold   mean share above which a head is an induction head

  >>> Induction().role
  'induction'
  """

  match: int = 1
  threshold: float = HALF
  role: ClassVar[str] = "induction"
  needs: ClassVar[frozenset[str]] = frozenset({"tokens"})

  def __post_init__(self):
    check_match(self)

  def of(self, layer):
    after_BLM = jnp.pad(copies_BLM(layer, self.match), ((0, 0), (0, 0), (1, 0)))
    first_B1M = (layer.key_BM <= 0)[:, None, :]  # the key before it is of another text
    return after_BLM[:, :, :-1] & ~first_B1M


def copies_BLM(layer: HeadBatch, match: int) -> jax.Array:
  """Returns whether a key ends the same tokens as a query, at another place."""
  query_token_BL: Any = layer.query_token_BL
  key_token_BM: Any = layer.key_token_BM
  same_BLM = query_token_BL[:, :, None] == key_token_BM[:, None, :]
  equal_BLM = same_BLM & (layer.key_BM >= 0)[:, None, :]
  for back in range(1, match):
    moved_BLM = jnp.pad(same_BLM, ((0, 0), (back, 0), (back, 0)))
    long = (layer.query_BL >= back)[:, :, None] & (layer.key_BM >= back)[:, None, :]
    equal_BLM = equal_BLM & long & moved_BLM[:, :-back, :-back]
  if layer.cross:
    return equal_BLM
  # Keys of other texts of a packed row are none; places are those of the row.
  L = query_token_BL.shape[1]
  return equal_BLM & ~jnp.eye(L, dtype=bool)
