"""Learned augmented residual layer: a product of low rank beside attention.

Menghani et al., 2024, https://arxiv.org/abs/2411.07501; as in Gemma 3n, 2025,
https://ai.google.dev/gemma/docs/gemma-3n.
"""

import dataclasses

import jax

from transformer_jax.axes import whole
from transformer_jax.matmul import project_by
from transformer_jax.models.residual.base import EMBEDDING, Placement, placements
from transformer_jax.spec import SpecError


@placements.register("laurel")
@dataclasses.dataclass(frozen=True)
class Laurel(Placement):
  """Sandwich norms, and a normed product of low rank beside the first sublayer.

      z = norm(x)
      x <- (x + norm(f(z)) + z + norm(z A B)) / sqrt(2)

  Other sublayers are those of the placement sandwich; what embeddings of layers add has
  no norm before it.

  rank   of A B

  >>> from transformer_jax.axes import Dims
  >>> start = placements.build("laurel(rank=2)").init
  >>> params = start(jax.random.key(0), Dims(V=2, D=4, H=1, F=2, L=2), 0)
  >>> {name: x.shape for name, x in params.items()}
  {'left_DR': (4, 2), 'right_RD': (2, 4)}
  """

  rank: int = 64

  def __post_init__(self):
    if not whole(self.rank, 1):
      raise SpecError(
        f"laurel: rank is {self.rank!r}; write a number from 1, as rank=64"
      )

  def init(self, key, dims, sublayer):
    if sublayer:
      return {}
    D, R = dims.D, self.rank
    left, right = jax.random.split(key)
    return {
      "left_DR": jax.random.normal(left, (D, R)) * D**-0.5,
      "right_RD": jax.random.normal(right, (R, D)) * R**-0.5,
    }

  def __call__(self, norm, x_BLD, parts):
    for n, (name, part) in enumerate(parts.items()):
      z_BLD = x_BLD if name == EMBEDDING else norm(name)(x_BLD)
      sum_BLD = x_BLD + norm(f"{name}_update")(part(z_BLD))
      x_BLD = sum_BLD if n else self.beside(norm, name, z_BLD, sum_BLD)
    return x_BLD

  def beside(self, norm, name, z_BLD, sum_BLD):
    """Returns the sum after the first sublayer, which read z_BLD."""
    params = norm.connection(name)
    low_BLR = project_by(z_BLD, params, "left_DR")
    low_BLD = norm("laurel")(project_by(low_BLR, params, "right_RD"))
    return (sum_BLD + (z_BLD + low_BLD)) * 2**-0.5
