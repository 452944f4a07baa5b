"""Attention as the papers write it: float64 NumPy, one query, key and head at a time.

Nothing here calls the project or JAX, but for the sizes in `Dims`. A paper says what it
does to a token, to one score and to one value; `attend` loops over heads, queries and
keys around it. Each module here has a list `CASES`, which test_references.py reads.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from transformer_jax.axes import Dims


@dataclasses.dataclass(frozen=True)
class Where:
  """One row of tokens, written by hand.

  text_L     the number of each token's text, 0 where there is no token
  pos_L      positions
  both_ways  whether tokens see what comes after them in their text
  ids        what else is known of each token's place: {"row": [0, 0, 1, ...]}
  """

  text_L: list[int]
  pos_L: list[float]
  both_ways: bool = False
  ids: Mapping[str, list[int]] = dataclasses.field(default_factory=dict)

  def sees(self, i: int, j: int) -> bool:
    same = self.text_L[i] == self.text_L[j] != 0
    return same and (self.both_ways or j <= i)

  def text(self, i: int) -> list[int]:
    """Returns the places of all tokens of the text of token i."""
    return [j for j, text in enumerate(self.text_L) if text == self.text_L[i] != 0]


@dataclasses.dataclass(frozen=True)
class Row:
  """One row of tokens with their vectors: all that a paper may look at.

  q_LHK, k_LHK, v_LHK  as projected; x_LD: what the layer reads; scale: 1 / sqrt(K)
  """

  q_LHK: np.ndarray
  k_LHK: np.ndarray
  v_LHK: np.ndarray
  x_LD: np.ndarray
  where: Where
  scale: float


class Paper:
  """No positional encoding. Vaswani et al. 2017, equation 1; Haviv et al. 2022."""

  def place(self, where: Where) -> Where:
    """Returns where the tokens are once the paper has chosen their positions."""
    return where

  def embed(self, params, x_D, pos, ids):
    """Returns a token's vector at a position; ids: {"row": 3, ...}."""
    return x_D

  def transform_qk(self, params, x_K, pos):
    """Returns a query or key at a position."""
    return x_K

  def query(self, params, h, q_K, pos):
    return self.transform_qk(params, q_K, pos)

  def key(self, params, h, k_K, pos):
    return self.transform_qk(params, k_K, pos)

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    """Returns the score of a query at position i and a key at position j."""
    return scale * (q_K @ k_K)

  def gates(self, params, h, x_ND):
    """Returns what the tokens after the key, up to the query, add to the score."""
    return 0.0

  def scores(self, params, h, i, keys, row: Row):
    """Returns the scores of the query of token i with those keys (places in the row).

    Papers whose scores depend on more than a query and a key override this one.
    """
    pos, found = row.where.pos_L, []
    for j in keys:
      q_K = self.query(params, h, row.q_LHK[i, h], pos[i])
      k_K = self.key(params, h, row.k_LHK[j, h], pos[j])
      both_ways = row.where.both_ways
      score = self.score(params, h, q_K, k_K, pos[i], pos[j], row.scale, both_ways)
      found.append(score + self.gates(params, h, row.x_LD[j + 1 : i + 1]))
    return found

  def value(self, params, v_K, i, j):
    return v_K


@dataclasses.dataclass(frozen=True)
class Placed(Paper):
  """A paper whose positions are other ones.

  positions   where -> the positions of a row
  """

  paper: Paper
  positions: Callable[[Where], list[float]]

  def place(self, where: Where) -> Where:
    return self.paper.place(dataclasses.replace(where, pos_L=self.positions(where)))

  def embed(self, params, x_D, pos, ids):
    return self.paper.embed(params, x_D, pos, ids)

  def scores(self, params, h, i, keys, row):
    return self.paper.scores(params, h, i, keys, row)

  def value(self, params, v_K, i, j):
    return self.paper.value(params, v_K, i, j)


@dataclasses.dataclass(frozen=True)
class Case:
  """An encoding, the paper it has to equal, and what the paper says about it.

  parameters  how many it learns per instance, by the paper's formula
  point       parameters where the comparison is made, in place of random ones
  neutral     pairs (some parameters, the paper that is left with them)
  both_ways   whether it is defined in attention that looks both ways
  cancels     parameters that a softmax cancels, so that they cannot learn
  """

  spec: str
  paper: Paper
  parameters: Callable[[Dims], int] = lambda dims: 0
  point: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  neutral: tuple[tuple[Mapping[str, Any], Paper], ...] = ()
  both_ways: bool = True
  cancels: tuple[str, ...] = ()


def attend(paper, params, q_LHK, k_LHK, v_LHK, x_LD, where):
  """Returns one row of attention outputs, [L, H, K]; zero where nothing is seen."""
  L, H, K = q_LHK.shape
  out_LHK, where = np.zeros(v_LHK.shape), paper.place(where)
  row, pos = Row(q_LHK, k_LHK, v_LHK, x_LD, where, K**-0.5), where.pos_L
  for h in range(H):
    for i in range(L):
      keys = [j for j in range(L) if where.sees(i, j)]
      if not keys:
        continue
      scores = np.array(paper.scores(params, h, i, keys, row))
      values = [paper.value(params, v_LHK[j, h], pos[i], pos[j]) for j in keys]
      weights = np.exp(scores - scores.max())
      out_LHK[i, h] = weights @ np.array(values) / weights.sum()
  return out_LHK


def embedded(paper, params, x_LD, where):
  """Returns the tokens after the encoding changed them."""
  where = paper.place(where)
  ids = [{name: x[n] for name, x in where.ids.items()} for n in range(len(x_LD))]
  places = zip(x_LD, where.pos_L, ids, strict=True)
  return np.array([paper.embed(params, x, p, own) for x, p, own in places])
