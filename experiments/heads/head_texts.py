"""Texts of single heads: where a head is most certain, with its weights."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.analysis import token_texts
from transformer_jax.analysis import head_batch
from transformer_jax.data.base import Batch

MOST_TEXTS = 32  # from which those of a head are chosen
MOST_TOKENS = 48  # of a text that a page shows


@dataclasses.dataclass(frozen=True, eq=False)
class HeadText:
  """A part of a text with the weights of one head.

  pieces      texts of the keys
  query       text of the query
  place       place of the query among the pieces; None: it is of another text
  weight_M    weights of the query, sizes as a share of their sum
  weight_LM   weights of some queries, the last ones up to this, on these keys

  >>> HeadText(("a", "b"), "b", 1, np.array([0.9, 0.1]), np.eye(2)).strongest
  'a'
  """

  pieces: tuple[str, ...]
  query: str
  place: int | None
  weight_M: np.ndarray
  weight_LM: np.ndarray

  @property
  def strongest(self) -> str:
    """Returns the key with the largest weight."""
    return self.pieces[int(np.argmax(self.weight_M))]


def texts_of(
  run: Any, batch: Batch, heads: Mapping[str, Sequence[int]], count: int
) -> dict[tuple[str, int], list[HeadText]]:
  """Returns texts of each head of the first seed of a run, by path and head.

  batch   texts, of which the first MOST_TEXTS are read, with their whole weights
  heads   {path: heads}
  count   of the texts of each head: those in which its largest weight of a query past
          the first quarter of the text is largest; one query is shown of each
  """
  names = token_texts.pieces(run)
  if not count or names is None or not head_batch.has_tokens(batch.input_BL):
    return {}
  few = batch.texts(0, MOST_TEXTS)
  found = head_batch.layers(run.model, run.params[run.seeds[0]], few.reads)
  return {
    (path, head): _of_head(found[path], head, names, count)
    for path, chosen in heads.items()
    for head in chosen
    if head < found[path].weight_BHLM.shape[1]
  }


def _of_head(layer: head_batch.HeadBatch, head: int, names, count) -> list[HeadText]:
  size_BLM = np.abs(np.asarray(layer.weight_BHLM[:, head]))
  B, L, _ = size_BLM.shape
  late_BL = np.broadcast_to(np.asarray(layer.counts_BL), (B, L)).copy()
  late_BL[:, : L // 4] = False  # a query that sees few keys is certain of them
  peak_BL = np.where(late_BL, size_BLM.max(-1), -1)
  order_B = np.argsort(-peak_BL.max(1), kind="stable")[:count]
  return [
    _text(layer, b, int(np.argmax(peak_BL[b])), size_BLM[b], names)
    for b in map(int, order_B)
    if late_BL[b].any()
  ]


def _text(layer, b: int, query: int, size_LM: np.ndarray, names) -> HeadText:
  """Returns the part of a text that a query attends to most."""
  M = size_LM.shape[1]
  last = (
    M if layer.cross else min(M, max(query + 1, int(np.argmax(size_LM[query])) + 1))
  )
  first = max(0, last - MOST_TOKENS)
  keys = slice(first, last)
  queries = slice(max(0, query + 1 - MOST_TOKENS), query + 1)
  key_M = np.asarray(layer.key_token_BM[b])[keys]
  pieces = tuple(token_texts.shown(names[token]) for token in key_M)
  token = int(layer.query_token_BL[b, query])
  return HeadText(
    pieces,
    token_texts.shown(names[token]),
    None if layer.cross else query - first,
    size_LM[query, keys],
    size_LM[queries, keys],
  )
