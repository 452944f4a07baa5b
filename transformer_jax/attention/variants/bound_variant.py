"""A variant with its parameters: one-head hooks lifted to batches and heads."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.convolution import Recent, convolve
from transformer_jax.attention.projections import Arrays, Projections
from transformer_jax.attention.variants.base import Variant
from transformer_jax.positions import Bound, Coords
from transformer_jax.positions.lifting import by_head, head_axes, score_by_head

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

  def borrow(self, weights: Arrays, projections: Projections) -> "BoundVariant":
    """Returns the variant with what it borrows of the layer's projections."""
    if not self.variant.overrides("borrow"):
      return self
    params = self.variant.borrow(self.params, weights, projections)
    return dataclasses.replace(self, params=params)

  def read(self, x_BLD: jax.Array, q_BLHK: jax.Array, at: Coords) -> Coords:
    """Returns the coordinates with the token data of `token_data`."""
    if not self.variant.overrides("token_data"):
      return at
    data = self.variant.token_data(self.params, x_BLD, q_BLHK)
    return at.replace(variant_data=data)

  def accumulate(self, at: Coords) -> Coords:
    """Returns the coordinates with token data summed along the text."""
    if not self.variant.overrides("accumulate"):
      return at
    data = self.variant.accumulate(self.params, at.variant_data, with_own(at))
    return at.replace(variant_data=data)

  def temper(self, q_BLHK: jax.Array, at: Coords) -> jax.Array:
    """Returns the queries times their temperature."""
    if not self.variant.overrides("temperature"):
      return q_BLHK
    factor = self.variant.temperature(self.params, with_own(at))
    return (q_BLHK * factor).astype(q_BLHK.dtype)

  def convolve(
    self, given: Arrays, at: Coords, recent: Recent | None = None
  ) -> tuple[Arrays, Recent | None]:
    """Returns arrays of tokens, mixed along the text if they have taps; what to keep.

    given    "query", and the arrays that a cache stores, as projected
    at       their coordinates
    recent   what a cache keeps of the tokens before, or None
    """
    taps = self.variant.taps(self.params)
    inputs = {name: given[name] for name in taps}
    sums, recent = convolve(inputs, taps, at, recent)
    for name, x in inputs.items():
      sums[name] = self.variant.convolved(self.params, name, x, sums[name])
    return given | sums, recent

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

  def score(
    self,
    s_BHLM: jax.Array,
    q_BLHK: jax.Array,
    k_BMHK: jax.Array,
    q_at: Coords,
    k_at: Coords,
    mask_BLM: jax.Array,
    scale: float | jax.Array,
  ) -> jax.Array:
    """Returns s_BHLM after `score`; arguments are those of `Bound.score`."""
    if not self.variant.overrides("score"):
      return s_BHLM
    q_at, k_at = with_own(q_at), with_own(k_at)
    hook, params = self.variant.score, self.params
    tokens = q_BLHK, k_BMHK, q_at, k_at
    return score_by_head(hook, params, s_BHLM, *tokens, mask_BLM, scale)

  def logits(self, s_BHLM: jax.Array) -> jax.Array:
    """Returns the changed scores, before the mask."""
    if not self.variant.overrides("logits"):
      return s_BHLM
    return self.by_head(self.variant.logits, s_BHLM)

  def mask(self, q_at: Coords, k_at: Coords) -> jax.Array:
    """Returns mask_BLM, the keys each query attends to; B is 1 if texts share it."""
    return visible(q_at, k_at) & self.variant.mask(with_own(q_at), with_own(k_at))

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
    args = q_BLHK, k_BMHK, with_own(q_at), with_own(k_at), mask_BLM
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

  def weigh(
    self,
    s_BHLM: jax.Array,
    mask_BLM: jax.Array,
    q_at: Coords | None = None,
    k_at: Coords | None = None,
  ) -> jax.Array:
    """Returns the weights of whole rows, by definition.

    s_BHLM       scores
    mask_BLM     or mask_BHLM
    q_at, k_at   coordinates; needed by variants with `weigh_at`
    """
    mask_B1LM, variant = by_heads(mask_BLM), self.variant
    if variant.overrides("weigh_at"):
      if q_at is None or k_at is None:
        raise ValueError(f"{variant.name} weighs by coordinates; give q_at and k_at")
      at = with_own(q_at), with_own(k_at)
      return variant.weigh_at(self.params, s_BHLM, mask_B1LM, *at)
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
    return head_axes(self.params)


PLAIN = BoundVariant(Variant())


def with_own(at: Coords) -> Coords:
  """Returns the coordinates as the hooks of a variant get them: `data` is its own."""
  return at.replace(data=at.variant_data)


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
