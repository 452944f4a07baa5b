"""A window that slides over the text. Beltagy et al., 2020; Mistral, 2023.

https://arxiv.org/abs/2004.05150, https://arxiv.org/abs/2310.06825
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variant import Variant, attentions
from transformer_jax.spec import SpecError


@attentions.register("window")
@dataclasses.dataclass(frozen=True)
class Window(Variant):
  """A query sees keys fewer than `width` tokens away, itself included.

  Distance is counted in tokens of the text, whatever positions they have. Between two
  texts there is no distance, and no window.

  width   keys that a query sees on one side, itself included
  """

  width: int = 256

  def __post_init__(self):
    if not isinstance(self.width, int) or self.width < 1:
      raise SpecError(f"window: width is {self.width!r}; write a whole number above 0")

  def seen(self, q_at, k_at):
    apart_BLM = q_at.order_BL[:, :, None] - k_at.order_BL[:, None, :]
    return jnp.abs(apart_BLM) < self.width

  def cross(self):
    return Variant()
