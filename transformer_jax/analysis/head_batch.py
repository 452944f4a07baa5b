"""Attention of one layer on a batch of texts, for statistics of its heads."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.models import capture
from transformer_jax.models.recurrent.model import Recurrence
from transformer_jax.positions import coords

PLACES = ("weights", "mask", "output")
COORDINATES = ("query_at", "key_at")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """Kinds of tokens, which statistics of heads tell apart.

  delimiter_V   whether a token is a delimiter: white space, punctuation, a mark; None:
                texts of tokens are not known
  count_V       how often a token is in the data

  >>> vocabulary = of_pieces(["<s>", "a", ",", "b!"], special=("<s>",))
  >>> vocabulary.delimiter_V.tolist()
  [True, False, True, False]
  """

  delimiter_V: jax.Array | None
  count_V: jax.Array

  def counted(self, token_BL: Any, real_BL: Any) -> "Vocabulary":
    """Returns the vocabulary with the counts of these tokens added."""
    real_BL = jnp.broadcast_to(jnp.asarray(real_BL, jnp.float32), token_BL.shape)
    return dataclasses.replace(self, count_V=self.count_V.at[token_BL].add(real_BL))


def of_pieces(pieces: list[str], special: tuple[str, ...] = ()) -> Vocabulary:
  """Returns a vocabulary without counts.

  pieces    text of each token, in order
  special   pieces that no text can spell; delimiters, as tokens without a letter or
            digit are
  """
  delimiters = [
    piece in special or not any(character.isalnum() for character in piece)
    for piece in pieces
  ]
  return Vocabulary(jnp.array(delimiters), jnp.zeros(len(pieces)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HeadBatch:
  """Attention of one layer on a batch of texts, as statistics of heads read it.

  weight_BHLM       weights as a distribution over the keys of each query: those of the
                    model, divided by the sum of their sizes, which variants with sinks,
                    signs or a sigmoid do not keep at 1; 0 where masked
  visible_BLM       whether a query may attend to a key; B may be 1, as below
  counts_BL         whether a query has a choice: it is a token, its weights are not all
                    0, and it sees two keys or more; statistics are means over these
  out_BLHE          outputs of the heads; their number may differ from that of weights
  query_BL, key_BM  ranks of the tokens in their texts; -1: padding
  query_token_BL, key_token_BM       tokens; None: the inputs are no tokens
  vocabulary        kinds of the tokens of keys; None: unknown
  cross             whether queries and keys are of different texts

  >>> HeadBatch.__name__
  'HeadBatch'
  """

  weight_BHLM: jax.Array
  visible_BLM: jax.Array
  counts_BL: jax.Array
  out_BLHE: jax.Array
  query_BL: jax.Array
  key_BM: jax.Array
  query_token_BL: jax.Array | None
  key_token_BM: jax.Array | None
  vocabulary: Vocabulary | None
  cross: bool = dataclasses.field(metadata={"static": True})

  def mean(self, x_BHL: jax.Array, counts_BL: jax.Array | None = None) -> jax.Array:
    """Returns the mean over the queries that count, [B, H]; NaN: a text has none.

    counts_BL   fewer queries than count anyway
    """
    counts_BL = self.counts_BL if counts_BL is None else counts_BL & self.counts_BL
    counts_B1L = counts_BL[:, None]
    number_B1 = jnp.sum(counts_B1L, axis=-1)
    total_BH = jnp.sum(jnp.where(counts_B1L, x_BHL, 0), axis=-1)
    return jnp.where(number_B1 > 0, total_BH / jnp.maximum(number_B1, 1), jnp.nan)

  def share(self, of_BLM: jax.Array) -> jax.Array:
    """Returns the share of weight on some keys, [B, H], over queries that see one.

    of_BLM   whether a key is one of them, for a query
    """
    of_BLM = of_BLM & self.visible_BLM
    size_BHLM = jnp.abs(self.weight_BHLM)
    share_BHL = jnp.sum(jnp.where(of_BLM[:, None], size_BHLM, 0), axis=-1)
    return self.mean(share_BHL, jnp.any(of_BLM, axis=-1))

  def evenly(self) -> "HeadBatch":
    """Returns the batch with one head, which attends to all visible keys alike."""
    visible_BLM = jnp.broadcast_to(
      self.visible_BLM, (len(self.weight_BHLM), *self.visible_BLM.shape[1:])
    )
    number_BL1 = jnp.sum(visible_BLM, axis=-1, keepdims=True)
    even_BLM = visible_BLM / jnp.maximum(number_BL1, 1)
    return dataclasses.replace(self, weight_BHLM=even_BLM[:, None])


def layers(
  model: Any,
  params: Any,
  reads: tuple[Any, ...],
  vocabulary: Vocabulary | None = None,
  edit: Any = None,
) -> dict[str, HeadBatch]:
  """Returns {path: attention of a layer} of one forward pass with the core `dense`.

  model        a Transformer or a recurrent model
  params       its parameters
  reads        its inputs: token_BL, at, source_BL, source_at
  vocabulary   kinds of its tokens; None: unknown
  edit         as in `capture.run`

  Heads of layers are told apart by their paths, `decoder/layer_0/attention`,
  `decoder/layer_0/cross`, `encoder/layer_0/attention`; a recurrent model has at most
  `decoder/cross`.
  """
  recurrent = isinstance(model.arch, Recurrence)
  want = PLACES if recurrent else PLACES + COORDINATES
  _, found = capture.run(model, params, *reads, want=want, edit=edit)
  return of_captured(found, reads, vocabulary)


def of_captured(
  found: capture.Captured, reads: tuple[Any, ...], vocabulary: Vocabulary | None = None
) -> dict[str, HeadBatch]:
  """Returns what `layers` does, of the arrays that `capture.run` returns.

  found   weights, mask and output; coordinates of queries and keys where the model may
          give its tokens others than its inputs have
  """
  inputs = _Inputs(*reads)
  return {
    path: _layer(found, path, inputs, vocabulary) for path in found.get("weights", {})
  }


def has_tokens(x: Any) -> bool:
  """Returns whether an input of a model is tokens: no image, number or signal."""
  return x.ndim == 2 and jnp.issubdtype(x.dtype, jnp.integer)


class _Inputs:
  """Inputs of a model by the side that a layer reads: its tokens and coordinates."""

  def __init__(self, token_BL, at=None, source_BL=None, source_at=None):
    self.token_BL, self.source_BL = token_BL, source_BL
    self.at, self.source_at = at, source_at

  def side(self, source: bool) -> tuple[Any, Any]:
    """Returns tokens, None where the input has none, and coordinates."""
    token_BL, at = (
      (self.source_BL, self.source_at) if source else (self.token_BL, self.at)
    )
    at = at or coords.consecutive(1, token_BL.shape[1])
    return (token_BL if has_tokens(token_BL) else None), at


def _layer(found, path: str, inputs: _Inputs, vocabulary) -> HeadBatch:
  cross = path.endswith("/cross")
  encoder = path.startswith("encoder/") and inputs.source_BL is not None
  query_token_BL, q_at = inputs.side(source=encoder)
  key_token_BM, k_at = inputs.side(source=encoder or cross)
  # A model may give its tokens other coordinates than its input: patches, for one.
  q_at = found.get("query_at", {}).get(path, q_at)
  k_at = found.get("key_at", {}).get(path, k_at)
  weight_BHLM, visible_BLM = found["weights"][path], found["mask"][path]
  visible_BLM = visible_BLM.any(axis=1) if visible_BLM.ndim == 4 else visible_BLM
  total_BHL1 = jnp.sum(jnp.abs(weight_BHLM), axis=-1, keepdims=True)
  choice_BL = q_at.real_BL & (jnp.sum(visible_BLM, axis=-1) > 1)
  return HeadBatch(
    weight_BHLM / jnp.where(total_BHL1 > 0, total_BHL1, 1),
    visible_BLM,
    choice_BL & jnp.any(total_BHL1[..., 0] > 0, axis=1),
    found["output"][path],
    q_at.order_BL,
    k_at.order_BL,
    query_token_BL,
    key_token_BM,
    vocabulary,
    cross,
  )
