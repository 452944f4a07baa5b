"""One learned bias per distance. Liu et al., 2021 (in two dimensions).

https://arxiv.org/abs/2103.14030. Raffel et al., 2020, share one by near distances: t5.
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.spec import SpecError


@positions.register("per_distance")
@dataclasses.dataclass(frozen=True)
class PerDistance(PositionalEncoding):
  """Learns one bias per head and distance i - j, from zero.

      s_ij = q_i . k_j / sqrt(K) + b_h[i - j]

  max_distance    distances beyond it share the bias of this one
  causal      False: the table has the future too, first; else the future gets the bias
              of the token itself
  per_layer   False: all layers share the table

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> bias = jax.jit(tj.positions.build("per_distance(max_distance=2)").bias)
  >>> print(bias({"table_HN": np.array([0.0, -1, -5])}, np.array([4]), np.arange(5)))
  [[-5. -5. -5. -1.  0.]]
  """

  max_distance: int = 128
  causal: bool = True
  per_layer: bool = dataclasses.field(default=True, kw_only=True)
  integer_positions = True
  extrapolation = "clipped at max_distance"

  def __post_init__(self):
    if self.max_distance < 1:
      raise SpecError(
        f"per_distance needs max_distance of at least 1, not {self.max_distance}"
      )

  @property
  def least(self) -> int:
    """The distance of the first entry of the table."""
    return 0 if self.causal else -self.max_distance

  def init(self, key, dims):
    return {"table_HN": jnp.zeros((dims.H, self.max_distance - self.least + 1))}

  def bidirectional(self):
    return dataclasses.replace(self, causal=False)

  def bias(self, params, pos_L, pos_M):
    back_LM = (pos_L[:, None] - pos_M[None, :]).astype(jnp.int32)
    row_LM = jnp.clip(back_LM, self.least, self.max_distance) - self.least
    return params["table_HN"][row_LM]
