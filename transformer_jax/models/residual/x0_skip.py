"""A skip from the embedding to every layer. modded-nanogpt and nanochat, 2024-25.

https://github.com/KellerJordan/modded-nanogpt
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.forwarding import computed
from transformer_jax.models.residual.base import Placement, placements
from transformer_jax.models.residual.norm_placements import PreNorm
from transformer_jax.spec import SpecError


@placements.register("x0_skip")
@dataclasses.dataclass(frozen=True)
class EmbeddingSkip(Placement):
  """Mixes the first layer's input x0 into the input of each layer, by learned scalars.

      x <- a x + b x0,   then the layer, as in the placement `inner`

  inner   placement of the norms
  start   first value of b; a starts at 1

  >>> skip = placements.build("x0_skip(post)")
  >>> skip.inner.final_norm, skip.open({}, 4.0)
  (False, (4.0, 4.0))
  """

  inner: Placement = PreNorm()
  start: float = 0.1

  def __post_init__(self):
    inner = placements.build(self.inner)
    object.__setattr__(self, "inner", inner)
    if type(inner).open is not Placement.open:
      raise SpecError(
        f"x0_skip: {placements.name_of(inner)} has a residual stream of its own kind;"
        " write a placement of one stream, as x0_skip(pre)"
      )

  @computed
  def final_norm(self) -> bool:
    return self.inner.final_norm

  @computed
  def grows(self) -> bool:
    return self.inner.grows

  def init(self, key, dims, sublayer):
    inner = self.inner.init(key, dims, sublayer)
    if sublayer:
      return inner
    return inner | {"gain": jnp.ones(()), "first_gain": jnp.asarray(float(self.start))}

  def open_init(self, key, dims):
    return self.inner.open_init(key, dims)

  def open(self, params, x_BLD):
    return self.inner.open(params, x_BLD), x_BLD

  def __call__(self, norm, stream, parts):
    x, first_BLD = stream
    gains = norm.connection(next(iter(parts)))
    gain, first_gain = (gains[n].astype(x.dtype) for n in ("gain", "first_gain"))
    return self.inner(norm, gain * x + first_gain * first_BLD, parts), first_BLD

  def close_init(self, key, dims):
    return self.inner.close_init(key, dims)

  def close(self, params, stream):
    return self.inner.close(params, stream[0])

  def layer(self, n):
    return dataclasses.replace(self, inner=self.inner.layer(n))
