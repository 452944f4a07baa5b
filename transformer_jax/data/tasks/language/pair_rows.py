"""Rows of translation pairs: arrays of all tokens, pairs laid out in batches."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.base import Batch
from transformer_jax.data.token_cache import Tokenized
from transformer_jax.data.tokenizers import PAD
from transformer_jax.positions import coords


def arrays_of(
  found: Tokenized, split: str, some_P: np.ndarray
) -> dict[str, np.ndarray]:
  """Concatenates all tokens, sorted by the longer side of each pair.

  some_P   indices of the chosen pairs
  """
  size_P2 = found.size_D[split].reshape(-1, 2)
  first_P = np.cumsum(size_P2.sum(axis=1)) - size_P2.sum(axis=1)
  order_P = some_P[np.argsort(size_P2[some_P].max(axis=1), kind="stable")]
  size_P2 = size_P2[order_P]
  start_P2 = (np.cumsum(size_P2) - size_P2.ravel()).reshape(-1, 2)
  moved_P = first_P[order_P] - start_P2[:, 0]
  token_N = found.token_N[split][
    np.repeat(moved_P, size_P2.sum(axis=1)) + np.arange(size_P2.sum())
  ]
  arrays = {"token_N": token_N, "start_P2": start_P2, "size_P2": size_P2}
  return {name: x.astype(np.int32) for name, x in arrays.items()}


def fit_shares(data: dict[str, np.ndarray], max_length: int) -> dict[str, float]:
  """Returns the share of pairs that fit into lengths of 16, 32, ... tokens."""
  size_P = data["size_P2"].max(axis=1) + 1
  lengths = [16 << n for n in range(8)]
  upto = next((n for n in lengths if n > max_length), lengths[-1])
  return {str(n): round(float(np.mean(size_P <= n)), 4) for n in lengths if n <= upto}


def fitting(data: dict[str, jax.Array], length: int | jax.Array) -> jax.Array:
  """Returns the number of pairs that fit, start or end token included."""
  size_P = jnp.max(jnp.asarray(data["size_P2"]), axis=1) + 1
  return jnp.searchsorted(size_P, length, side="right")


def packed(size_BT2: jax.Array, length: int) -> jax.Array:
  """Returns the start of each pair in its row, `length` where the row is full."""

  def put(used_B2, size_B2):
    fits_B1 = jnp.all(used_B2 + size_B2 <= length, axis=1, keepdims=True)
    start_B2 = jnp.where(fits_B1, used_B2, length)
    return used_B2 + jnp.where(fits_B1, size_B2, 0), start_B2

  size_TB2 = jnp.moveaxis(size_BT2, 1, 0)
  _, start_TB2 = jax.lax.scan(put, jnp.zeros_like(size_TB2[0]), size_TB2)
  return jnp.moveaxis(start_TB2, 0, 1)


def lay_out(data: Any, chosen_BT: jax.Array, start_BT2: jax.Array, L: int) -> Batch:
  """Returns chosen pairs in rows of L tokens, each pair as one segment.

  data        arrays of one split
  chosen_BT   int32, numbers of the pairs
  start_BT2   int32, first token of the two sides of each pair in their rows
  L           tokens of a row
  """
  source_start_BT, target_start_BT = start_BT2[..., 0], start_BT2[..., 1]
  source_BL, source_segment_BL, _ = _side(data, chosen_BT, source_start_BT, 0, L)
  target_BL, segment_BL, place_BL = _side(data, chosen_BT, target_start_BT, 1, L)
  before_BL = jnp.pad(target_BL, ((0, 0), (1, 0)))[:, :-1]
  input_BL = jnp.where(place_BL == 0, data["ends_2"][0], before_BL)
  real_BL = segment_BL > 0
  return Batch(
    jnp.where(real_BL, input_BL, PAD),
    target_BL,
    real_BL.astype(jnp.float32),
    coords.packed(segment_BL),
    source_BL,
    coords.packed(source_segment_BL),
  )


def _side(
  data: Any, chosen_BT: jax.Array, start_BT: jax.Array, n: int, L: int
) -> tuple:
  """Returns the tokens of one side with end tokens, their segments and positions.

  data         arrays of one split
  chosen_BT    int32, numbers of the pairs
  start_BT     int32, first token of each pair in its row
  n            0: source, 1: target
  L            tokens of a row
  """
  first_BT, size_BT = (
    jnp.asarray(data[x])[chosen_BT, n] for x in ("start_P2", "size_P2")
  )
  place_BTL = jnp.arange(L) - start_BT[..., None]
  inside_BTL = (place_BTL >= 0) & (place_BTL <= size_BT[..., None])
  which_BL = jnp.argmax(inside_BTL, axis=1)
  real_BL = jnp.any(inside_BTL, axis=1)

  def own(x_BT):
    return jnp.take_along_axis(x_BT, which_BL, axis=1)

  place_BL = jnp.arange(L) - own(start_BT)
  token_BL = jnp.asarray(data["token_N"])[own(first_BT) + place_BL]
  token_BL = jnp.where(place_BL == own(size_BT), data["ends_2"][1], token_BL)
  segment_BL = jnp.where(real_BL, which_BL + 1, 0)
  return jnp.where(real_BL, token_BL, PAD), segment_BL, place_BL
