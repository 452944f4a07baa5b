"""Kernel attention in time and memory linear in the length. Katharopoulos et al., 2020.

https://arxiv.org/abs/2006.16236; in blocks as in Hua et al., 2022,
https://arxiv.org/abs/2202.10447
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.base import Core, cores, repeat_heads
from transformer_jax.attention.variants.bound_variant import PLAIN
from transformer_jax.attention.variants.kernelized import divide
from transformer_jax.positions.shared.relative import everywhere


@cores.register("linear")
@dataclasses.dataclass(frozen=True)
class LinearCore(Core):
  """Attention by running sums over keys, in the order of the text.

  Keys and queries are sorted into one sequence by segment, then by order. A key stands
  at its order, a query at its horizon, after the key of that order. A query then
  attends to all earlier keys of its segment, under every mask: causal, bidirectional,
  prefix, packed, padded or cached.

  block   keys and queries, taken together, whose weights are computed one by one

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at, zero_BLHK = tj.positions.coords.consecutive(1, 4), np.zeros((1, 4, 1, 2))
  >>> v_BMHE = np.arange(4.0).reshape(1, 4, 1, 1)
  >>> none = tj.positions.Bound(tj.positions.build("none"))
  >>> linear = tj.attention.BoundVariant(tj.attentions.build("linear"))
  >>> core = jax.jit(tj.cores.build("linear(block=2)"))
  >>> print(core(zero_BLHK, zero_BLHK, v_BMHE, at, at, none, None, linear).ravel())
  [0.  0.5 1.  1.5]
  """

  block: int = 128

  def attend(self, q_BLHK, k_BMGK, v_BMGE, context):
    H = q_BLHK.shape[2]
    k_BMHK, v_BMHE = repeat_heads(k_BMGK, H), repeat_heads(v_BMGE, H)
    given = self.block, context, q_BLHK, k_BMHK, v_BMHE
    if q_BLHK.shape[1] != k_BMHK.shape[1]:
      return _apart(*given)
    # Twice as fast, since an entry of the sequence is a key and a query.
    causal = everywhere(_each_its_own(context.q_at, context.k_at))
    return jax.lax.cond(causal, lambda: _together(*given), lambda: _apart(*given))

  def refusal(self, encoding, variant=PLAIN.variant, dropout=False):
    if not variant.overrides("features"):
      return (
        f"linear adds up features of keys, and {variant.name} has none; use"
        " model.attention=performer, or model.core=auto"
      )
    if any(map(variant.overrides, ("score", "logits", "mask", "select"))):
      return (
        f"linear makes no weight by itself, and a part of {variant.name} changes single"
        " weights; use model.core=dense"
      )
    if dropout:
      return (
        "linear makes no weight that could be dropped; set model.attention_dropout=0 or"
        " use model.core=dense"
      )
    return variant.refusal(encoding)


def _each_its_own(q_at, k_at):
  """Returns whether each query is a key's token and attends to the tokens up to it."""
  pairs = (
    (q_at.segment_BL, k_at.segment_BL),
    (q_at.order_BL, k_at.order_BL),
    (q_at.horizon_BL, k_at.order_BL),
  )
  return functools.reduce(jnp.logical_and, (jnp.all(a == b) for a, b in pairs))


def _together(block, context, q_BLHK, k_BMHK, v_BMHE):
  """Returns outputs where each entry of the sequence is a key and its query."""
  at = context.k_at
  wide = jnp.broadcast_arrays(at.segment_BL, at.order_BL, at.real_BL)
  which_BT, segment_BT, key_BT = _line_up(block, *wide)
  line = *(_take(x, which_BT) for x in (k_BMHK, v_BMHE, q_BLHK)), segment_BT, key_BT
  return _found(
    block, context, line, jnp.argsort(which_BT, axis=1)[:, : q_BLHK.shape[1]]
  )


def _apart(block, context, q_BLHK, k_BMHK, v_BMHE):
  """Returns outputs where each entry of the sequence is a key or a query."""
  q_at, k_at = context.q_at, context.k_at
  M, L = k_BMHK.shape[1], q_BLHK.shape[1]
  pairs = [
    (k_at.segment_BL, q_at.segment_BL),
    (k_at.order_BL, q_at.horizon_BL),
    (k_at.real_BL, jnp.zeros_like(q_at.real_BL)),
  ]
  B = max(x.shape[0] for pair in pairs for x in pair)

  def join(pair):
    wide = [jnp.broadcast_to(x, (B, x.shape[1])) for x in pair]
    return jnp.concatenate(wide, axis=1)

  which_BT, segment_BT, key_BT = _line_up(block, *map(join, pairs))
  line = (
    *(_take(x, which_BT) for x in (k_BMHK, v_BMHE)),
    _take(q_BLHK, which_BT - M),
    segment_BT,
    key_BT,
  )
  return _found(block, context, line, jnp.argsort(which_BT, axis=1)[:, M : M + L])


def _found(block, context, line, place_BL):
  """Returns outputs o_BLHE: those of the sequence at some places.

  line   keys, values, queries, segments and whether there is a key
  """
  out_nBTHE = _walk(context.variant, context.scale, [_cut(x, block) for x in line])
  out_BTHE = jnp.concatenate(out_nBTHE, axis=1)
  return _take(out_BTHE, place_BL).astype(line[1].dtype)


def _line_up(block, segment_BT, when_BT, key_BT):
  """Returns (which_BT, segment_BT, key_BT), sorted by segment, then by `when`.

  which_BT     indices before they were sorted
  segment_BT   segments
  key_BT       True for keys that are tokens

  The end is padded with entries that are neither keys nor queries, to whole blocks.
  """
  which_BT = jnp.broadcast_to(jnp.arange(segment_BT.shape[1]), segment_BT.shape)
  # XLA would sort constants while it compiles, which takes seconds.
  segment_BT, when_BT = jax.lax.optimization_barrier((segment_BT, when_BT))
  # Stable: keys come first, so the key at a query's horizon stands before the query.
  segment_BT, _, which_BT, key_BT = jax.lax.sort(
    (segment_BT, when_BT, which_BT, key_BT), num_keys=2, is_stable=True
  )
  spare = -segment_BT.shape[1] % block

  def end(x, value):
    return jnp.pad(x, ((0, 0), (0, spare)), constant_values=value)

  none = jnp.iinfo(jnp.int32).max
  return end(which_BT, none), end(segment_BT, none), end(key_BT, False)


def _take(x_BL, index_BT):
  """Returns entries of the second axis by index; zeros if the index is outside."""
  L = x_BL.shape[1]
  index_BT = jnp.where(index_BT < 0, L, index_BT)  # -1 would be the last place

  def take(x_L, index_T):
    return x_L.at[index_T].get(mode="fill", fill_value=0)

  if index_BT.shape[0] == 1:
    return jax.vmap(take, (0, None))(x_BL, index_BT[0])
  return jax.vmap(take)(x_BL, index_BT)


def _cut(x_BT, block):
  """Returns x_nBT, blocks in front."""
  x_BnT = x_BT.reshape(x_BT.shape[0], -1, block, *x_BT.shape[2:])
  return jnp.moveaxis(x_BnT, 1, 0)


def _walk(variant, scale, blocks):
  """Returns o_nBTHE, float32, the outputs at every entry of the sorted sequence."""

  @jax.checkpoint  # the backward pass recomputes weights; only the sums are residuals
  def visit(carry, block):
    sum_BHNE, last_B = carry
    k_BTHK, v_BTHE, q_BTHK, segment_BT, key_BT = block
    q_BTHN, k_BTHN = variant.variant.features(variant.params, q_BTHK, k_BTHK, scale)
    k_BTHN = jnp.where(key_BT[..., None, None], k_BTHN, 0.0)
    # Values, and a one that counts the weights.
    v_BTHE = jnp.pad(
      v_BTHE.astype(jnp.float32), [(0, 0)] * 3 + [(0, 1)], constant_values=1
    )

    before_BTT = segment_BT[:, :, None] == segment_BT[:, None, :]
    before_BTT &= jnp.tri(segment_BT.shape[1], dtype=bool)
    w_BHTT = jnp.einsum("BLHN,BMHN->BHLM", q_BTHN, k_BTHN)
    w_BHTT = jnp.where(before_BTT[:, None], w_BHTT, 0.0)
    out_BTHE = jnp.einsum("BHLM,BMHE->BLHE", w_BHTT, v_BTHE)
    goes_on_BT11 = (segment_BT == last_B[:, None])[..., None, None]
    past_BTHE = jnp.einsum("BLHN,BHNE->BLHE", q_BTHN, sum_BHNE)
    out_BTHE += jnp.where(goes_on_BT11, past_BTHE, 0.0)

    end_B = segment_BT[:, -1]
    sum_BHNE = jnp.where((end_B == last_B)[:, None, None, None], sum_BHNE, 0.0)
    lasts_BT11 = (segment_BT == end_B[:, None])[..., None, None]
    k_BTHN = jnp.where(lasts_BT11, k_BTHN, 0.0)
    sum_BHNE += jnp.einsum("BMHN,BMHE->BHNE", k_BTHN, v_BTHE)
    return (sum_BHNE, end_B), divide(out_BTHE[..., :-1], out_BTHE[..., -1:])

  k, v, q, segment, _ = (x[0] for x in blocks)
  (B, _, H, E), N = v.shape, _width(variant, scale, q, k)
  start = jnp.zeros((B, H, N, E + 1)), segment[:, 0]
  return jax.lax.scan(visit, start, blocks)[1]


def _width(variant, scale, q_BTHK, k_BTHK):
  """Returns the number of features of a query."""

  def features(q, k):
    return variant.variant.features(variant.params, q, k, scale)

  return jax.eval_shape(features, q_BTHK, k_BTHK)[0].shape[-1]
