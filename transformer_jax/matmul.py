"""Products of tokens with weights, and the products that their gradients are."""

import functools
import math

import jax
import jax.numpy as jnp


def project(x: jax.Array, w: jax.Array, inputs: int) -> jax.Array:
  """Contracts the last `inputs` axes of x with the first of w, in the dtype of x.

  Sums are float32 whatever the dtype. Tokens are flattened into one axis: XLA on CPUs
  fuses two axes better than three.
  """
  tokens, inward, outward = x.shape[:-inputs], w.shape[:inputs], w.shape[inputs:]
  size = math.prod(inward)
  y = _product(x.reshape(-1, size), w.reshape(size, -1))
  return y.reshape(*tokens, *outward)


@jax.custom_vjp
def _product(x_TD, w_DF):
  return _dot(x_TD, w_DF.astype(x_TD.dtype), 1, 0).astype(x_TD.dtype)


def _save(x_TD, w_DF):
  return _product(x_TD, w_DF), (x_TD, w_DF)


def _gradients(kept, d_TF):
  """Keeps all operands in the dtype of x.

  JAX's own gradient of a product whose sums are float32 has float32 operands, on CPUs
  with bfloat16 units five times slower. The narrow side of a weight's gradient comes
  first, because XLA on CPUs transposes the first at up to half the time.
  """
  x_TD, w_DF = kept
  d_x_TD = _dot(d_TF, w_DF.astype(d_TF.dtype), 1, 1).astype(x_TD.dtype)
  return d_x_TD, across(x_TD, d_TF).astype(w_DF.dtype)


_product.defvjp(_save, _gradients)


def across(x_TD: jax.Array, y_TF: jax.Array) -> jax.Array:
  """Returns x^T y, sums over tokens in float32: the gradient of weights.

  The narrow side comes first, because XLA on CPUs transposes the first at up to half
  the time.
  """
  if x_TD.shape[1] > y_TF.shape[1]:
    # XLA would fold the transpose into the product, and have the wide side first.
    return jax.lax.optimization_barrier(across(y_TF, x_TD)).T
  plain = functools.partial(_dot, a_axis=0, b_axis=0)
  if x_TD.dtype != jnp.bfloat16:
    return plain(x_TD, y_TF)
  return jax.lax.platform_dependent(x_TD, y_TF, cpu=_across_on_cpu, default=plain)


def _across_on_cpu(x_TD, y_TF):
  """Transposes by a product with ones on the diagonal, which changes no number.

  XLA's product of bfloat16 with a transposed first side leaves a CPU's matrix units
  alone and is four times slower than this; a transpose by itself is folded back.
  """
  same_DD = jnp.eye(x_TD.shape[1], dtype=x_TD.dtype)
  x_DT = _dot(same_DD, x_TD, 1, 1).astype(x_TD.dtype)
  return _dot(x_DT, y_TF, 1, 0)


def _dot(a, b, a_axis, b_axis):
  axes = ((a_axis,), (b_axis,)), ((), ())
  return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)
