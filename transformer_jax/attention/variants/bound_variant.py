"""A variant with its parameters: one-head hooks lifted to batches and heads."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.projections import Arrays
from transformer_jax.attention.variants.base import Variant
from transformer_jax.axes import axes_of
from transformer_jax.positions import Bound, Coords
from transformer_jax.positions.bound import by_head

MASKED = -1e30  # below any score, yet finite: an empty row must not make NaN


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundVariant:
  """An attention variant together with its parameters; a pytree of arrays.

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> variant, params = tj.attentions.build("sinks"), {"sink_H": np.zeros(1)}
  >>> sinks = tj.attention.BoundVariant(variant, params)
  >>> print(jax.jit(sinks.weigh)(np.zeros((1, 1, 1, 3)), np.ones((1, 1, 3), bool)))
  [[[[0.25 0.25 0.25]]]]
  """

  variant: Variant = dataclasses.field(metadata={"static": True})
  params: Arrays = dataclasses.field(default_factory=dict)

  def dot(
    self, q_BLHK: jax.Array, k_BMHK: jax.Array, scale: float | jax.Array
  ) -> jax.Array:
    """Returns scores s_BHLM, float32; `scale` is a number or scale_H."""
    if self.variant.overrides("features"):
      q_BLHN, k_BMHN = self.variant.features(self.params, q_BLHK, k_BMHK, scale)
      return jnp.einsum("BLHN,BMHN->BHLM", q_BLHN, k_BMHN)
    if not self.variant.overrides("dot"):
      s_BHLM = jnp.einsum(
        "BLHK,BMHK->BHLM", q_BLHK, k_BMHK, preferred_element_type=jnp.float32
      )
      return s_BHLM * by_head(scale)
    axis = 0 if jnp.ndim(scale) else None
    heads = jax.vmap(self.variant.dot, (self.head_axes, 1, 1, axis))
    batch = jax.vmap(heads, (None, 0, 0, None))
    return batch(self.params, q_BLHK, k_BMHK, scale)

  def logits(self, s_BHLM: jax.Array) -> jax.Array:
    """Returns the changed scores, before the mask."""
    if not self.variant.overrides("logits"):
      return s_BHLM
    return self.by_head(self.variant.logits, s_BHLM)

  def mask(self, q_at: Coords, k_at: Coords) -> jax.Array:
    """Returns mask_BLM, the keys each query attends to; B is 1 if texts share it."""
    return visible(q_at, k_at) & self.variant.mask(q_at, k_at)

  def select(
    self,
    q_BLHK: jax.Array,
    k_BMHK: jax.Array,
    q_at: Coords,
    k_at: Coords,
    mask_BLM: jax.Array,
  ) -> jax.Array:
    """Returns the mask of whole rows; mask_BHLM where the variant selects keys.

    q_BLHK, k_BMHK   queries and all keys, after the encoding rotated them
    q_at, k_at       their coordinates
    mask_BLM         the mask so far, or mask_BHLM
    """
    if not self.variant.overrides("select"):
      return mask_BLM
    args = q_BLHK, k_BMHK, q_at, k_at, mask_BLM
    return by_heads(mask_BLM) & self.variant.select(self.params, *args)

  def sink_logit(self) -> jax.Array | None:
    """Returns logit_H, the sink logit of each head, or None."""
    return self.variant.sink_logit(self.params)

  def attends(self, position: Bound, q_at: Coords, k_at: Coords) -> jax.Array:
    """Returns mask_BLM, or mask_BHLM if the encoding masks by head."""
    mask_BLM = self.mask(q_at, k_at)
    if position.encoding.mask is None:
      return mask_BLM
    return mask_BLM[:, None] & position.mask(q_at.pos_BL, k_at.pos_BL)

  def pointwise(self, s_BHLM: jax.Array, keys_BL: jax.Array) -> jax.Array:
    """Returns weights that depend on one score each, before the mask.

    keys_BL   number of keys of each query, or keys_BHL
    """
    keys_BHL1 = jnp.maximum(keys_BL, 1).astype(jnp.float32)[..., None]
    keys_BHL1 = keys_BHL1 if keys_BL.ndim == 3 else keys_BHL1[:, None]
    keys_BHL1 = jnp.broadcast_to(keys_BHL1, (*s_BHLM.shape[:3], 1))
    return self.by_head(self.variant.pointwise, s_BHLM, keys_BHL1)

  def weigh(self, s_BHLM: jax.Array, mask_BLM: jax.Array) -> jax.Array:
    """Returns the weights of whole rows, by definition; mask_BLM or mask_BHLM."""
    mask_B1LM, variant = by_heads(mask_BLM), self.variant
    if variant.overrides("weigh"):
      return variant.weigh(self.params, s_BHLM, mask_B1LM)
    if variant.overrides("pointwise"):
      weights_BHLM = self.pointwise(s_BHLM, jnp.sum(mask_BLM, axis=-1))
      return jnp.where(mask_B1LM, weights_BHLM, 0.0)
    return softmax(s_BHLM, mask_B1LM, self.sink_logit())

  def by_head(self, function: Any, s_BHLM: jax.Array, *rows: jax.Array) -> jax.Array:
    """Returns a function of (params, s_LM, ...), mapped over heads and batch."""
    heads = jax.vmap(function, (self.head_axes, 0, *(0 for _ in rows)))
    batch = jax.vmap(heads, (None, 0, *(0 for _ in rows)))
    return batch(self.params, s_BHLM, *rows)

  @property
  def head_axes(self) -> dict[str, int | None]:
    """Axis of heads of each parameter: 0, or None if all heads share it."""
    return {n: 0 if axes_of(n).startswith("H") else None for n in self.params}


PLAIN = BoundVariant(Variant())


def by_heads(mask_BLM: jax.Array) -> jax.Array:
  """Returns mask_BHLM as it is, and mask_BLM with an axis of heads."""
  return mask_BLM if mask_BLM.ndim == 4 else mask_BLM[:, None]


def visible(q_at: Coords, k_at: Coords) -> jax.Array:
  """Returns mask_BLM of order and segment; B is 1 if all texts share it.

  Masks read the order, never positions: coupled and randomized positions are not
  monotone.
  """
  same_BLM = q_at.segment_BL[:, :, None] == k_at.segment_BL[:, None, :]
  early_BLM = k_at.order_BL[:, None, :] <= q_at.horizon_BL[:, :, None]
  return same_BLM & early_BLM & k_at.real_BL[:, None, :]


def softmax(
  s_BHLM: jax.Array, mask_B1LM: jax.Array, sink_logit_H: jax.Array | None = None
) -> jax.Array:
  """Returns softmax weights over unmasked keys; a row without any is zero."""
  s_BHLM = jnp.where(mask_B1LM, s_BHLM, MASKED)
  if sink_logit_H is None:
    w_BHLM = jax.nn.softmax(s_BHLM, axis=-1)
  else:
    shape = (*s_BHLM.shape[:-1], 1)
    sink_logit_BHL1 = jnp.broadcast_to(sink_logit_H[:, None, None], shape).astype(
      s_BHLM.dtype
    )
    both = jnp.concatenate([s_BHLM, sink_logit_BHL1], axis=-1)
    w_BHLM = jax.nn.softmax(both, axis=-1)[..., :-1]
  return w_BHLM * jnp.any(mask_B1LM, axis=-1, keepdims=True)
