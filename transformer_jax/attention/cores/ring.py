"""Attention over texts that are split between devices: keys travel round a ring.

Liu et al., 2023. https://arxiv.org/abs/2310.01889
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from transformer_jax.attention.cores.base import (
  PLAIN,
  Core,
  cores,
  mix,
  repeat_heads,
  require,
  tile_scores,
  whole_rows,
)
from transformer_jax.attention.variants.bound import MASKED, by_heads


@cores.register("ring")
@dataclasses.dataclass(frozen=True)
class Ring(Core):
  """Sends keys, values and their coordinates round a ring of devices that share a text.

  Needs a mesh in context (`with jax.set_mesh(mesh)`), which the runner sets. No device
  ever holds the keys of all; the backward pass sends them round again, with their
  gradients. Texts are padded until blocks and devices divide them.

  axis    the mesh axis that splits the tokens
  block   keys that a device compares with its queries at once
  """

  axis: str = "sequence"
  block: int = 256

  def __call__(
    self,
    q_BLHK,
    k_BMGK,
    v_BMGE,
    q_at,
    k_at,
    position,
    scale=None,
    variant=PLAIN,
    drop=None,
  ):
    require(self, position, variant, drop)
    scale = q_BLHK.shape[-1] ** -0.5 if scale is None else scale
    L, n = q_BLHK.shape[1], self.devices()
    tokens, everywhere = PartitionSpec(None, self.axis), PartitionSpec()
    M = k_BMGK.shape[1]
    block = min(self.block, -(-M // n))
    run = jax.shard_map(
      functools.partial(_local, self.axis, n, block),
      in_specs=(everywhere, tokens, tokens),
      out_specs=tokens,
      axis_names={self.axis},
      check_vma=False,
    )
    queries = _padded((q_BLHK, q_at), L, n)
    keys = _padded(((k_BMGK, v_BMGE), k_at), M, n * block)
    out_BLHE = run((position, variant, jnp.asarray(scale)), queries, keys)
    return out_BLHE[:, :L].astype(v_BMGE.dtype)

  def devices(self) -> int:
    """Returns how many devices the ring has."""
    mesh = jax.sharding.get_abstract_mesh()
    if self.axis not in mesh.axis_names:
      raise ValueError(
        f"ring needs a mesh with an axis '{self.axis}'; set mesh.sequence, call it"
        " under jax.set_mesh, or use model.core=blockwise"
      )
    return mesh.shape[self.axis]

  def refusal(self, encoding, variant=PLAIN.variant, drop=False):
    return whole_rows("ring", encoding, variant, drop)


def _padded(part, size, n):
  """Adds tokens that are not there until n divides their number."""
  arrays, at = part
  extra = -size % n

  def pad(x, fill=0):
    widths = [(0, extra) if axis == 1 else (0, 0) for axis in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=fill)

  data = jax.tree.map(pad, at.data)
  at = at.replace(
    order_BL=pad(at.order_BL, -1),
    pos_BL=pad(at.pos_BL),
    horizon_BL=pad(at.horizon_BL, -1),
    segment_BL=pad(at.segment_BL),
    data=data,
  )
  return jax.tree.map(pad, arrays), at


def _local(axis, n, block, scheme, queries, keys):
  """Runs on each device, with its own queries and the keys that it starts with."""
  cut = lambda x: jnp.moveaxis(x.reshape(x.shape[0], -1, block, *x.shape[2:]), 1, 0)
  keys = jax.tree.map(cut, keys)
  learned, fixed = _partition((scheme, queries, keys))
  return _ring(axis, n, learned, fixed)


def _partition(tree):
  """Splits a tree into what has a gradient, and everything else."""
  floating = lambda x: jnp.issubdtype(jnp.result_type(x), jnp.floating)
  pick = lambda keep: jax.tree.map(lambda x: x if keep(x) else None, tree)
  return pick(floating), pick(lambda x: not floating(x))


def _join(learned, fixed):
  take = lambda a, b: b if a is None else a
  return jax.tree.map(take, learned, fixed, is_leaf=lambda x: x is None)


def _part(scheme, queries, keys, count_BL):
  """Returns what these keys give: o_BLHE, normalized, and the log of their sum."""
  (position, variant, scale), (q, q_at), ((k, v), k_at) = scheme, queries, keys
  k, v = (repeat_heads(x, q.shape[2]) for x in (k, v))
  mask_BLM = variant.attends(position, q_at, k_at)
  s_BHLM = tile_scores(q, k, q_at, k_at, position, scale, mask_BLM, variant)
  s_BHLM = variant.logits(s_BHLM)
  if variant.variant.overrides("pointwise"):
    w_BHLM = jnp.where(by_heads(mask_BLM), variant.pointwise(s_BHLM, count_BL), 0.0)
    lse_BLH1 = jnp.zeros((*q.shape[:3], 1))
  else:
    s_BHLM = jnp.where(by_heads(mask_BLM), s_BHLM, MASKED)
    top_BHL1 = jax.lax.stop_gradient(s_BHLM.max(-1, keepdims=True))
    w_BHLM = jnp.exp(s_BHLM - top_BHL1) * by_heads(mask_BLM)
    sum_BHL1 = w_BHLM.sum(-1, keepdims=True)
    none = sum_BHL1 == 0
    w_BHLM = w_BHLM / jnp.where(none, 1.0, sum_BHL1)
    lse_BHL1 = top_BHL1 + jnp.log(jnp.where(none, 1.0, sum_BHL1))
    lse_BLH1 = jnp.moveaxis(lse_BHL1, 1, 2)
  return mix(w_BHLM, v, q_at.pos_BL, k_at.pos_BL, position), lse_BLH1


def _pass_on(axis, n, tree):
  return jax.tree.map(
    lambda x: jax.lax.ppermute(x, axis, [(i, (i + 1) % n) for i in range(n)]), tree
  )


def _counted(axis, n, scheme, queries, keys):
  """Returns how many keys on all devices each query sees, if weights depend on it."""
  (_, variant, _), (_, q_at), (_, k_at) = scheme, queries, keys
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
  """Returns o_BLHE, the log of all sums, and how many keys were seen."""
  (_, variant, _), (q_BLHK, _), ((_, v_BMGE), _) = scheme, queries, keys
  count_BL = _counted(axis, n, scheme, queries, keys)
  pointwise, sink_logit_H = count_BL is not None, variant.sink_logit()

  def visit(carry, keys):
    out, lse = carry
    new_out, new_lse = _part(scheme, queries, keys, count_BL)
    if pointwise:
      return (out + new_out, lse), None
    total = jnp.logaddexp(lse, new_lse)
    out = out * jnp.exp(lse - total) + new_out * jnp.exp(new_lse - total)
    return (out, total), None

  def step(carry, _):
    found, keys = carry
    found, _ = jax.lax.scan(visit, found, keys)
    return (found, _pass_on(axis, n, keys)), None

  out = jnp.zeros((*q_BLHK.shape[:3], v_BMGE.shape[-1]))
  lse = jnp.full((*q_BLHK.shape[:3], 1), MASKED)
  lse = (
    lse if sink_logit_H is None else jnp.broadcast_to(sink_logit_H[:, None], lse.shape)
  )
  ((out, lse), _), _ = jax.lax.scan(step, ((out, lse), keys), length=n)
  return out, lse, count_BL


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _ring(axis, n, learned, fixed):
  return _forward(axis, n, *_join(learned, fixed))[0]


def _ring_forward(axis, n, learned, fixed):
  out, lse, count_BL = _forward(axis, n, *_join(learned, fixed))
  return out, (learned, fixed, out, lse, count_BL)


def _ring_backward(axis, n, residuals, d_out):
  """Sends keys round again, and with them what their gradients have come to."""
  learned, fixed, out, lse, count_BL = residuals
  scheme, queries, keys = learned

  def visit(sums, block):
    keys, other_keys, d_keys = block

    def part(*learned):
      return _part(*_join(learned, (*fixed[:2], other_keys)), count_BL)

    (own_out, own_lse), pull = jax.vjp(part, scheme, queries, keys)
    if count_BL is None:
      share = jnp.exp(own_lse - lse)
      d_lse = share * jnp.sum(d_out * (own_out - out), -1, keepdims=True)
      d_part = pull((share * d_out, d_lse))
    else:
      d_part = pull((d_out, jnp.zeros_like(own_lse)))
    *sums, d_keys = jax.tree.map(jnp.add, (*sums, d_keys), d_part)
    return tuple(sums), d_keys

  def step(carry, _):
    sums, blocks = carry
    sums, d_keys = jax.lax.scan(visit, sums, blocks)
    return (sums, _pass_on(axis, n, (*blocks[:2], d_keys))), None

  *zeros, d_keys = jax.tree.map(jnp.zeros_like, learned)
  start = tuple(zeros), (keys, fixed[2], d_keys)
  ((d_scheme, d_queries), (*_, d_keys)), _ = jax.lax.scan(step, start, length=n)
  d_extra = _extra_gradient(scheme, fixed[0], out, lse, d_out)
  return (jax.tree.map(jnp.add, d_scheme, d_extra), d_queries, d_keys), None


def _extra_gradient(scheme, fixed, out, lse, d_out):
  """Returns the gradient through the extra logits, whose values are zero."""

  def along_sinks(scheme):
    sink_logit_H = _join(scheme, fixed)[1].sink_logit()
    if sink_logit_H is None:
      return jnp.zeros(())
    share_BLH = jax.lax.stop_gradient(jnp.exp(sink_logit_H - lse[..., 0]))
    return -jnp.sum(sink_logit_H * share_BLH * jnp.sum(d_out * out, -1))

  return jax.grad(along_sinks)(scheme)


_ring.defvjp(_ring_forward, _ring_backward)
