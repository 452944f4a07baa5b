"""Attention residuals: sublayers read a mixture of the outputs of earlier ones.

Kimi Team, 2026. https://arxiv.org/abs/2603.15031
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.axes import whole
from transformer_jax.models.residual.base import Placement, placements
from transformer_jax.normalization import rms_norm
from transformer_jax.spec import SpecError

EPSILON = 1e-6


@placements.register("attention_residuals")
@dataclasses.dataclass(frozen=True)
class AttentionResiduals(Placement):
  """Each sublayer reads a softmax over the outputs before it, instead of their sum.

      p_i = softmax_i(q . rmsnorm(y_i)),   x = sum over i of p_i y_i

  y_0 is the embedding, y_i the output of sublayer i. The query q is of the sublayer
  and starts at 0, where x is the mean.

  block    sublayers whose outputs are summed, and attended to as one; 1: none are
  scale    factor on scores
  first    number of the layer

  The stream is a tuple of outputs, the newest one first.

  >>> residual = placements.build("attention_residuals")
  >>> x_BLD = jnp.arange(4.0).reshape(1, 1, 4)
  >>> params = {"query_D": jnp.zeros(4), "key_gain_D": jnp.ones(4)}
  >>> print(residual.close(params, (x_BLD, 3 * x_BLD)))
  [[[0. 2. 4. 6.]]]
  """

  block: int = 1
  scale: float = 1.0
  first: int = 0

  def __post_init__(self):
    if not whole(self.block, 1):
      raise SpecError(
        f"attention_residuals: block is {self.block!r}; write how many sublayers are"
        " summed, as block=8, or 1"
      )

  def layer(self, n):
    return dataclasses.replace(self, first=n)

  def init(self, key, dims, sublayer):
    return {"query_D": jnp.zeros(dims.D), "key_gain_D": jnp.ones(dims.D)}

  def close_init(self, key, dims):
    return self.init(key, dims, 0)

  def open(self, x_BLD):
    return (x_BLD,)

  def __call__(self, norm, outputs, parts):
    for n, (name, part) in enumerate(parts.items(), self.first * len(parts)):
      read_BLD = self.close(norm.connection(name), outputs)
      update_BLD = part(norm(name)(read_BLD))
      if n % self.block == 0:
        outputs = update_BLD, *outputs
      else:
        outputs = outputs[0] + update_BLD, *outputs[1:]
    return outputs

  def close(self, params, outputs):
    weights = jax.nn.softmax(self.scores(params, outputs), axis=0)
    read_BLD = sum(w[..., None] * y for w, y in zip(weights, outputs, strict=True))
    return read_BLD.astype(outputs[0].dtype)

  def scores(self, params, outputs):
    """Returns the scores of all outputs, [outputs, B, L], float32."""
    keys = (
      rms_norm(y.astype(jnp.float32), params["key_gain_D"], EPSILON) for y in outputs
    )
    return self.scale * jnp.stack([key_BLD @ params["query_D"] for key_BLD in keys])
