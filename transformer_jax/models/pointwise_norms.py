"""Layers in the place of norms that need no mean: DyT and Derf; and ScaleNorm."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.models.feature_norms import Norm, Params, norms


@norms.register("dyt")
@dataclasses.dataclass(frozen=True)
class DynamicTanh(Norm):
  """gain * tanh(alpha x) + shift, alpha a learned number. Zhu et al., 2025.

  https://arxiv.org/abs/2503.10622

  alpha   its initial value

  >>> norm = norms.build("dyt(alpha=1.0)")
  >>> x_BLD = norm(norm.init(2), jnp.array([[[-99.0, 0.5]]]))
  >>> [round(x, 3) for x in x_BLD.ravel().tolist()]
  [-1.0, 0.462]
  """

  alpha: float = 0.5

  def init(self, D: int) -> Params:
    alpha = jnp.asarray(self.alpha, jnp.float32)
    return {"alpha": alpha, "gain_D": jnp.ones(D), "shift_D": jnp.zeros(D)}

  def __call__(self, params: Params, x_BLD: jax.Array) -> jax.Array:
    squashed_BLD = jnp.tanh(params["alpha"] * x_BLD.astype(jnp.float32))
    return _affine(params, squashed_BLD, x_BLD.dtype)


@norms.register("derf")
@dataclasses.dataclass(frozen=True)
class DynamicErf(Norm):
  """gain * erf(alpha x + center) + shift, two learned numbers. Chen et al., 2025.

  https://arxiv.org/abs/2512.10938

  alpha   its initial value; the center starts at 0

  >>> norm = norms.build("derf(alpha=1.0)")
  >>> x_BLD = norm(norm.init(2), jnp.array([[[-99.0, 0.5]]]))
  >>> [round(x, 3) for x in x_BLD.ravel().tolist()]
  [-1.0, 0.52]
  """

  alpha: float = 0.5

  def init(self, D: int) -> Params:
    numbers = {"alpha": jnp.asarray(self.alpha, jnp.float32), "center": jnp.zeros(())}
    return numbers | {"gain_D": jnp.ones(D), "shift_D": jnp.zeros(D)}

  def __call__(self, params: Params, x_BLD: jax.Array) -> jax.Array:
    moved_BLD = params["alpha"] * x_BLD.astype(jnp.float32) + params["center"]
    return _affine(params, jax.lax.erf(moved_BLD), x_BLD.dtype)


@norms.register("scalenorm")
@dataclasses.dataclass(frozen=True)
class ScaleNorm(Norm):
  """Scales the features of a token to a learned length. Nguyen and Salazar, 2019.

  The length starts at sqrt(D). https://arxiv.org/abs/1910.05895

  epsilon   least length that features are divided by

  >>> norm = norms.build("scalenorm")
  >>> x_BLD = norm({"gain": jnp.array(10.0)}, jnp.array([[[3.0, 4.0]]]))
  >>> [round(x, 3) for x in x_BLD.ravel().tolist()]
  [6.0, 8.0]
  """

  epsilon: float = 1e-5

  def init(self, D: int) -> Params:
    return {"gain": jnp.sqrt(jnp.float32(D))}

  def __call__(self, params: Params, x_BLD: jax.Array) -> jax.Array:
    scaled_BLD = x_BLD.astype(jnp.float32)
    square_BL1 = jnp.sum(jnp.square(scaled_BLD), axis=-1, keepdims=True)
    # Of zeros the gradient is zero, not infinite.
    inverse_BL1 = jax.lax.rsqrt(jnp.maximum(square_BL1, self.epsilon**2))
    return (scaled_BLD * inverse_BL1 * params["gain"]).astype(x_BLD.dtype)


def _affine(params: Params, x_BLD: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """Returns gain * x + shift in a dtype."""
  return (params["gain_D"] * x_BLD + params["shift_D"]).astype(dtype)
