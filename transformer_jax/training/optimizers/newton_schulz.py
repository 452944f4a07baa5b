"""Newton-Schulz iterations in bfloat16, rounded as by two implementations of Muon."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from transformer_jax.training.optimizers.matrix_axes import MatrixAxes

STANDARD = (3.4445, -4.7750, 2.0315)
DION = (  # Ahn et al., 2025, https://arxiv.org/abs/2504.05295
  (4.0848, -6.8946, 2.9270),
  (3.9505, -6.3029, 2.6377),
  (3.7418, -5.5913, 2.3037),
  (2.8769, -3.1427, 1.2046),
  (2.8366, -3.0525, 1.2012),
)
LEAST = 1e-7  # added to the norm of a matrix before a division by it


def rounded(x: jax.Array) -> jax.Array:
  """Returns float32 numbers rounded to those of bfloat16, which no compiler undoes."""
  return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def orthogonalized(
  g_NOI: jax.Array, coefficients: Sequence[Sequence[float]], fused: bool
) -> jax.Array:
  """Returns nearly orthogonal matrices with the singular vectors of others, float32.

      X <- a X + (b A + c A A) X,   A = X X^T,   X = G / |G| at first

  Bit by bit the numbers of Jordan et al., 2024, whose code rounds each result to
  bfloat16, or, if `fused`, of PyTorch, which rounds a product and a sum once.

  g_NOI          N matrices
  coefficients   (a, b, c) of each step
  fused          whether a product and a sum are rounded once
  """
  tall = g_NOI.shape[-2] > g_NOI.shape[-1]
  x = rounded(jnp.swapaxes(g_NOI, -1, -2) if tall else g_NOI)
  norm = rounded(jnp.sqrt(jnp.sum(jnp.square(x), axis=(-2, -1), keepdims=True)))
  x = rounded(x / (jnp.maximum(norm, LEAST) if fused else rounded(norm + LEAST)))
  step = _fused_step if fused else _step
  for a, b, c in coefficients:
    x = step(x, a, b, c)
  return jnp.swapaxes(x, -1, -2) if tall else x


def _step(x, a, b, c):
  gram = rounded(_product(x, jnp.swapaxes(x, -1, -2)))
  inner = rounded(rounded(b * gram) + rounded(_product(rounded(c * gram), gram)))
  return rounded(rounded(a * x) + rounded(_product(inner, x)))


def _fused_step(x, a, b, c):
  gram = rounded(_product(x, jnp.swapaxes(x, -1, -2)))
  inner = rounded(b * gram + c * _product(gram, gram))
  return rounded(a * x + _product(inner, x))


def _product(x, y):
  """Returns a product of bfloat16 matrices with float32 sums."""
  # A transpose that jax 0.12 folds into such a product has no code on a CPU.
  x, y = jax.lax.optimization_barrier((x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)))
  return jnp.matmul(x, y, preferred_element_type=jnp.float32)


def each_matrix(
  function: Callable[[jax.Array], jax.Array], x: jax.Array, axes: MatrixAxes
) -> jax.Array:
  """Returns an array in which a function of matrices replaced each of them.

  function   of matrices [N, outputs, inputs], returns as many of that shape
  axes       indices of the inputs and outputs; all other axes count matrices

  >>> def twice(x_NOI):
  ...   assert x_NOI.shape == (5, 6, 8)
  ...   return 2 * x_NOI
  >>> layers_DHK = jnp.ones((5, 8, 2, 3))
  >>> axes = MatrixAxes(inputs=(-3,), outputs=(-2, -1))
  >>> each_matrix(twice, layers_DHK, axes).shape
  (5, 8, 2, 3)
  """
  outputs, inputs = ([n % x.ndim for n in side] for side in (axes.outputs, axes.inputs))
  batch = [n for n in range(x.ndim) if n not in outputs + inputs]
  order = batch + outputs + inputs
  sizes = [math.prod(x.shape[n] for n in side) for side in (batch, outputs, inputs)]
  moved = jnp.transpose(x, order)
  changed = function(moved.reshape(sizes)).reshape(moved.shape)
  return jnp.transpose(changed, [order.index(n) for n in range(x.ndim)])
