"""Products of tokens with weights, and their gradients."""

import functools
import math

import jax
import jax.numpy as jnp

from transformer_jax.devices import text_parts


def project(x: jax.Array, w: jax.Array, inputs: int) -> jax.Array:
  """Returns x contracted over its last `inputs` axes with the first of w.

  In the dtype of x, accumulated in float32. Tokens are flattened into one axis: XLA on
  CPUs fuses two axes better than three. Not where devices split texts: XLA could not
  split that axis, and would send all tokens to every device.
  """
  tokens, inward, outward = x.shape[:-inputs], w.shape[:inputs], w.shape[inputs:]
  size = math.prod(inward)
  together = (-1,) if text_parts() == 1 else tokens
  y = _product(x.reshape(*together, size), w.reshape(size, -1))
  return y.reshape(*tokens, *outward)


@jax.custom_vjp
def _product(x_TD, w_DF):
  """Returns x w; the tokens of x may have several axes."""
  w_DF = w_DF.astype(x_TD.dtype)
  return _dot(x_TD, w_DF, (x_TD.ndim - 1,), (0,)).astype(x_TD.dtype)


def _save(x_TD, w_DF):
  return _product(x_TD, w_DF), (x_TD, w_DF)


def _gradients(kept, d_TF):
  """Returns the gradients of `_product`, with all operands in the dtype of x.

  JAX's gradient of a product with float32 accumulation has float32 operands, on CPUs
  with bfloat16 units five times slower. The narrow side of a weight's gradient comes
  first, because XLA on CPUs transposes the first at up to half the time.
  """
  x_TD, w_DF = kept
  d_x_TD = _dot(d_TF, w_DF.astype(d_TF.dtype), (d_TF.ndim - 1,), (1,))
  return d_x_TD.astype(x_TD.dtype), across(x_TD, d_TF).astype(w_DF.dtype)


_product.defvjp(_save, _gradients)


def across(x_TD: jax.Array, y_TF: jax.Array) -> jax.Array:
  """Returns x^T y, summed over tokens in float32: the gradient of weights.

  The tokens may have several axes.

  The narrow side comes first, because XLA on CPUs transposes the first at up to half
  the time.
  """
  if x_TD.shape[-1] > y_TF.shape[-1]:
    # The barrier keeps XLA from folding the transpose into the product.
    return jax.lax.optimization_barrier(across(y_TF, x_TD)).T
  axes = tuple(range(x_TD.ndim - 1))
  plain = functools.partial(_dot, a_axes=axes, b_axes=axes)
  if x_TD.dtype != jnp.bfloat16 or len(axes) > 1:
    return plain(x_TD, y_TF)
  return jax.lax.platform_dependent(x_TD, y_TF, cpu=_across_on_cpu, default=plain)


def _across_on_cpu(x_TD, y_TF):
  """Returns x^T y in bfloat16 on CPUs: x is transposed by a product with the identity.

  That is exact. XLA's product of bfloat16 with a transposed first side does not use a
  CPU's matrix units and is four times slower; a plain transpose is folded back.
  """
  same_DD = jnp.eye(x_TD.shape[1], dtype=x_TD.dtype)
  x_DT = _dot(same_DD, x_TD, (1,), (1,)).astype(x_TD.dtype)
  return _dot(x_DT, y_TF, (1,), (0,))


def _dot(a, b, a_axes, b_axes):
  axes = (a_axes, b_axes), ((), ())
  return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)
