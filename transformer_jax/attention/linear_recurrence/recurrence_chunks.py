"""The recurrence in chunks: products within a chunk, a state from one to the next.

Yang et al., 2024, https://arxiv.org/abs/2406.06484, for the delta rule;
Kimi Team, 2025, https://arxiv.org/abs/2510.26692, with a decay for each feature
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.linear_recurrence.recurrence_definition import (
  StateUpdates,
)

CHUNK = 64  # tokens
TILE = 16  # of them, for which decays of features are computed one by one
MASKED = -1e30  # logarithm of the decay of a masked pair


def chunked(
  tokens: StateUpdates,
  state_BHKE: jax.Array | None = None,
  chunk: int = CHUNK,
  unroll: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Returns what `sequential` does, in memory and time linear in the length.

  state_BHKE   before the first token; None: zeros
  chunk        tokens of a chunk, a multiple of `TILE`; fewer for a short text
  unroll       writes the loop over chunks out, so that operations can be counted

  Within a chunk the written values solve a triangular system; from one chunk to the
  next only the state goes on. Logarithms of decays are summed and subtracted before
  they are exponentiated, so that no factor is above 1.
  """
  L = tokens.key_BLHK.shape[1]
  start = tokens.empty if state_BHKE is None else state_BHKE.astype(jnp.float32)
  chunk = min(chunk, L + -L % TILE)  # a short text is one chunk
  parts = _within_chunks(_cut(_padded(tokens.in_float32, -L % chunk), chunk))

  def visit(state_BHKE, part):
    written_BHCE = part.value_BHCE - part.read_BHCK @ state_BHKE
    out_BHCE = part.query_BHCK @ state_BHKE + part.weights_BHCC @ written_BHCE
    decayed_BHKE = part.decay[..., None] * state_BHKE
    added_BHKE = jnp.swapaxes(part.key_BHCK, 2, 3) @ written_BHCE
    return decayed_BHKE + added_BHKE, out_BHCE

  # The backward pass keeps the states between chunks alone.
  visit = visit if unroll else jax.checkpoint(visit)
  last_BHKE, out_nBHCE = jax.lax.scan(visit, start, parts, unroll=unroll)
  out_BnCHE = jnp.transpose(out_nBHCE, (1, 0, 3, 2, 4))
  B, n, C, H, E = out_BnCHE.shape
  return out_BnCHE.reshape(B, n * C, H, E)[:, :L], last_BHKE


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Chunk:
  """What is known of chunks without the state before them.

  value_BHCE   written values if that state is zero
  read_BHCK    what is read from that state, and subtracted from them
  query_BHCK   queries of that state
  weights_BHCC weights of the chunk's written values in each output
  decay        factors on the state, [B, H, K] or [B, H, 1]
  key_BHCK     keys, decayed to the end of the chunk
  """

  value_BHCE: jax.Array
  read_BHCK: jax.Array
  query_BHCK: jax.Array
  weights_BHCC: jax.Array
  decay: jax.Array
  key_BHCK: jax.Array


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


def _within_chunks(tokens: StateUpdates) -> _Chunk:
  """Returns what is known of each chunk without the state before it, all at once."""
  q, k, v = tokens.query_BLHK, tokens.key_BLHK, tokens.value_BLHE
  C, first, decay = q.shape[3], tokens.first_BL, tokens.decay
  if first is not None:  # the state that it would decay is gone
    decay = jnp.where(first[:, :, None, :, None], 0.0, decay)
  sum_, text = jnp.cumsum(decay, axis=-2), _text_of(first, C)
  same = text[..., :, None] == text[..., None, :]
  continues, last = ((text == x)[..., None] for x in (0, text[..., -1:]))
  from_start = jnp.where(continues, jnp.exp(sum_), 0.0)
  to_end = jnp.where(last, jnp.exp(sum_[..., -1:, :] - sum_), 0.0)
  read = jnp.zeros_like(k)
  if tokens.read_BLHK is not None:
    earlier = same & jnp.tri(C, k=-1, dtype=bool)
    v, read = _solved(tokens.read_BLHK, k, v, sum_, earlier, from_start)
  weights = _products(q, k, sum_, same & jnp.tri(C, dtype=bool))
  return _Chunk(v, read, q * from_start, weights, from_start[..., -1, :], k * to_end)


def _solved(r, k, v, sum_, earlier, from_start):
  """Returns written values without a state before the chunk, and its part in them.

  r, k, v      [..., C, K], [..., C, K], [..., C, E]
  sum_         sums of the logarithms of decays
  earlier      mask of pairs, the key before the query
  from_start   factors on the state before the chunk
  """
  system = _products(r, k, sum_, earlier)
  both = jnp.concatenate([v, r * from_start], axis=-1)
  both = jax.scipy.linalg.solve_triangular(system, both, lower=True, unit_diagonal=True)
  return both[..., : v.shape[-1]], both[..., v.shape[-1] :]


def _text_of(first: jax.Array | None, C: int) -> jax.Array:
  """Returns which text of its chunk each token is of; 0: the one before the chunk."""
  if first is None:
    return jnp.zeros((1, C), jnp.int32)
  return jnp.cumsum(first, axis=-1, dtype=jnp.int32)[:, :, None]


def _products(x, y, sum_, mask):
  """Returns products of x_i and y_j, y decayed from j to i; 0 where they are masked.

  x, y   [..., C, K]
  sum_   sums of the logarithms of decays, [..., C, K] or [..., C, 1]
  mask   of pairs, i not before j
  """
  if sum_.shape[-1] == 1:
    factor = jnp.exp(jnp.where(mask, sum_ - jnp.swapaxes(sum_, -1, -2), MASKED))
    return factor * (x @ jnp.swapaxes(y, -1, -2))
  C, K = x.shape[-2:]
  rows = []
  for start in range(0, C, TILE):
    here = slice(start, start + TILE)
    x_TK, y_TK, sum_TK = x[..., here, :], y[..., here, :], sum_[..., here, :]
    apart = sum_TK[..., :, None, :] - sum_TK[..., None, :, :]
    apart = jnp.exp(jnp.where(mask[..., here, here, None], apart, MASKED))
    near = jnp.einsum("...ik,...jk,...ijk->...ij", x_TK, y_TK, apart)
    parts = [near, jnp.zeros((*near.shape[:-1], C - start - near.shape[-1]))]
    if start:  # both decay to or from the end of the tile before: no factor above 1
      at = sum_[..., start - 1 : start, :]
      x_TK = x_TK * jnp.exp(sum_TK - at)
      y_JK = y[..., :start, :] * jnp.exp(at - sum_[..., :start, :])
      far = jnp.where(mask[..., here, :start], x_TK @ jnp.swapaxes(y_JK, -1, -2), 0.0)
      parts.insert(0, far)
    rows.append(jnp.concatenate(parts, axis=-1))
  return jnp.concatenate(rows, axis=-2)
