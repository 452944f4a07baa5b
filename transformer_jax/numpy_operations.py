"""Tables of JAX primitives in NumPy, by name, for `numpy_interpreter.py`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import scipy.special

Function = Callable[..., Any]

ELEMENTWISE: dict[str, Function] = {
  **{
    name: getattr(np, name)
    for name in "abs exp exp2 expm1 log log1p sin cos tan sinh cosh tanh sqrt cbrt"
    " square sign floor ceil logical_not".split()
  },
  "neg": np.negative,
  "asin": np.arcsin,
  "acos": np.arccos,
  "atan": np.arctan,
  "atan2": np.arctan2,
  "rsqrt": lambda x: 1 / np.sqrt(x),
  "logistic": scipy.special.expit,
  "erf": scipy.special.erf,
  "erf_inv": scipy.special.erfinv,
  "is_finite": np.isfinite,
  "add": np.add,
  "add_any": np.add,
  "sub": np.subtract,
  "mul": np.multiply,
  "max": np.maximum,
  "min": np.minimum,
  "pow": np.power,
  "rem": np.fmod,
  "eq": np.equal,
  "ne": np.not_equal,
  "lt": np.less,
  "le": np.less_equal,
  "gt": np.greater,
  "ge": np.greater_equal,
  "and": np.bitwise_and,
  "or": np.bitwise_or,
  "xor": np.bitwise_xor,
  "not": np.invert,
  "shift_left": np.left_shift,
  "shift_right_arithmetic": np.right_shift,
  "shift_right_logical": np.right_shift,
  "select_n": lambda which, *cases: (
    np.where(which, cases[1], cases[0])
    if which.dtype == bool
    else np.select([which == n for n in range(len(cases))], cases)
  ),
  "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
  "convert_element_type": lambda x: x,
  "stop_gradient": lambda x: x,
  "copy": lambda x: x,
  "copy_p": lambda x: x,
  "optimization_barrier": lambda *x: list(x),
}
REDUCE: dict[str, Callable[..., Any]] = {
  "reduce_sum": np.sum,
  "reduce_max": np.max,
  "reduce_min": np.min,
  "reduce_prod": np.prod,
  "reduce_and": np.all,
  "reduce_or": np.any,
}
ALONG = {"cumsum": np.cumsum, "cumprod": np.cumprod, "cummax": np.maximum.accumulate}
ALONG |= {"cummin": np.minimum.accumulate}
PICK = {"argmax": np.argmax, "argmin": np.argmin}


def _divide(x, y, **_):
  if np.issubdtype(x.dtype, np.integer):  # towards zero, as in C
    return np.where(y == 0, -1, np.trunc(x / np.where(y == 0, 1, y)))
  return x / y


def _broadcast(x, *_, out, broadcast_dimensions, **__):
  shape = [1] * len(out.shape)
  for size, axis in zip(x.shape, broadcast_dimensions, strict=True):
    shape[axis] = size
  return np.broadcast_to(x.reshape(shape), out.shape)


def _dot(x, y, *, out, dimension_numbers, **_):
  (contract_x, contract_y), (batch_x, batch_y) = dimension_numbers
  axes_x, axes_y = list(range(x.ndim)), list(range(x.ndim, x.ndim + y.ndim))
  pairs = *zip(contract_x, contract_y, strict=True), *zip(batch_x, batch_y, strict=True)
  for axis_x, axis_y in pairs:
    axes_y[axis_y] = axes_x[axis_x]
  free_x = [n for n in axes_x if n not in (*contract_x, *batch_x)]
  free_y = [n for n in axes_y if n >= x.ndim]
  kept = [axes_x[n] for n in batch_x] + free_x + free_y

  def wide(x):
    return x.astype(out.dtype, copy=False)

  return np.einsum(wide(x), axes_x, wide(y), axes_y, kept)


def _along(step, x, *, axis, reverse, **_):
  flip = functools.partial(np.flip, axis=axis) if reverse else lambda x: x
  return flip(step(flip(x), axis=axis))


def _pad(x, value, *, out, padding_config):
  padded = np.full(out.shape, value, x.dtype)
  into: list[Any] = []
  of: list[Any] = []
  for size, (low, _, inner) in zip(x.shape, padding_config, strict=True):
    at = low + (inner + 1) * np.arange(size)
    axis = len(of)
    of.append(np.flatnonzero((at >= 0) & (at < out.shape[axis])))
    into.append(at[of[-1]])
  padded[np.ix_(*into)] = x[np.ix_(*of)]
  return padded


def _window(x, starts, sizes):
  """Returns the slices of a dynamic slice, clamped to the array as in JAX."""
  limit = [max(0, a - b) for a, b in zip(x.shape, sizes, strict=True)]
  at = [int(np.clip(s, 0, n)) for s, n in zip(starts, limit, strict=True)]
  return tuple(slice(s, s + n) for s, n in zip(at, sizes, strict=True))


def _update(x, part, *starts, **_):
  x = x.copy()
  x[_window(x, starts, part.shape)] = part
  return x


def _pieces(x, *, out, sizes, axis):
  return np.split(x, np.cumsum(sizes)[:-1], axis)


def _gather(x, indices, *, out, dimension_numbers, slice_sizes, mode, fill_value, **_):
  d, batch = dimension_numbers, indices.shape[:-1]
  batching = d.operand_batching_dims, d.start_indices_batching_dims
  start_NR = _starts(indices, d.start_index_map, batching, x.ndim)
  start_NR, inside_N = _bounded(x.shape, start_NR, slice_sizes, mode)
  found = np.broadcast_to(
    x[_windows(start_NR, slice_sizes)], (len(start_NR), *slice_sizes)
  )
  if not np.all(inside_N):
    nothing = np.nan if np.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min
    found = found.copy()
    found[~inside_N] = nothing if fill_value is None else fill_value
  gone = *d.collapsed_slice_dims, *d.operand_batching_dims
  window = [size for n, size in enumerate(slice_sizes) if n not in gone]
  found = found.reshape(*batch, *window)
  return np.moveaxis(found, range(len(batch), found.ndim), d.offset_dims)


def _scatter(put, x, indices, more, *, out, dimension_numbers, mode, **_):
  """Returns x after `put(x, places, pieces)` at the slices that start at indices."""
  d, total = dimension_numbers, x.copy()
  batching = d.operand_batching_dims, d.scatter_indices_batching_dims
  gone = *d.inserted_window_dims, *d.operand_batching_dims
  axes = iter(d.update_window_dims)
  sizes = [1 if n in gone else more.shape[next(axes)] for n in range(x.ndim)]
  start_NR = _starts(indices, d.scatter_dims_to_operand_dims, batching, x.ndim)
  start_NR, inside_N = _bounded(x.shape, start_NR, sizes, mode)
  last = range(more.ndim - len(d.update_window_dims), more.ndim)
  piece_N = np.moveaxis(more, d.update_window_dims, last)
  piece_N = piece_N.reshape(len(start_NR), *sizes)
  put(total, _windows(start_NR[inside_N], sizes), piece_N[inside_N])
  return total


def _sort(*x, out, dimension, num_keys, **_):
  order = np.argsort(x[0], axis=dimension, kind="stable")
  if num_keys > 1:
    raise ValueError("one key at a time")
  return [np.take_along_axis(array, order, axis=dimension) for array in x]


def _starts(indices, axes, batching, rank):
  """Returns start_NR: where the slice of each index starts, in the array's R axes.

  indices    starts along `axes`, in the last axis
  axes       axes of the array that the last axis of indices refers to
  batching   batch axes of the array and of indices
  rank       of the array
  """
  start = np.zeros((*indices.shape[:-1], rank), int)
  start[..., list(axes)] = indices
  for axis, of_place in zip(*batching, strict=True):
    start[..., axis] = np.indices(indices.shape[:-1])[of_place]
  return start.reshape(-1, rank)


def _bounded(shape, start_NR, sizes, mode):
  """Returns the starts of slices inside an array, and which of them count.

  shape   of the array
  sizes   of the slices
  mode    of out-of-bounds slices: those of mode "fill" do not count
  """
  kept_NR = np.clip(start_NR, 0, np.array(shape, int) - np.array(sizes, int))
  drop = "FILL" in str(jax.lax.GatherScatterMode.from_any(mode)).upper()
  return kept_NR, (not drop) | np.all(kept_NR == start_NR, axis=1)


def _windows(start_NR, sizes):
  """Returns the index of slices of these sizes, an array by axis."""
  rank = len(sizes)
  along = np.ix_(*map(np.arange, sizes))
  starts = start_NR.T.reshape(rank, -1, *[1] * rank)
  return tuple(start + n for start, n in zip(starts, along, strict=True))


def _put(total, places, pieces):
  total[places] = pieces


SHAPED: dict[str, Function] = {
  "bitcast_convert_type": lambda x, out, **_: np.asarray(x).view(out.dtype),
  "sort": _sort,
  "gather": _gather,
  "scatter": functools.partial(_scatter, _put),
  "scatter-add": functools.partial(_scatter, np.add.at),
  "div": _divide,
  "integer_pow": lambda x, out, y: x.astype(out.dtype) ** y if y >= 0 else 1 / x**-y,
  "round": lambda x, out, rounding_method: (
    np.round(x) if int(rounding_method) else np.trunc(x + np.copysign(0.5, x))
  ),
  "iota": lambda out, dimension, **_: np.broadcast_to(
    np.arange(out.shape[dimension]).reshape(
      [-1 if n == dimension else 1 for n in range(len(out.shape))]
    ),
    out.shape,
  ),
  "broadcast_in_dim": _broadcast,
  "reshape": lambda x, out, **_: x.reshape(out.shape),
  "squeeze": lambda x, out, **_: x.reshape(out.shape),
  "expand_dims": lambda x, out, **_: x.reshape(out.shape),
  "transpose": lambda x, out, permutation: np.transpose(x, permutation),
  "rev": lambda x, out, dimensions: np.flip(x, dimensions),
  "concatenate": lambda *x, out, dimension: np.concatenate(x, dimension),
  "empty2": lambda out, **_: np.zeros(out.shape),
  "split": _pieces,
  "tile": lambda x, out, reps: np.tile(x, reps),
  "stack": lambda *x, out, axis: np.stack(x, axis),
  "unstack": lambda x, out, axis: list(np.moveaxis(x, axis, 0)),
  "slice": lambda x, out, start_indices, limit_indices, strides: x[
    tuple(map(slice, start_indices, limit_indices, strides or [1] * x.ndim))
  ],
  "dynamic_slice": lambda x, *starts, out, slice_sizes: x[
    _window(x, starts, slice_sizes)
  ],
  "dynamic_update_slice": _update,
  "pad": _pad,
  "dot_general": _dot,
  **{
    name: functools.partial(
      lambda pick, x, out, axes, index_dtype: pick(x, axis=axes[0]), pick
    )
    for name, pick in PICK.items()
  },
  **{name: functools.partial(_along, step) for name, step in ALONG.items()},
}
