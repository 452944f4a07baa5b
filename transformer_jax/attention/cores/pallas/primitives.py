"""Primitives in kernels: how equations of hooks are evaluated, which are refused."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from transformer_jax.attention.cores.pallas.gather import (
  collect,
  lookup,
  trained_collect,
  trained_lookup,
)
from transformer_jax.numpy_interpreter import by_step

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}
# Custom gradients are for other processors: kernels use those of JAX.
CALLS |= {"custom_vjp_call": "call_jaxpr"}


class CannotLower(ValueError):
  """Raised if kernels lack a primitive; the message is its name."""


@dataclasses.dataclass(frozen=True)
class TableLookup:
  """Table lookup of a kernel.

  way       row, band, loop or range, as in `gather`
  trained   by functions that have a gradient
  """

  way: str
  trained: bool = True

  @property
  def padded(self) -> bool:
    """Returns whether the kernel takes arrays of powers of two alone: Triton's."""
    return self.way == "range"


def variables(atoms) -> Iterator[Any]:
  """Yields the variables among the inputs or outputs of an equation."""
  return (v for v in atoms if not isinstance(v, Literal))


def value_of(v, known):
  """Returns the value of a variable or a literal."""
  return v.val if isinstance(v, Literal) else known[v]


def evaluate(eqns, known, table_lookup) -> None:
  """Evaluates equations into `known`.

  table_lookup   that of a kernel, which then evaluates by operations that it has; None:
                 outside of kernels
  """
  for eqn in eqns:
    values = [value_of(v, known) for v in eqn.invars]
    rule = RULES.get(eqn.primitive.name) if table_lookup else None
    if eqn.primitive.name in CALLS:
      out = _call(eqn.params[CALLS[eqn.primitive.name]], values, table_lookup)
    elif rule:
      out = rule(eqn, table_lookup, *values)
    else:
      params = eqn.primitive.get_bind_params(eqn.params)
      out = eqn.primitive.bind(*values, **params)
      out = out if eqn.primitive.multiple_results else [out]
    known |= zip(eqn.outvars, out, strict=True)


def _call(closed, values, table_lookup):
  known = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
  known |= zip(closed.jaxpr.invars, values, strict=True)
  evaluate(closed.jaxpr.eqns, known, table_lookup)
  return [value_of(v, known) for v in closed.jaxpr.outvars]


def _gather(eqn, table_lookup, table, index):
  """Reads table_N[index_LM], or table_LN[l, index_LM[l, m]]."""
  index_LM = index if index.ndim == 2 else index[..., 0]
  N = eqn.invars[0].aval.shape[-1]  # the table itself may be longer: padded
  clipped_LM = jnp.clip(index_LM, 0, N - 1)
  table_RN = table[None] if table.ndim == 1 else table
  floats = jnp.issubdtype(table.dtype, jnp.floating)  # others have no gradient
  read = trained_lookup if table_lookup.trained and floats else lookup
  out_LM = read(table_lookup.way, table_RN, clipped_LM)
  if eqn.params["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP:
    if jnp.issubdtype(out_LM.dtype, jnp.floating):
      out_LM = jnp.where(index_LM == clipped_LM, out_LM, jnp.nan)
  return [out_LM]


def _scatter_add(eqn, table_lookup, start_LN, index, x_LM):
  """Returns start_LN plus x_LM, summed by index_LM.

  eqn            the equation
  table_lookup   of the kernel
  start_LN       first summand
  index          index_LM, or index [L, M, 1]
  x_LM           entries to add
  """
  index_LM = index if index.ndim == 2 else index[..., 0]
  add = trained_collect if table_lookup.trained else collect
  return [start_LN + add(table_lookup.way, start_LN.shape, x_LM, index_LM)]


def _slice(eqn, table_lookup, table_N, at):
  """Reads one entry of a vector, as a loop over its entries does."""
  entry_1N = jax.lax.broadcasted_iota(jnp.int32, (1, table_N.shape[0]), 1)
  picked_1N = jnp.where(entry_1N == at, table_N[None], 0)
  return [jnp.sum(picked_1N).astype(table_N.dtype)[None]]


def _scan(eqn, table_lookup, *values):
  """Runs a scan that has no outputs but its carry."""
  consts, length = len(values) - len(eqn.outvars), eqn.params["length"]
  closed = eqn.params["jaxpr"]

  def step(n, carry):
    return tuple(_call(closed, [*values[:consts], *carry], table_lookup))

  return jax.lax.fori_loop(0, length, step, tuple(values[consts:]))


def _dot(eqn, table_lookup, x, y):
  """Multiplies matrices; with a vector by a sum, whose gradient is no outer product."""
  (x_axes, y_axes), batch = eqn.params["dimension_numbers"]
  if table_lookup.padded and (len(x_axes) != 1 or batch != ((), ())):
    return [_by_sums(eqn, x, y)]
  if len(x_axes) != 1 or 1 not in (x.ndim, y.ndim):
    return [eqn.primitive.bind(x, y, **eqn.params)]
  (matrix, axis), (vector, _) = sorted(
    ((x, x_axes[0]), (y, y_axes[0])), key=lambda pair: -pair[0].ndim
  )
  sides = [-1 if n == axis else 1 for n in range(matrix.ndim)]
  out = jnp.sum(matrix * vector.reshape(sides), axis=axis)
  return [out.astype(eqn.outvars[0].aval.dtype)]


def _by_sums(eqn, x, y):
  """Returns a product that is none of two matrices, by sums of products of numbers."""
  (x_axes, y_axes), (x_batch, y_batch) = eqn.params["dimension_numbers"]
  x_free, y_free = (
    [n for n in range(z.ndim) if n not in (*axes, *batch)]
    for z, axes, batch in ((x, x_axes, x_batch), (y, y_axes, y_batch))
  )
  x = _ordered(x, (*x_batch, *x_free, *x_axes))
  y = _ordered(y, (*y_batch, *y_free, *y_axes))
  B, F, C = len(x_batch), len(x_free), len(x_axes)
  x = x.reshape(*x.shape[: B + F], *[1] * len(y_free), *x.shape[B + F :])
  y = y.reshape(*y.shape[:B], *[1] * F, *y.shape[B:])
  out = x * y
  out = jnp.sum(out, axis=tuple(range(out.ndim - C, out.ndim))) if C else out
  return out.astype(eqn.outvars[0].aval.dtype)


def _ordered(x, axes):
  """Returns an array with its axes in this order."""
  return x if axes == tuple(range(x.ndim)) else jnp.transpose(x, axes)


def _sign(eqn, table_lookup, x):
  """Returns the sign of a number."""
  one, minus, zero = (np.array(n, x.dtype) for n in (1, -1, 0))
  return [jnp.where(x > 0, one, jnp.where(x < 0, minus, zero))]


def _iota(eqn, table_lookup):
  """Returns an iota, computed in int32."""
  dtype, axis = eqn.params["dtype"], eqn.params["dimension"]
  shape = _shape(table_lookup, eqn.params["shape"])
  return [jax.lax.broadcasted_iota(jnp.int32, shape, axis).astype(dtype)]


def _broadcast(eqn, table_lookup, x):
  """Returns a broadcast array, as long as the padded tables that it meets."""
  shape = _shape(table_lookup, eqn.params["shape"])
  return [jax.lax.broadcast_in_dim(x, shape, eqn.params["broadcast_dimensions"])]


def _shape(table_lookup, shape):
  return tuple(map(power_of_two, shape)) if table_lookup.padded else shape


def power_of_two(n: int) -> int:
  """Returns the least power of two that is not below n.

  >>> [power_of_two(n) for n in (1, 33, 64)]
  [1, 64, 64]
  """
  return 2 ** (n - 1).bit_length()


Rule = Callable[..., Any]
READS: dict[str, Rule] = {"gather": _gather, "scatter-add": _scatter_add}
RULES: dict[str, Rule] = READS | {
  "dot_general": _dot,
  "dynamic_slice": _slice,
  "scan": _scan,
  "sign": _sign,
  "iota": _iota,
  "broadcast_in_dim": _broadcast,
}


def check(eqn) -> None:
  """Raises CannotLower for primitives that neither rules nor kernels have."""
  name, shapes = eqn.primitive.name, [v.aval.shape for v in eqn.invars]
  if name in REFUSED or (name in SERVED and not SERVED[name](eqn, *shapes)):
    raise CannotLower(name)


def _serves_gather(eqn, table, index):
  numbers = eqn.params["dimension_numbers"]
  if len(index) == 1 or {*eqn.params["slice_sizes"]} != {1}:
    return False
  alone = len(table) == 1
  by_row = len(table) == 2 and numbers.operand_batching_dims == (0,)
  return numbers.start_index_map == (len(table) - 1,) and (alone or by_row)


def _serves_scatter(eqn, start, index, x):
  numbers = eqn.params["dimension_numbers"]
  return len(start) == len(x) == 2 and numbers.operand_batching_dims == (0,)


def _serves_scan(eqn, *shapes):
  """Returns whether a loop has nothing but its carry: no arrays go by step."""
  step = eqn.params["jaxpr"]
  return not (by_step(eqn.invars, step.in_avals) + by_step(eqn.outvars, step.out_avals))


SERVED: dict[str, Rule] = {
  "gather": _serves_gather,
  "scatter-add": _serves_scatter,
  "dynamic_slice": lambda eqn, table, *at: eqn.params["slice_sizes"] == (1,),
  "scan": _serves_scan,
}
REFUSED = {
  *("scatter", "sort", "cumsum", "cumlogsumexp", "cumprod", "cummax", "while", "cond"),
  *("triangular_solve", "conv_general_dilated", "dynamic_update_slice", "rev", "fft"),
  *("reduce_window", "random_bits", "top_k", "argsort", "scatter_add", "lu", "erf_inv"),
}
