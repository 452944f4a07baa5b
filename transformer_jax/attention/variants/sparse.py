"""Base class of sparse attention patterns."""

import dataclasses

import jax

from transformer_jax.attention.variants.base import Variant
from transformer_jax.axes import whole
from transformer_jax.spec import SpecError


@dataclasses.dataclass(frozen=True)
class Pattern(Variant):
  """Base class of masks by the order of queries and keys in their text.

  The order counts tokens of the text from 0, whatever their positions, so that packing,
  padding and caches change nothing. Cross-attention has no pattern.

  >>> import transformer_jax as tj
  >>> from transformer_jax.attention.variants.sparse import Pattern
  >>> class SameParity(Pattern):
  ...   def meet(self, i_BL1, j_B1M):
  ...     return i_BL1 % 2 == j_B1M % 2
  >>> at = tj.positions.coords.consecutive(1, 5)
  >>> print(tj.attention.BoundVariant(SameParity()).mask(at, at)[0].astype(int))
  [[1 0 0 0 0]
   [0 1 0 0 0]
   [1 0 1 0 0]
   [0 1 0 1 0]
   [1 0 1 0 1]]
  """

  def __post_init__(self):
    for field in dataclasses.fields(self):
      least, value = field.metadata.get("least", 1), getattr(self, field.name)
      if not whole(value, least):
        raise SpecError(
          f"{self.name}: {field.name} is {value!r}; write a whole number, {least} or"
          " more"
        )

  def meet(self, i_BL1: jax.Array, j_B1M: jax.Array) -> jax.Array:
    """Returns the pattern's mask_BLM of queries at order i and keys at order j."""
    raise NotImplementedError

  def mask(self, q_at, k_at):
    return self.meet(q_at.order_BL[:, :, None], k_at.order_BL[:, None, :])

  def cross(self):
    return Variant()
