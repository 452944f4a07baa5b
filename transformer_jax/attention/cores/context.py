"""Context of a core's call: coordinates, encoding, scale, variant, dropout."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.dropout import KeyedDropout
from transformer_jax.attention.variants.bound_variant import PLAIN, BoundVariant
from transformer_jax.positions import Bound, Coords


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
  """Coordinates, encoding, scale and variant of one call of a core; a pytree.

  Another argument of all cores is another field here.

  q_at, k_at   coordinates of queries and keys: order, segment, horizon, positions
  position     the positional encoding with its parameters
  scale        of dot products: a number, or scale_H
  variant      the attention variant with its parameters
  dropout      of attention weights, or None

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> from transformer_jax.attention.cores.context import Context
  >>> at, alibi = tj.positions.coords.consecutive(1, 5), tj.positions.build("alibi")
  >>> position = tj.positions.Bound(alibi, {"slope_H": np.array([0.5])})
  >>> window = tj.attention.BoundVariant(tj.attentions.build("window(2)"))
  >>> context = Context(at, at, position, scale=1.0, variant=window)
  >>> print(jax.jit(Context.mask)(context)[0].astype(int))
  [[1 0 0 0 0]
   [1 1 0 0 0]
   [0 1 1 0 0]
   [0 0 1 1 0]
   [0 0 0 1 1]]
  """

  q_at: Coords
  k_at: Coords
  position: Bound
  scale: float | jax.Array
  variant: BoundVariant = PLAIN
  dropout: KeyedDropout | None = None

  def mask(self) -> jax.Array:
    """Returns mask_BLM, the keys each query attends to.

    It is mask_BHLM where the encoding masks by head.
    """
    return self.variant.attends(self.position, self.q_at, self.k_at)

  def scores(
    self, q_BLHK: jax.Array, k_BMHK: jax.Array, mask_BLM: jax.Array
  ) -> jax.Array:
    """Returns float32 scores s_BHLM, q k^T and the encoding, before logits and mask."""
    s_BHLM = self.variant.dot(q_BLHK, k_BMHK, self.scale)
    return self.position.score(
      s_BHLM, q_BLHK, k_BMHK, self.q_at, self.k_at, mask_BLM, self.scale
    )

  def logits(
    self,
    s_BHLM: jax.Array,
    q_BLHK: jax.Array,
    k_BMHK: jax.Array,
    mask_BLM: jax.Array,
  ) -> jax.Array:
    """Returns scores s_BHLM after the variant's `score` and `logits`, before the mask.

    s_BHLM           scores of the encoding
    q_BLHK, k_BMHK   queries and keys
    mask_BLM         or mask_BHLM
    """
    s_BHLM = self.variant.score(
      s_BHLM, q_BLHK, k_BMHK, self.q_at, self.k_at, mask_BLM, self.scale
    )
    return self.variant.logits(s_BHLM)

  def full_scores(
    self, q_BLHK: jax.Array, k_BMHK: jax.Array, mask_BLM: jax.Array
  ) -> jax.Array:
    """Returns scores s_BHLM after the encoding's hook on all heads and whole rows."""
    s_BHLM = self.scores(q_BLHK, k_BMHK, mask_BLM)
    return self.position.full_scores(
      s_BHLM, q_BLHK, k_BMHK, self.q_at, self.k_at, mask_BLM, self.scale
    )

  def selected(
    self, q_BLHK: jax.Array, k_BMHK: jax.Array, mask_BLM: jax.Array
  ) -> jax.Array:
    """Returns the mask after the variant chose keys: mask_BHLM, or mask_BLM as it is.

    The encoding's hooks get the mask without this choice.
    """
    return self.variant.select(q_BLHK, k_BMHK, self.q_at, self.k_at, mask_BLM)

  def weights(self, s_BHLM: jax.Array, mask_BLM: jax.Array) -> jax.Array:
    """Returns the weights of whole rows, from `logits`: softmax, dropout."""
    w_BHLM = self.variant.weigh(s_BHLM, mask_BLM, self.q_at, self.k_at)
    return self.dropout(w_BHLM) if self.dropout else w_BHLM

  def mix(self, w_BHLM: jax.Array, v_BMHE: jax.Array) -> jax.Array:
    """Returns weighted values o_BLHE and the encoding's addition to them, float32."""
    out_BLHE = jnp.einsum(
      "BHLM,BMHE->BLHE",
      w_BHLM.astype(v_BMHE.dtype),
      v_BMHE,
      preferred_element_type=jnp.float32,
    )
    return out_BLHE + self.position.values(w_BHLM, self.q_at.pos_BL, self.k_at.pos_BL)
