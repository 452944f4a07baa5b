"""The recurrence in chunks, whose tokens meet each other in matrix products.

Yang et al., 2024, https://arxiv.org/abs/2406.06484, for the delta rule;
Kimi Team, 2025, https://arxiv.org/abs/2510.26692, with a decay for each feature
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.linear_recurrence.recurrence_definition import (
  StateUpdates,
)

CHUNK = 64  # tokens that meet in one product
TILE = 16  # of them, for which decays of features are computed one by one
NEVER = -1e30  # logarithm of the weight of a pair that does not meet


def chunked(
  tokens: StateUpdates,
  state_BHKE: jax.Array | None = None,
  chunk: int = CHUNK,
  unroll: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Returns what `sequential` does, in memory and time linear in the length.

  state_BHKE   before the first token; None: zeros
  chunk        tokens of a chunk, a multiple of `TILE`
  unroll       writes the loop over chunks out, so that operations can be counted

  Within a chunk the written values solve a triangular system; from one chunk to the
  next only the state goes on. Logarithms of decays are summed and subtracted before
  they are exponentiated, so that no factor is above 1.
  """
  L = tokens.key_BLHK.shape[1]
  start = tokens.empty if state_BHKE is None else state_BHKE.astype(jnp.float32)
  parts = _meet(_cut(_padded(tokens.in_float32, -L % chunk), chunk))

  def visit(state_BHKE, part):
    written_BHCE = part.value_BHCE - part.reads_BHCK @ state_BHKE
    out_BHCE = part.past_BHCK @ state_BHKE + part.meets_BHCC @ written_BHCE
    kept_BHKE = part.kept[..., None] * state_BHKE
    return kept_BHKE + jnp.swapaxes(part.adds_BHCK, 2, 3) @ written_BHCE, out_BHCE

  # The backward pass keeps the states between chunks alone.
  visit = visit if unroll else jax.checkpoint(visit)
  last_BHKE, out_nBHCE = jax.lax.scan(visit, start, parts, unroll=unroll)
  out_BnCHE = jnp.transpose(out_nBHCE, (1, 0, 3, 2, 4))
  B, n, C, H, E = out_BnCHE.shape
  return out_BnCHE.reshape(B, n * C, H, E)[:, :L], last_BHKE


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Part:
  """Chunks, whose tokens have met each other; only the state before is missing.

  value_BHCE   written values if that state is zero
  reads_BHCK   what takes the state's part from them
  past_BHCK    queries of that state
  meets_BHCC   weights of the chunk's written values in each output
  kept         factors on the state, [B, H, K] or [B, H, 1]
  adds_BHCK    keys of the state after the chunk
  """

  value_BHCE: jax.Array
  reads_BHCK: jax.Array
  past_BHCK: jax.Array
  meets_BHCC: jax.Array
  kept: jax.Array
  adds_BHCK: jax.Array


def _padded(tokens: StateUpdates, count: int) -> StateUpdates:
  """Returns tokens with `count` more, which neither decay the state nor write."""

  def pad(x):
    return jnp.pad(x, [(0, 0), (0, count)] + [(0, 0)] * (x.ndim - 2))

  return jax.tree.map(pad, tokens) if count else tokens


def _cut(tokens: StateUpdates, chunk: int) -> StateUpdates:
  """Returns tokens in chunks: axes [n, B, H, C, ...], or [n, B, C]."""

  def cut(x):
    x = x.reshape(x.shape[0], -1, chunk, *x.shape[2:])
    x = jnp.moveaxis(x, 1, 0)
    return jnp.swapaxes(x, 2, 3) if x.ndim > 3 else x

  return jax.tree.map(cut, tokens)


def _meet(tokens: StateUpdates) -> _Part:
  """Returns the parts of chunks, all at once."""
  q, k, v = tokens.query_BLHK, tokens.key_BLHK, tokens.value_BLHE
  text = _text_of(tokens.first_BL, q.shape[3])  # [..., 1, C], or [1, C]
  starts = tokens.first_BL
  decay = tokens.decay
  if starts is not None:  # what it would let decay is gone
    decay = jnp.where(starts[:, :, None, :, None], 0.0, decay)
  sum_ = jnp.cumsum(decay, axis=-2)
  same = text[..., :, None] == text[..., None, :]
  before = same & jnp.tri(q.shape[3], k=-1, dtype=bool)
  upto = same & jnp.tri(q.shape[3], dtype=bool)
  continues = (text == 0)[..., None]
  past = jnp.where(continues, jnp.exp(sum_), 0.0)
  end = sum_[..., -1:, :]
  last = (text == text[..., -1:])[..., None]
  adds = k * jnp.where(last, jnp.exp(end - sum_), 0.0)
  kept = jnp.where(continues[..., -1:, :], jnp.exp(end), 0.0)[..., 0, :]
  reads = jnp.zeros_like(k)
  if tokens.read_BLHK is not None:
    r = tokens.read_BLHK
    system = _products(r, k, sum_, before)
    both = jnp.concatenate([v, r * past], axis=-1)
    both = jax.scipy.linalg.solve_triangular(
      system, both, lower=True, unit_diagonal=True
    )
    v, reads = both[..., : v.shape[-1]], both[..., v.shape[-1] :]
  return _Part(v, reads, q * past, _products(q, k, sum_, upto), kept, adds)


def _text_of(first: jax.Array | None, C: int) -> jax.Array:
  """Returns which text of its chunk each token is of; 0: the one before the chunk."""
  if first is None:
    return jnp.zeros((1, C), jnp.int32)
  return jnp.cumsum(first, axis=-1, dtype=jnp.int32)[:, :, None]


def _products(x, y, sum_, mask):
  """Returns products of x_i and y_j, y decayed from j to i; 0 where they do not meet.

  x, y   [..., C, K]
  sum_   sums of the logarithms of decays, [..., C, K] or [..., C, 1]
  mask   of the pairs that meet, i not before j
  """
  if sum_.shape[-1] == 1:
    factor = jnp.exp(jnp.where(mask, sum_ - jnp.swapaxes(sum_, -1, -2), NEVER))
    return factor * (x @ jnp.swapaxes(y, -1, -2))
  C, K = x.shape[-2:]
  rows = []
  for start in range(0, C, TILE):
    here = slice(start, start + TILE)
    x_TK, y_TK, sum_TK = x[..., here, :], y[..., here, :], sum_[..., here, :]
    apart = sum_TK[..., :, None, :] - sum_TK[..., None, :, :]
    apart = jnp.exp(jnp.where(mask[..., here, here, None], apart, NEVER))
    near = jnp.einsum("...ik,...jk,...ijk->...ij", x_TK, y_TK, apart)
    parts = [near, jnp.zeros((*near.shape[:-1], C - start - near.shape[-1]))]
    if start:  # keys before the tile meet its queries at the end of the tile before
      at = sum_[..., start - 1 : start, :]
      x_TK = x_TK * jnp.exp(sum_TK - at)
      y_JK = y[..., :start, :] * jnp.exp(at - sum_[..., :start, :])
      far = jnp.where(mask[..., here, :start], x_TK @ jnp.swapaxes(y_JK, -1, -2), 0.0)
      parts.insert(0, far)
    rows.append(jnp.concatenate(parts, axis=-1))
  return jnp.concatenate(rows, axis=-2)
