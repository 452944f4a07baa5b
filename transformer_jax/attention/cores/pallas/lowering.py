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

from transformer_jax.attention.cores.pallas.primitives import (
  READS,
  check,
  evaluate,
  value_of,
  variables,
)

CHEAP = {"broadcast_in_dim", "convert_element_type", "iota", "reshape", "squeeze"}


@dataclasses.dataclass(frozen=True, eq=False)
class Hook:
  """A function of (parameters of a head, tile) for tiles of fixed shapes.

  outer   own -> tables, computed once for each head; own: parameters of the head
  inner   (table_lookup, tables, tile) -> result
  reads   whether it reads tables by index
  depth   the largest rank of an array in the tile
  largest the most numbers in an array in the tile
  ops     names of the primitives in the tile
  uses    True for each leaf of the tile that it reads, as a tree like the tile
  """

  outer: Callable[[Any], list[jax.Array]]
  inner: Callable[..., Any]
  reads: bool
  depth: int
  largest: int
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
    evaluate(before, known, None)
    return [jnp.asarray(known[v]) for v in tables]

  def inner(table_lookup, values, tile):
    known = dict(zip(tables, values, strict=True))
    known |= zip(tile_vars, jax.tree.leaves(tile), strict=True)
    evaluate(within, known, table_lookup)
    return jax.tree.unflatten(treedef, [value_of(v, known) for v in jaxpr.outvars])

  every = [*_every(within)]
  for eqn in every:
    check(eqn)
  read = {*variables(jaxpr.outvars)}.union(*(variables(e.invars) for e in within))
  return Hook(
    outer,
    inner,
    any(eqn.primitive.name in READS for eqn in every),
    max([v.aval.ndim for eqn in every for v in eqn.outvars], default=0),
    max([v.aval.size for eqn in every for v in eqn.outvars], default=0),
    frozenset(eqn.primitive.name for eqn in every),
    jax.tree.unflatten(jax.tree.structure(tile), [v in read for v in tile_vars]),
  )


def _without_calls(closed):
  """Returns the program with all calls inlined."""

  def flat(*args):
    known = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    known |= zip(closed.jaxpr.invars, args, strict=True)
    evaluate(closed.jaxpr.eqns, known, None)
    return [value_of(v, known) for v in closed.jaxpr.outvars]

  return jax.make_jaxpr(flat)(*closed.in_avals)


def _split(jaxpr, own_vars):
  """Returns equations before and within the kernel, and the variables between them."""
  of_arrays, known = {*own_vars, *jaxpr.constvars}, {*own_vars, *jaxpr.constvars}
  before, within = [], []
  for eqn in jaxpr.eqns:
    inputs = {*variables(eqn.invars)}
    if inputs <= known:
      before.append(eqn)
      known.update(eqn.outvars)
      if inputs & of_arrays:
        of_arrays.update(eqn.outvars)
    else:
      within.append(eqn)
  need = known.intersection(*[variables(jaxpr.outvars)]) | {
    v for eqn in within for v in variables(eqn.invars) if v in known
  }
  moved, kept = [], []
  for eqn in reversed(before):
    cheap = eqn.primitive.name in CHEAP or not of_arrays.intersection(eqn.outvars)
    if cheap and need.intersection(eqn.outvars):
      need = need.difference(eqn.outvars) | {*variables(eqn.invars)}
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
  need, kept = {*variables(outvars)}, []
  for eqn in reversed(eqns):
    if need.intersection(eqn.outvars):
      need.update(variables(eqn.invars))
      kept.append(eqn)
  return kept[::-1]


def _every(eqns) -> Iterator[Any]:
  """Yields all equations, those inside of loops included."""
  for eqn in eqns:
    yield eqn
    if eqn.primitive.name == "scan":
      yield from _every(eqn.params["jaxpr"].jaxpr.eqns)
