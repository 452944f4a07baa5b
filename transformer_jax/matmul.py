"""Products of tokens with weights, and their gradients."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from transformer_jax.axes import axes_of
from transformer_jax.devices import gather_matrix, gather_width, platform, text_parts
from transformer_jax.remat import PRODUCT
from transformer_jax.weight_gradients import LANES, splits_width, sum_into_parts


def project(x: jax.Array, w: jax.Array, inputs: int, name: str = "") -> jax.Array:
  """Returns x contracted over its last `inputs` axes with the first of w.

  name   of the weights; a mesh splits them by its letters, and each device gathers them
         in the dtype of x

  In the dtype of x, accumulated in float32. On a CPU tokens are flattened into one
  axis, and weights into two: XLA fuses two axes better than three. Not the tokens where
  devices split texts: XLA could not split that axis, and would send all tokens to every
  device. On accelerators tokens stay, and heads are as attention's kernel reads them:
  flat if of 128 columns, else apart, for the compiler to order. Others are copied.
  """
  if platform() != "cpu":
    return checkpoint_name(_product(x, w, inputs, axes_of(name)), PRODUCT)
  tokens, inward, outward = x.shape[:-inputs], w.shape[:inputs], w.shape[inputs:]
  size = math.prod(inward)
  together = (-1,) if text_parts() == 1 else tokens
  y = _product(x.reshape(*together, size), w.reshape(size, -1), 1)
  return checkpoint_name(y.reshape(*tokens, *outward), PRODUCT)


def project_by(
  x: jax.Array, weights: Mapping[str, jax.Array], name: str, inputs: int = 1
) -> jax.Array:
  """Returns x projected by the weights of a name: see `project`."""
  return project(x, weights[name], inputs, name)


def whole_along_width(w: jax.Array, letters: str, dtype: Any) -> jax.Array:
  """Returns weights for products of other forms than `project`'s, in their dtype.

  letters   axis letters; accelerators gather what a mesh splits by `fsdp`
  """
  w = w.astype(dtype)
  return w if platform() == "cpu" else gather_matrix(w, letters)


def einsum(axes: str, x: jax.Array, w: jax.Array) -> jax.Array:
  """Returns an einsum of tokens and weights, for products of other forms.

  axes   as "BLD,XDF->BLXF": the weights' are their letters, and each is an axis either
         of x or of the result

  In the dtype of x, accumulated in float32. Where accelerators split the weights by
  width, these are gathered and their gradient is summed as that of `project` is.

  >>> x_BLD, w_DH = jnp.ones((1, 2, 3)), jnp.ones((3, 4))
  >>> einsum("BLD,DH->BLH", x_BLD, w_DH).shape
  (1, 2, 4)
  """
  inputs, _, after = axes.partition("->")
  before, _, letters = inputs.partition(",")
  if platform() == "cpu" or not splits_width(letters):
    y = jnp.einsum(axes, x, w.astype(x.dtype), preferred_element_type=jnp.float32)
    return y.astype(x.dtype)
  inward, outward = ([a for a in side if a in letters] for side in (before, after))
  order = "".join(inward + outward)
  w = jnp.transpose(w, [letters.index(letter) for letter in order])
  return checkpoint_name(_product(x, w, len(inward), order), PRODUCT)


def look_up(table_VD: jax.Array, token_BL: jax.Array) -> jax.Array:
  """Returns the rows of a table: x_BLD.

  Where accelerators split the table by width alone, each sums the gradient of its own
  tokens, and then gets its part of the sum over all.
  """
  if platform() == "cpu" or not splits_width("VD", alone=True):
    return gather_width(table_VD)[token_BL]
  return _look_up(table_VD, token_BL)


@jax.custom_vjp
def _look_up(table_VD, token_BL):
  return table_VD[token_BL]


def _save_tokens(table_VD, token_BL):
  return _look_up(table_VD, token_BL), (table_VD, token_BL)  # of the table, its shape


def _gradient_of_rows(residuals, d_x_BLD):
  """Returns the gradient of a table: of each row, the sum over its tokens."""
  table_VD, token_BL = residuals

  def of_tokens(token_BL, d_x_BLD, sums):
    zero_VD = jnp.zeros(table_VD.shape, d_x_BLD.dtype)
    _, add_up = jax.vjp(lambda table_VD: table_VD[token_BL], zero_VD)
    return sums(add_up(d_x_BLD)[0])

  d_VD = sum_into_parts(of_tokens, token_BL, d_x_BLD, table_VD.shape, "VD", tokens=2)
  return d_VD.astype(table_VD.dtype), None


_look_up.defvjp(_save_tokens, _gradient_of_rows)


def whole_by_name(params: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """Returns parameters for an attention core: see `whole_along_width`.

  >>> whole_by_name({"table_ND": jnp.ones((3, 2))})["table_ND"].shape
  (3, 2)
  """
  split = {name: axes_of(name) for name in params if splits_width(axes_of(name))}
  return {
    **params,
    **{n: whole_along_width(params[n], a, params[n].dtype) for n, a in split.items()},
  }


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x, w, inputs, letters=""):
  """Returns x contracted over its last `inputs` axes with the first of w."""
  tokens, outward = x.shape[: x.ndim - inputs], w.shape[inputs:]
  w = gather_matrix(w.astype(x.dtype), letters)
  if _heads_are_columns(w, inputs):
    x, w, inputs = x.reshape(*tokens, -1), _matrix(w, inputs), 1
  last = tuple(range(x.ndim - inputs, x.ndim))
  y = _dot(x, w, last, tuple(range(inputs))).astype(x.dtype)
  return y.reshape(*tokens, *outward)


def _heads_are_columns(w, inputs) -> bool:
  """Returns whether weights have an axis of heads, each of whole tiles of a TPU."""
  width = w.shape[-1] if inputs == 1 else w.shape[inputs - 1]
  return w.ndim == 3 and width % LANES == 0


def _matrix(w, inputs):
  return w.reshape(math.prod(w.shape[:inputs]), -1)


def _save(x, w, inputs, letters):
  return _product(x, w, inputs, letters), (x, w)


def _gradients(inputs, letters, residuals, d_y):
  """Returns the gradients of `_product`, with all operands in the dtype of x.

  JAX's gradient of a product with float32 accumulation has float32 operands, on CPUs
  with bfloat16 units five times slower. The narrow side of a weight's gradient comes
  first, because XLA on CPUs transposes the first at up to half the time.
  """
  x, w = residuals
  tokens, g, flat = x.ndim - inputs, d_y, _heads_are_columns(w, inputs)
  whole = gather_matrix(w.astype(d_y.dtype), letters)
  if flat:
    g, whole, inputs = g.reshape(*g.shape[:tokens], -1), _matrix(whole, inputs), 1
  outward = tuple(range(tokens, g.ndim)), tuple(range(inputs, whole.ndim))
  d_x = _dot(g, whole, *outward).astype(x.dtype).reshape(x.shape)
  product = functools.partial(_weight_gradient, tokens=tokens, flat=flat)
  d_w = sum_into_parts(product, x, d_y, w.shape, letters, tokens)
  return d_x, d_w.astype(w.dtype)


_product.defvjp(_save, _gradients)


def _weight_gradient(x, d_y, sums, tokens, flat):
  """Returns x^T d_y of one device's tokens, after `sums` over devices.

  flat   heads and their features are one axis
  """
  inward, outward = x.shape[tokens:], d_y.shape[tokens:]
  if flat:
    x, d_y = (each.reshape(*each.shape[:tokens], -1) for each in (x, d_y))
  d_w = sums(across(x, d_y, tokens))
  if flat:  # the barrier keeps XLA from giving heads an axis again, for which it copies
    d_w = jax.lax.optimization_barrier(d_w)
    inward = inward if len(inward) > 1 else d_w.shape[:1]
    outward = outward if len(outward) > 1 else d_w.shape[-1:]
    d_w = d_w.reshape(*inward, *outward)
  return d_w


def across(x: jax.Array, y: jax.Array, tokens: int = 1) -> jax.Array:
  """Returns x^T y, summed in float32 over the tokens: the gradient of weights.

  tokens   axes of tokens, with which x and y start

  On a CPU the narrow side comes first, because XLA there transposes the first at up to
  half the time.
  """
  axes = tuple(range(tokens))
  plain = functools.partial(_dot, a_axes=axes, b_axes=axes)
  if platform() != "cpu":
    return plain(x, y)
  if x.shape[-1] > y.shape[-1]:
    # The barrier keeps XLA from folding the transpose into the product.
    return jax.lax.optimization_barrier(across(y, x, tokens)).T
  if x.dtype != jnp.bfloat16 or tokens > 1:
    return plain(x, y)
  return jax.lax.platform_dependent(x, y, cpu=_across_on_cpu, default=plain)


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
