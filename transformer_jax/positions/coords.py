"""Coordinates of tokens: order, position, horizon and segment.

Coordinates are data: packing, left padding, caches, prefixes and randomized positions
are arrays made here. Encodings and attention cores read only the arrays.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

EVERYTHING = jnp.iinfo(jnp.int32).max


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Coords:
  """Coordinates of each token. A batch axis of 1 is shared by the whole batch.

  order_BL    rank of the token inside its segment; -1: padding
  pos_BL      its position, for the encoding; need not be consecutive or monotone
  horizon_BL  the highest order that the token attends to, in its segment
  segment_BL  tokens attend to tokens of the same segment
  data        other inputs of an encoding, by name with axes: ids from the task
              (`row_BL`), results of `token_data` (`gate_BLH`)
  variant_data   results of the attention variant's `token_data`; its hooks read them
              as `data`, so that no name can be one of the encoding's

  >>> at = consecutive(B=1, L=3)
  >>> at.pos_BL.tolist(), at.bidirectional().real_BL.tolist()
  ([[0, 1, 2]], [[True, True, True]])
  """

  order_BL: jax.Array
  pos_BL: jax.Array
  horizon_BL: jax.Array
  segment_BL: jax.Array
  data: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
  variant_data: dict[str, jax.Array] = dataclasses.field(default_factory=dict)

  def replace(self, **changes: Any) -> "Coords":
    """Returns a copy with some fields changed."""
    return dataclasses.replace(self, **changes)

  @property
  def real_BL(self) -> jax.Array:
    """True where there is a token."""
    return self.order_BL >= 0

  def need(self, names: Iterable[str], reader: str) -> None:
    """Raises ValueError unless the tokens have these ids.

    names    required ids
    reader   name of the encoding, for the message
    """
    missing = [name for name in names if name not in self.data]
    if missing:
      raise ValueError(
        f"{reader} reads {missing[0]}, which these tokens do not have; use a task or"
        " coordinates that supply it, or another encoding"
      )

  def bidirectional(self) -> "Coords":
    """Returns coordinates in which every token attends to its whole segment."""
    return self.replace(horizon_BL=jnp.full_like(self.order_BL, EVERYTHING))

  def prefix(self, length_B1: jax.Array) -> "Coords":
    """Returns coordinates with a bidirectional prefix of `length_B1` tokens."""
    return self.replace(horizon_BL=jnp.maximum(self.horizon_BL, length_B1 - 1))


def consecutive(B: int, L: int, start: int | jax.Array = 0) -> Coords:
  """Returns L causal tokens at start, start + 1, ...; B = 1 serves any batch."""
  order_BL = jnp.broadcast_to(start + jnp.arange(L, dtype=jnp.int32), (B, L))
  return Coords(order_BL, order_BL, order_BL, jnp.ones_like(order_BL))


def padded(real_BL: jax.Array) -> Coords:
  """Returns one causal text in each row, where `real_BL` is true.

  Padding may be anywhere: a text continues after a hole.
  """
  real_BL = jnp.asarray(real_BL, bool)
  order_BL = jnp.cumsum(real_BL, axis=1, dtype=jnp.int32) - 1
  order_BL = jnp.where(real_BL, order_BL, -1)
  pos_BL = jnp.maximum(order_BL, 0)
  return Coords(order_BL, pos_BL, order_BL, real_BL.astype(jnp.int32))


def packed(segment_BL: jax.Array) -> Coords:
  """Returns several causal texts in each row; orders and positions restart in each.

  segment_BL: int32, one number for each contiguous text, 0: padding.

  Raises ValueError where a number returns after another one: such texts would attend
  to each other. Inside of `jit` this is not checked.
  """
  if is_concrete(segment_BL):
    _check_segments(np.asarray(segment_BL))
  place_BL = jnp.broadcast_to(
    jnp.arange(segment_BL.shape[1], dtype=jnp.int32), segment_BL.shape
  )
  before_BL = jnp.pad(segment_BL, ((0, 0), (1, 0)))[:, :-1]
  starts_BL = jnp.where(segment_BL != before_BL, place_BL, 0)
  order_BL = place_BL - jax.lax.cummax(starts_BL, axis=1)
  order_BL = jnp.where(segment_BL == 0, -1, order_BL)
  pos_BL = jnp.maximum(order_BL, 0)
  return Coords(order_BL, pos_BL, order_BL, segment_BL)


def is_concrete(x: Any) -> bool:
  """Returns whether an array has concrete values: not a tracer, as inside of `jit`."""
  return not isinstance(x, jax.core.Tracer)


def _check_segments(segment_BL: np.ndarray) -> None:
  """Raises ValueError unless each number, except 0, is one contiguous run in a row."""
  before_BL = np.pad(segment_BL, ((0, 0), (1, 0)))[:, :-1]
  for row, starts_L in enumerate((segment_BL != before_BL) & (segment_BL != 0)):
    numbers, counts = np.unique(segment_BL[row, starts_L], return_counts=True)
    if (counts > 1).any():
      raise ValueError(
        f"packed: segment {numbers[counts > 1][0]} comes {counts.max()} times in row"
        f" {row}; give each contiguous text a number of its own, or write padded(...)"
        " for one text with holes"
      )


def grid(rows: int, columns: int) -> Coords:
  """Returns coordinates of an image's patches, row by row, with full attention.

  The ids are `row_BL` and `column_BL`; a patch's position is its rank.
  """
  at = consecutive(1, rows * columns).bidirectional()
  place = {"row_BL": at.pos_BL // columns, "column_BL": at.pos_BL % columns}
  return at.replace(data=place)


def absent(B: int, L: int) -> Coords:
  """Returns L places without a token: an empty cache."""
  none_BL = jnp.full((B, L), -1, jnp.int32)
  zero_BL = jnp.zeros((B, L), jnp.int32)
  return Coords(none_BL, zero_BL, none_BL, zero_BL)


def randomized(key: jax.Array, at: Coords, max_positions: int) -> Coords:
  """Returns random sorted distinct positions below `max_positions`, one set per batch.

  The token of order n gets the n-th of the drawn numbers, so packed and padded rows
  keep their order. Ruoss et al., 2023. https://arxiv.org/abs/2305.16843
  """
  L = at.order_BL.shape[1]
  if L > max_positions:
    raise ValueError(
      f"randomized: {L} tokens do not fit {max_positions} positions; raise"
      f" max_positions to {L}"
    )
  drawn_L = jnp.sort(jax.random.permutation(key, max_positions)[:L]).astype(jnp.int32)
  return at.replace(pos_BL=drawn_L[jnp.maximum(at.order_BL, 0)])
