"""Partial rotary embedding. Black et al., 2022. https://arxiv.org/abs/2204.06745"""

import dataclasses

from transformer_jax.positions.base import positions
from transformer_jax.positions.rope import Rope


@positions.register("partial_rope")
@dataclasses.dataclass(frozen=True)
class PartialRope(Rope):
  """Rotates only the first quarter of each head, with frequencies for that width.

      q' = [R(i) q_1..r, q_r+1..K]; k likewise

  The other features match by content alone, as in GPT-NeoX and Pythia.

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> rotate = jax.jit(tj.positions.build("partial_rope").rotate)
  >>> x_BLHK = rotate({}, np.ones((1, 1, 1, 8)), np.array([[1]]))
  >>> print(np.asarray(x_BLHK[0, 0]).round(2))
  [[-0.3   1.38  1.    1.    1.    1.    1.    1.  ]]
  """

  fraction: float = 0.25
