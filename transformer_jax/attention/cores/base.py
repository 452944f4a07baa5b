"""Base class of attention cores, their registry and their common refusals."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.context import Context
from transformer_jax.attention.cores.dropout import KeyedDropout
from transformer_jax.attention.variants.base import Variant
from transformer_jax.attention.variants.bound_variant import PLAIN, BoundVariant
from transformer_jax.matmul import whole_by_name
from transformer_jax.positions import Bound, Coords, PositionalEncoding
from transformer_jax.spec import Registry


class Core:
  """Base class of attention cores; a subclass implements `attend` and `refusal`.

  All cores compute the same numbers as `dense`, up to rounding.

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at, zero_BLHK = tj.positions.coords.consecutive(1, 4), np.zeros((1, 4, 1, 2))
  >>> v_BMHE = np.arange(4.0).reshape(1, 4, 1, 1)
  >>> none = tj.positions.Bound(tj.positions.build("none"))
  >>> dense = jax.jit(tj.cores.build("dense"))
  >>> print(dense(zero_BLHK, zero_BLHK, v_BMHE, at, at, none).ravel())
  [0.  0.5 1.  1.5]
  """

  def __call__(
    self,
    q_BLHK: jax.Array,
    k_BMGK: jax.Array,
    v_BMGE: jax.Array,
    q_at: Coords,
    k_at: Coords,
    position: Bound,
    scale: float | jax.Array | None = None,
    variant: BoundVariant = PLAIN,
    dropout: KeyedDropout | None = None,
  ) -> jax.Array:
    """Returns o_BLHE, each query's mixture of values, in the float type of the values.

    q_BLHK, k_BMGK, v_BMGE   queries, keys and values, rotated already. G key heads
                             divide H query heads: head h reads key head h // (H / G)
    q_at, k_at   coordinates of queries and keys, which make the mask. A query whose
                 keys are all masked gets zeros
    position     the positional encoding with its parameters
    scale        of dot products: a number or scale_H; None: 1 / sqrt(K)
    variant      the attention variant with its parameters
    dropout      of attention weights; None outside training

    Raises ValueError where this core refuses the encoding, the variant or dropout.
    """
    reason = self.refusal(position.encoding, variant.variant, dropout is not None)
    if reason := reason or self.misfit(q_BLHK, k_BMGK, v_BMGE):
      raise ValueError(reason)
    scale = q_BLHK.shape[-1] ** -0.5 if scale is None else scale
    position = dataclasses.replace(position, params=whole_by_name(position.params))
    variant = dataclasses.replace(variant, params=whole_by_name(variant.params))
    context = Context(q_at, k_at, position, scale, variant, dropout)
    return self.attend(q_BLHK, k_BMGK, v_BMGE, context)

  def attend(
    self, q_BLHK: jax.Array, k_BMGK: jax.Array, v_BMGE: jax.Array, context: Context
  ) -> jax.Array:
    """Returns o_BLHE; `__call__` has checked the arguments.

    q_BLHK, k_BMGK, v_BMGE   as in `__call__`
    context                  coordinates, encoding, scale, variant and dropout
    """
    raise NotImplementedError

  def refusal(
    self,
    encoding: PositionalEncoding,
    variant: Variant = PLAIN.variant,
    dropout: bool = False,
  ) -> str | None:
    """Returns why this core cannot compute an encoding or a variant, or None."""
    return None

  def misfit(
    self, q_BLHK: jax.Array, k_BMGK: jax.Array, v_BMGE: jax.Array
  ) -> str | None:
    """Returns why arrays of these types and sizes cannot be computed here, or None."""
    return None


cores = Registry("attention core", Core)


def tiled_refusal(
  core: str, encoding: PositionalEncoding, variant: Variant, dropout: bool
) -> str | None:
  """Returns the refusal of a core that never holds a whole row of scores, or None."""
  if not encoding.tile_local:
    name = encoding.name
  elif not variant.tile_local:
    name = variant.name
  elif dropout:
    return (
      f"{core} does not drop weights; set model.attention_dropout=0, or use"
      " model.core=dense, which holds all weights: L x M numbers for each head and text"
    )
  elif encoding.mask is not None and variant.overrides("pointwise"):
    return (
      f"{variant.name} counts the keys of each query, of which {encoding.name} masks"
      f" some by head, and {core} counts them for all heads; use model.core=dense"
    )
  else:
    return variant.refusal(encoding)
  return (
    f"{name} looks at whole rows of scores, and {core} never holds one; use"
    " model.core=dense"
  )


def repeat_heads(k_BMGK: jax.Array, H: int) -> jax.Array:
  """Returns k_BMHK: keys or values, repeated for each of H query heads."""
  G = k_BMGK.shape[2]
  return k_BMGK if G == H else jnp.repeat(k_BMGK, H // G, axis=2)
