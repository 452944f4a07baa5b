"""Attention residuals: sublayers read a mixture of the outputs of earlier ones.

Kimi Team, 2026. https://arxiv.org/abs/2603.15031
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.axes import whole
from transformer_jax.matmul import einsum
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
  grows = True

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

  def open(self, params, x_BLD):
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
    return _mixture(outputs, params["query_D"], params["key_gain_D"], self.scale)


@placements.register("state_attention")
@dataclasses.dataclass(frozen=True)
class StateAttention(Placement):
  """Sublayers read a mixture of all earlier states, and add to the newest one.

      x_n = x_{n-1} + f(norm(sum over i < n of p_i x_i))
      p_i = softmax_i(q . rmsnorm(x_i) / sqrt(D))
      q = norm(y + B A norm(y)),   y = x_{n-1}

  Pre-norm, with a query of low rank beside the state. x-transformers' aggregated
  residuals, 2026, https://github.com/lucidrains/x-transformers.

  rank   of B A

  The stream is a tuple of states, the newest one first.

  >>> residual, x_BLD = placements.build("state_attention"), jnp.ones((1, 1, 4))
  >>> residual.close({}, (5 * x_BLD, x_BLD)).tolist()
  [[[5.0, 5.0, 5.0, 5.0]]]
  """

  rank: int = 16
  grows = True

  def __post_init__(self):
    if not whole(self.rank, 1):
      raise SpecError(
        f"state_attention: rank is {self.rank!r}; write a number from 1, as rank=16"
      )

  def init(self, key, dims, sublayer):
    D, R = dims.D, self.rank
    return {
      "down_DR": jax.random.normal(key, (D, R)) * D**-0.5,
      "up_RD": jnp.zeros((R, D)),
      **{f"{name}_gain_D": jnp.ones(D) for name in ("inner", "query", "key")},
    }

  def open(self, params, x_BLD):
    return (x_BLD,)

  def __call__(self, norm, states, parts):
    for name, part in parts.items():
      read_BLD = self.read(norm.connection(name), states)
      states = states[0] + part(norm(name)(read_BLD)), *states
    return states

  def read(self, params, states):
    """Returns the mixture of states, x_BLD, that a sublayer reads."""
    newest_BLD = states[0].astype(jnp.float32)
    inner_BLD = rms_norm(newest_BLD, params["inner_gain_D"], EPSILON)
    low_BLR = einsum("BLD,DR->BLR", inner_BLD, params["down_DR"])
    query_BLD = newest_BLD + einsum("BLR,RD->BLD", low_BLR, params["up_RD"])
    query_BLD = rms_norm(query_BLD, params["query_gain_D"], EPSILON)
    return _mixture(
      states, query_BLD, params["key_gain_D"], newest_BLD.shape[-1] ** -0.5
    )

  def close(self, params, states):
    return states[0]


def weights(sources, query, key_gain_D, scale):
  """Returns the weights of some x_BLD, [sources, B, L], for query_D or query_BLD."""
  wide = (x_BLD.astype(jnp.float32) for x_BLD in sources)
  keys = (rms_norm(x_BLD, key_gain_D, EPSILON) for x_BLD in wide)
  score_BL = [scale * jnp.sum(key_BLD * query, axis=-1) for key_BLD in keys]
  return jax.nn.softmax(jnp.stack(score_BL), axis=0)


def _mixture(sources, query, key_gain_D, scale):
  """Returns the sources x_BLD, weighted."""
  parts = zip(weights(sources, query, key_gain_D, scale), sources, strict=True)
  return sum(w_BL[..., None] * x_BLD for w_BL, x_BLD in parts).astype(sources[0].dtype)
