"""The recurrence in chunks: products within a chunk, a state from one to the next.

Yang et al., 2024, https://arxiv.org/abs/2406.06484, for the delta rule;
Kimi Team, 2025, https://arxiv.org/abs/2510.26692, with a decay for each feature
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from transformer_jax.attention.linear_recurrence.handed_on import handed_on
from transformer_jax.attention.linear_recurrence.recurrence_definition import (
  StateUpdates,
)
from transformer_jax.devices import platform, text_parts
from transformer_jax.triangular import joined, solve_unit_lower

CHUNK = 64  # tokens
ON_CPU = 32  # likewise, a quarter faster where a core's cache holds its arrays
TILE = 8  # of them, for which decays of features are computed one by one
LARGEST = 80.0  # logarithm of a factor that float32 holds
MASKED = -1e30  # logarithm of the decay of a masked pair


def chunked(
  tokens: StateUpdates,
  state_BHKE: jax.Array | None = None,
  chunk: int | None = None,
  unroll: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Returns what `sequential` does, in memory and time linear in the length.

  state_BHKE   before the first token; None: zeros
  chunk        tokens of a chunk, a power of 2 from 8, fewer for a short text; None: as
               many as are fast on this device
  unroll       writes the loop over chunks out, so that operations can be counted

  Within a chunk the written values solve a triangular system; from one chunk to the
  next only the state goes on. Logarithms of decays are summed and subtracted before
  they are exponentiated, so that no factor is above 1. Devices that split the text
  hand states on: see `handed_on`.
  """
  start = tokens.empty if state_BHKE is None else state_BHKE.astype(jnp.float32)
  chunk = chunk or (ON_CPU if platform() == "cpu" else CHUNK)
  form = functools.partial(_chunked, chunk, unroll)
  devices = text_parts()
  return handed_on(form, tokens, start, devices) if devices > 1 else form(tokens, start)


def _chunked(chunk, unroll, tokens, start):
  """Returns `chunked`, on one device; start: the state before the first token."""
  L = tokens.key_BLHK.shape[1]
  while chunk >= 2 * max(L, TILE):  # a short text is one chunk
    chunk //= 2

  def visit(state_BHKE, tokens):
    part = _within_chunk(_by_heads(tokens.in_float32))
    written_BHNE = part.value_BHNE - part.read_BHNK @ state_BHKE
    out_BHCE = part.query_BHCK @ state_BHKE + part.weights_BHCN @ written_BHNE
    decayed_BHKE = part.decay[..., None] * state_BHKE
    added_BHKE = jnp.swapaxes(part.key_BHNK, 2, 3) @ written_BHNE
    return decayed_BHKE + added_BHKE, jnp.swapaxes(out_BHCE, 1, 2)

  # Arrays of one chunk stay in a core's cache: all chunks at once take twice the time.
  # The backward pass keeps the states between chunks alone.
  visit = visit if unroll else jax.checkpoint(visit)
  pieces = _cut(tokens.padded(-L % chunk), chunk)
  last_BHKE, out_nBCHE = jax.lax.scan(visit, start, pieces, unroll=unroll)
  out_BnCHE = jnp.moveaxis(out_nBCHE, 0, 1)
  B, n, C, H, E = out_BnCHE.shape
  return out_BnCHE.reshape(B, n * C, H, E)[:, :L], last_BHKE


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Chunk:
  """What is known of a chunk without the state before it.

  A token writes one value, or two where it erases along another key: axis N, C or 2 C.

  value_BHNE   written values if that state is zero
  read_BHNK    what is read from that state, and subtracted from them
  weights_BHCN weights of the chunk's written values in each output
  key_BHNK     keys, decayed to the end of the chunk
  query_BHCK   queries of that state
  decay        factors on the state, [B, H, K] or [B, H, 1]
  """

  value_BHNE: jax.Array
  read_BHNK: jax.Array
  weights_BHCN: jax.Array
  key_BHNK: jax.Array
  query_BHCK: jax.Array
  decay: jax.Array


def _cut(tokens: StateUpdates, chunk: int) -> StateUpdates:
  """Returns tokens in chunks: axes [n, B, C, ...]."""

  def cut(x):
    return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)

  return jax.tree.map(cut, tokens)


def _by_heads(tokens: StateUpdates) -> StateUpdates:
  """Returns tokens of a chunk with heads before them, [B, H, C, ...], or [B, C]."""
  return jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2) if x.ndim > 2 else x, tokens)


def _within_chunk(tokens: StateUpdates) -> _Chunk:
  """Returns what is known of a chunk without the state before it."""
  q, k, v = tokens.query_BLHK, tokens.key_BLHK, tokens.value_BLHE
  C, first, decay = q.shape[2], tokens.first_BL, tokens.decay
  r, erase = tokens.read_BLHK, tokens.erase_BLHK
  if first is not None:  # the state that it would decay is gone
    decay = jnp.where(first[:, None, :, None], 0.0, decay)
  sum_, text = jnp.cumsum(decay, axis=-2), _text_of(first, C)
  mask = (text[..., :, None] == text[..., None, :]) & jnp.tri(C, dtype=bool)
  continues, last = ((text == x)[..., None] for x in (0, text[..., -1:]))
  from_start = jnp.where(continues, jnp.exp(sum_), 0.0)
  to_end = jnp.where(last, jnp.exp(sum_[..., -1:, :] - sum_), 0.0)
  products = functools.partial(_products, sum_=sum_, mask=mask, floor=tokens.floor)
  state = q * from_start, from_start[..., -1, :]
  if r is None:
    (weights,) = products([q], k)
    return _Chunk(v, jnp.zeros_like(k), weights, k * to_end, *state)
  weights, system = products([q, r], k if erase is None else erase)
  known = v
  if erase is not None:
    weights_of_known, known = products([q, r], k)
    known = -jnp.tril(known, -1) @ v
  both = jnp.concatenate([known, r * from_start], axis=-1)
  both = solve_unit_lower(jnp.tril(system, -1), both)
  solved, read = both[..., : v.shape[-1]], both[..., v.shape[-1] :]
  if erase is None:
    return _Chunk(solved, read, weights, k * to_end, *state)
  rows = functools.partial(jnp.concatenate, axis=-2)
  return _Chunk(
    rows([solved, v]),
    rows([read, jnp.zeros_like(read)]),
    jnp.concatenate([weights, weights_of_known], axis=-1),
    rows([erase * to_end, k * to_end]),
    *state,
  )


def _text_of(first: jax.Array | None, C: int) -> jax.Array:
  """Returns which text of its chunk each token is of; 0: the one before the chunk."""
  if first is None:
    return jnp.zeros((1, 1, C), jnp.int32)
  return jnp.cumsum(first, axis=-1, dtype=jnp.int32)[:, None]


def _products(xs, y, sum_, mask, floor=None):
  """Returns products of each x_i and y_j, y decayed from j to i; 0 where masked.

  xs, y  arrays [..., C, K]
  sum_   sums of the logarithms of decays, [..., C, K] or [..., C, 1]
  mask   of pairs, i not before j
  floor  that no logarithm is below, or None
  """
  if sum_.shape[-1] == 1:
    factor = jnp.exp(jnp.where(mask, sum_ - jnp.swapaxes(sum_, -1, -2), MASKED))
    return [factor * (x @ jnp.swapaxes(y, -1, -2)) for x in xs]
  within_range = floor is not None and -floor * y.shape[-2] < LARGEST
  form = _products_by_middle if within_range else _products_by_feature
  return [jnp.where(mask, x, 0.0) for x in form(xs, y, sum_)]


def _products_by_middle(xs, y, sum_):
  """Returns `_products`, where factors from and to the middle of a chunk are finite."""
  C = y.shape[-2]
  middle = sum_[..., C // 2 : C // 2 + 1, :]
  y_ = jnp.swapaxes(y * jnp.exp(middle - sum_), -1, -2)
  decay = jnp.exp(sum_ - middle)
  return [(x * decay) @ y_ for x in xs]


def _products_by_feature(xs, y, sum_):
  """Returns `_products` for decays of features: in small blocks, then between them.

  Between two blocks x decays from the border and y to it, so that no factor is above 1.
  """
  found, C = _within_tiles(xs, y, sum_), y.shape[-2]
  size = TILE
  while size < C:
    *xs_, y_, sum__ = (_blocks(x, size) for x in (*xs, y, sum_))
    first, second = sum__[..., ::2, :, :], sum__[..., 1::2, :, :]
    border = first[..., -1:, :]
    y_ = jnp.swapaxes(y_[..., ::2, :, :] * jnp.exp(border - first), -1, -2)
    decay = jnp.exp(second - border)
    between = [(x[..., 1::2, :, :] * decay) @ y_ for x in xs_]
    found = [
      joined(x[..., ::2, :, :], below, x[..., 1::2, :, :])
      for x, below in zip(found, between, strict=True)
    ]
    size *= 2
  return [x[..., 0, :, :] for x in found]


def _within_tiles(xs, y, sum_):
  """Returns `_products` within tiles, [..., tiles, TILE, TILE].

  As between larger blocks, by one product of whole tiles for each size of a block.
  """
  *xs, y, sum_ = (_blocks(x, TILE) for x in (*xs, y, sum_))
  place = jnp.arange(TILE)
  found = [
    jnp.sum(x * y, axis=-1)[..., None] * jnp.eye(TILE, dtype=x.dtype) for x in xs
  ]
  size = 1
  while size < TILE:
    second = (place // size % 2 == 1)[:, None]
    border = jnp.repeat(sum_[..., size - 1 :: 2 * size, :], 2 * size, axis=-2)
    decay = jnp.exp(jnp.where(second, sum_ - border, border - sum_))
    y_ = jnp.swapaxes(jnp.where(second, 0.0, y * decay), -1, -2)
    one_block = place[:, None] // (2 * size) == place // (2 * size)
    between = [jnp.where(second, x * decay, 0.0) @ y_ for x in xs]
    found = [
      x + jnp.where(one_block, z, 0.0) for x, z in zip(found, between, strict=True)
    ]
    size *= 2
  return found


def _blocks(x: jax.Array, size: int) -> jax.Array:
  """Returns x in blocks of tokens, [..., blocks, size, K]."""
  return x.reshape(*x.shape[:-2], -1, size, x.shape[-1])
