"""Sliding-window attention. Beltagy et al., 2020; Mistral, 2023.

https://arxiv.org/abs/2004.05150, https://arxiv.org/abs/2310.06825
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.sparse import Pattern


@attentions.register("window")
@dataclasses.dataclass(frozen=True)
class Window(Pattern):
  """A query attends to keys fewer than `width` tokens away, itself included.

      w_ij > 0 where |i - j| < width

  After N causal layers, a token depends on N (width - 1) tokens before it.

  width   keys that a query attends to on one side, itself included

  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 5)
  >>> window = tj.attention.BoundVariant(tj.attentions.build("window(2)"))
  >>> print(window.mask(at, at)[0].astype(int))
  [[1 0 0 0 0]
   [1 1 0 0 0]
   [0 1 1 0 0]
   [0 0 1 1 0]
   [0 0 0 1 1]]
  """

  width: int = 256

  def meet(self, i_BL1, j_B1M):
    return jnp.abs(i_BL1 - j_B1M) < self.width


def window_width(variant: Variant) -> int | None:
  """Returns the width of the window that is the whole mask of a variant, or None.

  >>> import transformer_jax as tj
  >>> window_width(tj.attentions.build("gqa(2) + window(8)"))
  8
  """
  parts = getattr(variant, "parts", (variant,))
  masks = [part for part in parts if part.overrides("mask")]
  windows = [part.width for part in masks if isinstance(part, Window)]
  return windows[0] if windows and len(masks) == 1 else None
