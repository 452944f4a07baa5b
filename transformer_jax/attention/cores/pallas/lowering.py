"""Lowering of the hooks of encodings and variants to operations that kernels have.

A hook is traced once for a tile. Equations that depend on parameters alone run outside
of the kernel, once for each head; their results enter as tables. JAX differentiates
tables by the parameters. The other equations run in every tile unchanged, except that
tables are read by `lookup`, because kernels have no gather.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from transformer_jax.attention.cores.pallas.gather import (
  collect,
  lookup,
  trained_collect,
  trained_lookup,
)

CHEAP = {"broadcast_in_dim", "convert_element_type", "iota", "reshape", "squeeze"}
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}
# Custom gradients are for other processors: kernels use those of JAX.
CALLS |= {"custom_vjp_call": "call_jaxpr"}


class CannotLower(ValueError):
  """Raised if kernels lack a primitive; the message is its name."""


@dataclasses.dataclass(frozen=True)
class Way:
  """Table lookup of a kernel.

  name      row, band or loop, as in `gather`
  trained   by functions that have a gradient
  """

  name: str
  trained: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Hook:
  """A function of (parameters of a head, tile) for tiles of fixed shapes.

  outer   own -> tables, computed once for each head; own: parameters of the head
  inner   (way, tables, tile) -> result; `way` selects the table lookup
  reads   whether it reads tables by index
  depth   the largest rank of an array in the tile
  ops     names of the primitives in the tile
  uses    True for each leaf of the tile that it reads, as a tree like the tile
  """

  outer: Callable[[Any], list[jax.Array]]
  inner: Callable[..., Any]
  reads: bool
  depth: int
  ops: frozenset[str]
  uses: Any


def trace(function: Callable[[Any, Any], Any], own: Any, tile: Any) -> Hook:
  """Returns function(own, tile) as a Hook; equations of `own` alone are in `outer`.

  own    shapes of the parameters of a head
  tile   shapes of the tile
  """
  closed, out = jax.make_jaxpr(function, return_shape=True)(own, tile)
  closed = _without_calls(closed)
  jaxpr, treedef = closed.jaxpr, jax.tree.structure(out)
  own_vars = jaxpr.invars[: len(jax.tree.leaves(own))]
  tile_vars = jaxpr.invars[len(own_vars) :]
  before, within, tables = _split(jaxpr, own_vars)
  within = _needed(_flat_indices(within), jaxpr.outvars)

  def outer(own):
    known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known |= zip(own_vars, jax.tree.leaves(own), strict=True)
    _run(before, known, None)
    return [jnp.asarray(known[v]) for v in tables]

  def inner(way, values, tile):
    known = dict(zip(tables, values, strict=True))
    known |= zip(tile_vars, jax.tree.leaves(tile), strict=True)
    _run(within, known, way)
    return jax.tree.unflatten(treedef, [_value(v, known) for v in jaxpr.outvars])

  every = [*_every(within)]
  for eqn in every:
    _check(eqn)
  read = {*_variables(jaxpr.outvars)}.union(*(_variables(e.invars) for e in within))
  return Hook(
    outer,
    inner,
    any(eqn.primitive.name in READS for eqn in every),
    max([v.aval.ndim for eqn in every for v in eqn.outvars], default=0),
    frozenset(eqn.primitive.name for eqn in every),
    jax.tree.unflatten(jax.tree.structure(tile), [v in read for v in tile_vars]),
  )


def _without_calls(closed):
  """Returns the program with all calls inlined."""

  def flat(*args):
    known = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    known |= zip(closed.jaxpr.invars, args, strict=True)
    _run(closed.jaxpr.eqns, known, None)
    return [_value(v, known) for v in closed.jaxpr.outvars]

  return jax.make_jaxpr(flat)(*closed.in_avals)


def _split(jaxpr, own_vars):
  """Returns equations before and within the kernel, and the variables between them."""
  of_arrays, known = {*own_vars, *jaxpr.constvars}, {*own_vars, *jaxpr.constvars}
  before, within = [], []
  for eqn in jaxpr.eqns:
    inputs = {*_variables(eqn.invars)}
    if inputs <= known:
      before.append(eqn)
      known.update(eqn.outvars)
      if inputs & of_arrays:
        of_arrays.update(eqn.outvars)
    else:
      within.append(eqn)
  need = known.intersection(*[_variables(jaxpr.outvars)]) | {
    v for eqn in within for v in _variables(eqn.invars) if v in known
  }
  moved, kept = [], []
  for eqn in reversed(before):
    cheap = eqn.primitive.name in CHEAP or not of_arrays.intersection(eqn.outvars)
    if cheap and need.intersection(eqn.outvars):
      need = need.difference(eqn.outvars) | {*_variables(eqn.invars)}
      moved.append(eqn)
    else:
      kept.append(eqn)
  order = [*own_vars, *jaxpr.constvars, *(v for eqn in before for v in eqn.outvars)]
  return kept[::-1], moved[::-1] + within, [v for v in order if v in need]


def _flat_indices(eqns):
  """Returns equations whose lookups read index_LM, not its copy [L, M, 1]."""
  flat: dict[Any, Any] = {}  # copy: the variable that it repeats
  out = []
  for eqn in eqns:
    if eqn.primitive.name in READS and eqn.invars[1] in flat:
      invars = [eqn.invars[0], flat[eqn.invars[1]], *eqn.invars[2:]]
      eqn = eqn.replace(invars=invars)
    elif eqn.primitive.name in CHEAP and len(eqn.invars) == 1:
      (x,), (y,) = eqn.invars, eqn.outvars
      if not isinstance(x, Literal) and y.aval.shape == (*x.aval.shape, 1):
        flat[y] = x
    out.append(eqn)
  return out


def _needed(eqns, outvars):
  """Returns the equations that the results depend on."""
  need, kept = {*_variables(outvars)}, []
  for eqn in reversed(eqns):
    if need.intersection(eqn.outvars):
      need.update(_variables(eqn.invars))
      kept.append(eqn)
  return kept[::-1]


def _variables(atoms) -> Iterator[Any]:
  return (v for v in atoms if not isinstance(v, Literal))


def _value(v, known):
  return v.val if isinstance(v, Literal) else known[v]


def _every(eqns) -> Iterator[Any]:
  """Yields all equations, those inside of loops included."""
  for eqn in eqns:
    yield eqn
    if eqn.primitive.name == "scan":
      yield from _every(eqn.params["jaxpr"].jaxpr.eqns)


def _run(eqns, known, way) -> None:
  """Evaluates equations into `known`; with a `way`, by operations that kernels have."""
  for eqn in eqns:
    values = [_value(v, known) for v in eqn.invars]
    rule = RULES.get(eqn.primitive.name) if way else None
    if eqn.primitive.name in CALLS:
      out = _call(eqn.params[CALLS[eqn.primitive.name]], values, way)
    elif rule:
      out = rule(eqn, way, *values)
    else:
      params = eqn.primitive.get_bind_params(eqn.params)
      out = eqn.primitive.bind(*values, **params)
      out = out if eqn.primitive.multiple_results else [out]
    known |= zip(eqn.outvars, out, strict=True)


def _call(closed, values, way):
  known = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
  known |= zip(closed.jaxpr.invars, values, strict=True)
  _run(closed.jaxpr.eqns, known, way)
  return [_value(v, known) for v in closed.jaxpr.outvars]


def _gather(eqn, way, table, index):
  """Reads table_N[index_LM], or table_LN[l, index_LM[l, m]]."""
  index_LM = index if index.ndim == 2 else index[..., 0]
  N = eqn.invars[0].aval.shape[-1]  # the table itself may be longer: padded
  clipped_LM = jnp.clip(index_LM, 0, N - 1)
  table_RN = table[None] if table.ndim == 1 else table
  read = trained_lookup if way.trained else lookup
  out_LM = read(way.name, table_RN, clipped_LM)
  if eqn.params["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP:
    if jnp.issubdtype(out_LM.dtype, jnp.floating):
      out_LM = jnp.where(index_LM == clipped_LM, out_LM, jnp.nan)
  return [out_LM]


def _scatter_add(eqn, way, start_LN, index, x_LM):
  """Returns start_LN plus x_LM, summed by index_LM.

  eqn        the equation
  way        table lookup of the kernel
  start_LN   first summand
  index      index_LM, or index [L, M, 1]
  x_LM       entries to add
  """
  index_LM = index if index.ndim == 2 else index[..., 0]
  add = trained_collect if way.trained else collect
  return [start_LN + add(way.name, start_LN.shape, x_LM, index_LM)]


def _slice(eqn, way, table_N, at):
  """Reads one entry of a vector, as a loop over its entries does."""
  entry_1N = jax.lax.broadcasted_iota(jnp.int32, (1, table_N.shape[0]), 1)
  picked_1N = jnp.where(entry_1N == at, table_N[None], 0)
  return [jnp.sum(picked_1N).astype(table_N.dtype)[None]]


def _scan(eqn, way, *values):
  """Runs a scan that has no outputs but its carry."""
  consts, length = eqn.params["num_consts"], eqn.params["length"]
  closed = eqn.params["jaxpr"]
  step = lambda n, carry: tuple(_call(closed, [*values[:consts], *carry], way))
  return jax.lax.fori_loop(0, length, step, tuple(values[consts:]))


def _dot(eqn, way, x, y):
  """Multiplies matrices; with a vector by a sum, whose gradient is no outer product."""
  (x_axes, y_axes), _ = eqn.params["dimension_numbers"]
  if len(x_axes) != 1 or 1 not in (x.ndim, y.ndim):
    return [eqn.primitive.bind(x, y, **eqn.params)]
  (matrix, axis), (vector, _) = sorted(
    ((x, x_axes[0]), (y, y_axes[0])), key=lambda pair: -pair[0].ndim
  )
  sides = [-1 if n == axis else 1 for n in range(matrix.ndim)]
  out = jnp.sum(matrix * vector.reshape(sides), axis=axis)
  return [out.astype(eqn.outvars[0].aval.dtype)]


def _sign(eqn, way, x):
  """Returns the sign of a number."""
  one = jnp.ones((), x.dtype)
  return [jnp.where(x > 0, one, jnp.where(x < 0, -one, 0 * one))]


def _iota(eqn, way):
  """Returns an iota, computed in int32."""
  dtype, axis = eqn.params["dtype"], eqn.params["dimension"]
  count = jax.lax.broadcasted_iota(jnp.int32, eqn.params["shape"], axis)
  return [count.astype(dtype)]


Rule = Callable[..., Any]
READS: dict[str, Rule] = {"gather": _gather, "scatter-add": _scatter_add}
RULES: dict[str, Rule] = READS | {
  "dot_general": _dot,
  "dynamic_slice": _slice,
  "scan": _scan,
  "sign": _sign,
  "iota": _iota,
}


def _check(eqn) -> None:
  """Raises CannotLower for primitives that neither rules nor kernels have."""
  name, shapes = eqn.primitive.name, [v.aval.shape for v in eqn.invars]
  if name in REFUSED or (name in SERVED and not SERVED[name](eqn.params, *shapes)):
    raise CannotLower(name)


def _serves_gather(params, table, index):
  numbers = params["dimension_numbers"]
  if len(index) == 1 or {*params["slice_sizes"]} != {1}:
    return False
  alone = len(table) == 1
  by_row = len(table) == 2 and numbers.operand_batching_dims == (0,)
  return numbers.start_index_map == (len(table) - 1,) and (alone or by_row)


def _serves_scatter(params, start, index, x):
  numbers = params["dimension_numbers"]
  return len(start) == len(x) == 2 and numbers.operand_batching_dims == (0,)


SERVED: dict[str, Rule] = {
  "gather": _serves_gather,
  "scatter-add": _serves_scatter,
  "dynamic_slice": lambda params, table, *at: params["slice_sizes"] == (1,),
  "scan": lambda params, *_: params["num_carry"] + params["num_consts"] == len(_),
}
REFUSED = {
  *("scatter", "sort", "cumsum", "cumlogsumexp", "cumprod", "cummax", "while", "cond"),
  *("triangular_solve", "conv_general_dilated", "dynamic_update_slice", "rev", "fft"),
  *("reduce_window", "random_bits", "top_k", "argsort", "scatter_add", "lu", "erf_inv"),
}
