"""Attention over texts that are split between devices: keys travel round a ring.

Liu et al., 2023. https://arxiv.org/abs/2310.01889
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from transformer_jax.attention.cores.base import (
  Core,
  cores,
  repeat_heads,
  tiled_refusal,
)
from transformer_jax.attention.cores.context import Context
from transformer_jax.attention.variants.bound_variant import (
  MASKED,
  PLAIN,
  BoundVariant,
  by_heads,
)
from transformer_jax.devices import seed_axes
from transformer_jax.positions import Bound, Coords


@cores.register("ring")
@dataclasses.dataclass(frozen=True)
class Ring(Core):
  """Sends keys, values and coordinates round a ring of devices that split a text.

  Needs a mesh in context (`with jax.set_mesh(mesh)`), which the runner sets. No device
  ever holds all keys. The backward pass sends them round again, with their gradients.
  Texts are padded until blocks and devices divide them.

  axis    mesh axis that splits the tokens
  block   keys in a tile

  >>> import transformer_jax as tj
  >>> ring = tj.cores.build("ring")
  >>> print(ring.refusal(tj.positions.build("alibi")))
  None
  >>> print(ring.refusal(tj.positions.build("cope")))
  cope looks at whole rows of scores, and ring never holds one; use model.core=dense
  """

  axis: str = "sequence"
  block: int = 256

  def attend(self, q_BLHK, k_BMGK, v_BMGE, context):
    n, L, M = self.devices(), q_BLHK.shape[1], k_BMGK.shape[1]
    tokens, everywhere = PartitionSpec(None, self.axis), PartitionSpec()
    block = min(self.block, -(-M // n))
    run = jax.shard_map(
      functools.partial(_local, self.axis, n, block),
      in_specs=(everywhere, tokens, tokens),
      out_specs=tokens,
      axis_names={self.axis, *seed_axes()},
      check_vma=False,
    )
    scheme = Scheme(context.position, context.variant, jnp.asarray(context.scale))
    queries = _padded(LocalQueries(q_BLHK, context.q_at), n)
    keys = _padded(TravellingKeys(k_BMGK, v_BMGE, context.k_at), n * block)
    out_BLHE = run(scheme, queries, keys)
    return out_BLHE[:, :L].astype(v_BMGE.dtype)

  def devices(self) -> int:
    """Returns the number of devices in the ring."""
    mesh = jax.sharding.get_abstract_mesh()
    if self.axis not in mesh.axis_names:
      raise ValueError(
        f"ring needs a mesh with an axis '{self.axis}'; set mesh.sequence, call it"
        " under jax.set_mesh, or use model.core=blockwise"
      )
    return mesh.shape[self.axis]

  def refusal(self, encoding, variant=PLAIN.variant, dropout=False):
    return tiled_refusal("ring", encoding, variant, dropout)


class Scheme(NamedTuple):
  """Encoding, variant and scale (an array), replicated on all devices."""

  position: Bound
  variant: BoundVariant
  scale: jax.Array


class LocalQueries(NamedTuple):
  """Queries of a device, with their coordinates; they are not sent."""

  q_BLHK: jax.Array
  at: Coords


class TravellingKeys(NamedTuple):
  """Keys and values that are sent round the ring; the first axis is blocks."""

  k_BMGK: jax.Array
  v_BMGE: jax.Array
  at: Coords


def _padded(tokens, n):
  """Pads tokens until n divides their number."""
  extra = -tokens.at.order_BL.shape[1] % n

  def pad(x, fill=0):
    widths = [(0, extra) if axis == 1 else (0, 0) for axis in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=fill)

  padded = jax.tree.map(pad, tokens)
  order_BL, horizon_BL = pad(tokens.at.order_BL, -1), pad(tokens.at.horizon_BL, -1)
  at = padded.at.replace(order_BL=order_BL, horizon_BL=horizon_BL)
  return padded._replace(at=at)


def _local(axis, n, block, scheme, queries, keys):
  """Returns o_BLHE of one device's queries.

  axis      mesh axis of the ring
  n         number of devices
  block     keys in a tile
  scheme    encoding, variant and scale
  queries   queries of this device
  keys      keys that this device has at first
  """

  def cut(x):
    return jnp.moveaxis(x.reshape(x.shape[0], -1, block, *x.shape[2:]), 1, 0)

  keys = jax.tree.map(cut, keys)
  learned, fixed = _partition((scheme, queries, keys))
  return _ring(axis, n, learned, fixed)


def _partition(tree):
  """Returns a tree's floating leaves, which have gradients, and the other leaves."""
  learned = jax.tree.map(lambda x: x if _is_floating(x) else None, tree)
  return learned, jax.tree.map(lambda x: None if _is_floating(x) else x, tree)


def _is_floating(x) -> bool:
  """Returns whether a leaf is a floating number or array."""
  return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def _join(learned, fixed):
  """Returns the tree of `_partition`."""
  return jax.tree.map(
    lambda a, b: b if a is None else a, learned, fixed, is_leaf=lambda x: x is None
  )


def _attend_block(scheme, queries, keys, count_BL):
  """Returns o_BLHE of one block of keys, normalized, and its log-sum-exp.

  A log-sum-exp is (highest score, the rest), each [B, L, H, 1]: as one number it would
  round by more than the weights do.

  count_BL   number of keys of each query on all devices; None for a softmax
  """
  position, variant, scale = scheme
  H = queries.q_BLHK.shape[2]
  k_BMHK, v_BMHE = repeat_heads(keys.k_BMGK, H), repeat_heads(keys.v_BMGE, H)
  context = Context(queries.at, keys.at, position, scale, variant)
  mask_BLM = context.mask()
  s_BHLM = context.scores(queries.q_BLHK, k_BMHK, mask_BLM)
  s_BHLM = context.logits(s_BHLM, queries.q_BLHK, k_BMHK, mask_BLM)
  if variant.variant.overrides("pointwise"):
    w_BHLM = jnp.where(by_heads(mask_BLM), variant.pointwise(s_BHLM, count_BL), 0.0)
    zero_BLH1 = jnp.zeros((*queries.q_BLHK.shape[:3], 1))
    lse = zero_BLH1, zero_BLH1
  else:
    s_BHLM = jnp.where(by_heads(mask_BLM), s_BHLM, MASKED)
    max_BHL1 = jax.lax.stop_gradient(s_BHLM.max(-1, keepdims=True))
    w_BHLM = jnp.exp(s_BHLM - max_BHL1) * by_heads(mask_BLM)
    sum_BHL1 = w_BHLM.sum(-1, keepdims=True)
    none = sum_BHL1 == 0
    w_BHLM = w_BHLM / jnp.where(none, 1.0, sum_BHL1)
    rest_BHL1 = jnp.log(jnp.where(none, 1.0, sum_BHL1))
    lse = jnp.moveaxis(max_BHL1, 1, 2), jnp.moveaxis(rest_BHL1, 1, 2)
  return context.mix(w_BHLM, v_BMHE), lse


def _minus(lse, other):
  """Returns the difference of two log-sum-exps."""
  return (lse[0] - other[0]) + (lse[1] - other[1])


def _added(lse, other):
  """Returns the log-sum-exp of two, over the keys of both."""
  high = jnp.maximum(lse[0], other[0]), 0.0
  return high[0], jnp.logaddexp(_minus(lse, high), _minus(other, high))


def _pass_on(axis, n, tree):
  return jax.tree.map(
    lambda x: jax.lax.ppermute(x, axis, [(i, (i + 1) % n) for i in range(n)]), tree
  )


def _key_counts(axis, n, scheme, queries, keys):
  """Returns count_BL, the number of keys on all devices that each query attends to.

  None if weights do not depend on it. Arguments as in `_local`.
  """
  variant, q_at, k_at = scheme.variant, queries.at, keys.at
  if not variant.variant.overrides("pointwise"):
    return None

  def visit(count_BL, k_at):
    return count_BL + jnp.sum(variant.mask(q_at, k_at), axis=-1), None

  def step(carry, _):
    count_BL, k_at = carry
    count_BL, _ = jax.lax.scan(visit, count_BL, k_at)
    return (count_BL, _pass_on(axis, n, k_at)), None

  B = max(q_at.order_BL.shape[0], k_at.order_BL.shape[1])
  shape = (B, q_at.order_BL.shape[1])
  return jax.lax.scan(step, (jnp.zeros(shape, int), k_at), length=n)[0][0]


def _forward(axis, n, scheme, queries, keys):
  """Returns o_BLHE, its log-sum-exp over all keys, and count_BL of `_key_counts`."""
  count_BL = _key_counts(axis, n, scheme, queries, keys)
  pointwise, sink_logit_H = count_BL is not None, scheme.variant.sink_logit()

  def visit(carry, keys):
    out, lse = carry
    new_out, new_lse = _attend_block(scheme, queries, keys, count_BL)
    if pointwise:
      return (out + new_out, lse), None
    total = _added(lse, new_lse)
    out = out * jnp.exp(_minus(lse, total)) + new_out * jnp.exp(_minus(new_lse, total))
    return (out, total), None

  def step(carry, _):
    sums, keys = carry
    sums, _ = jax.lax.scan(visit, sums, keys)
    return (sums, _pass_on(axis, n, keys)), None

  shape = queries.q_BLHK.shape[:3]
  out = jnp.zeros((*shape, keys.v_BMGE.shape[-1]))
  start = MASKED if sink_logit_H is None else sink_logit_H[:, None]
  lse = jnp.broadcast_to(start, (*shape, 1)), jnp.zeros((*shape, 1))
  ((out, lse), _), _ = jax.lax.scan(step, ((out, lse), keys), length=n)
  return out, lse, count_BL


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _ring(axis, n, learned, fixed):
  scheme, queries, keys = _join(learned, fixed)
  return _forward(axis, n, scheme, queries, keys)[0]


def _ring_forward(axis, n, learned, fixed):
  scheme, queries, keys = _join(learned, fixed)
  out, lse, count_BL = _forward(axis, n, scheme, queries, keys)
  return out, (learned, fixed, out, lse, count_BL)


def _ring_backward(axis, n, residuals, d_out):
  """Returns gradients; sends the keys round again, with the sums of their gradients."""
  learned, fixed, out, lse, count_BL = residuals
  scheme, queries, keys = learned

  def visit(sums, block):
    keys, other_keys, d_keys = block

    def attend_block(scheme, queries, keys):
      learned = scheme, queries, keys
      scheme, queries, keys = _join(learned, (fixed[0], fixed[1], other_keys))
      return _attend_block(scheme, queries, keys, count_BL)

    (block_out, block_lse), pull = jax.vjp(attend_block, scheme, queries, keys)
    if count_BL is None:
      share = jnp.exp(_minus(block_lse, lse))
      d_lse = share * jnp.sum(d_out * (block_out - out), -1, keepdims=True)
      gradients = pull((share * d_out, (jnp.zeros_like(d_lse), d_lse)))
    else:
      gradients = pull((d_out, jax.tree.map(jnp.zeros_like, block_lse)))
    *sums, d_keys = jax.tree.map(jnp.add, (*sums, d_keys), gradients)
    return tuple(sums), d_keys

  def step(carry, _):
    sums, blocks = carry
    sums, d_keys = jax.lax.scan(visit, sums, blocks)
    return (sums, _pass_on(axis, n, (*blocks[:2], d_keys))), None

  *zeros, d_keys = jax.tree.map(jnp.zeros_like, learned)
  start = tuple(zeros), (keys, fixed[2], d_keys)
  ((d_scheme, d_queries), (*_, d_keys)), _ = jax.lax.scan(step, start, length=n)
  d_sink = _sink_gradient(scheme, fixed[0], out, lse, d_out)
  return (jax.tree.map(jnp.add, d_scheme, d_sink), d_queries, d_keys), None


def _sink_gradient(scheme, fixed, out, lse, d_out):
  """Returns the scheme's gradient through the sink logits, whose values are zero.

  scheme, fixed   leaves of the scheme with gradients, and the others
  out, lse        results of the forward pass
  d_out           gradient of the outputs
  """

  def along_sinks(scheme):
    sink_logit_H = _join(scheme, fixed).variant.sink_logit()
    if sink_logit_H is None:
      return jnp.zeros(())
    sink = sink_logit_H[:, None], 0.0
    share_BLH = jax.lax.stop_gradient(jnp.exp(_minus(sink, lse)[..., 0]))
    return -jnp.sum(sink_logit_H * share_BLH * jnp.sum(d_out * out, -1))

  return jax.grad(along_sinks)(scheme)


_ring.defvjp(_ring_forward, _ring_backward)
