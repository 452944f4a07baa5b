"""Lowering of the hooks of encodings and variants to operations that kernels have.

A hook is traced once for a tile. Equations that depend on parameters alone run outside
of the kernel, once for each head; their results enter as tables. JAX differentiates
tables by the parameters. The other equations run in every tile unchanged, except that
tables are read by `lookup`, because kernels have no gather. Products with a table that
is read by distance are apart: see `table_products`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal

from transformer_jax.attention.cores.pallas import table_products
from transformer_jax.attention.cores.pallas.primitives import (
  READS,
  check,
  evaluate,
  value_of,
  variables,
)
from transformer_jax.attention.cores.pallas.table_products import TableProduct

CHEAP = {"broadcast_in_dim", "convert_element_type", "iota", "reshape", "squeeze"}


@dataclasses.dataclass(frozen=True, eq=False)
class Hook:
  """A function of (parameters of a head, tile) for tiles of fixed shapes.

  outer     own -> tables, computed once for each head; own: parameters of the head
  extended  own -> tables of products, which tiles read by references
  products  products with tables that are read by distance
  vectors   (table_lookup, tables, tile) -> vectors of each product
  indices   (table_lookup, tables, tile) -> index of each product
  inner     (table_lookup, tables, tile, found) -> result; found: of each product
  reads     whether it reads tables by index
  depth     the largest rank of an array in the tile
  largest   the most numbers in an array in the tile
  ops       names of the primitives in the tile
  uses      True for each leaf of the tile that it reads, as a tree like the tile
  """

  outer: Callable[[Any], list[jax.Array]]
  extended: Callable[[Any], list[jax.Array]]
  products: Sequence[TableProduct]
  vectors: Callable[..., list[jax.Array]]
  indices: Callable[..., list[jax.Array]]
  inner: Callable[..., Any]
  reads: bool
  depth: int
  largest: int
  ops: frozenset[str]
  uses: Any


def trace(
  function: Callable[[Any, Any], Any], own: Any, tile: Any, reach: int | None = None
) -> Hook:
  """Returns function(own, tile) as a Hook; equations of `own` alone are in `outer`.

  own    shapes of the parameters of a head
  tile   shapes of the tile
  reach  largest distance of positions; 0: the hook depends on more than distances. The
         tile then is a dict with pos_L and pos_M, and products with tables are apart.
         None: they are not
  """
  closed, out = jax.make_jaxpr(function, return_shape=True)(own, tile)
  program = _Split(_without_calls(closed), own, tile, reach)
  return program.hook(jax.tree.structure(out), jax.tree.structure(tile))


class _Split:
  """Program of a hook, split into what is computed before a kernel and within.

  closed   program of the hook, calls inlined
  own      shapes of the parameters of a head
  tile     shapes of the tile
  reach    as in `trace`
  """

  def __init__(self, closed: ClosedJaxpr, own: Any, tile: Any, reach: int | None):
    self.closed, jaxpr = closed, closed.jaxpr
    number = len(jax.tree.leaves(own))
    self.own, self.tile = jaxpr.invars[:number], jaxpr.invars[number:]
    self.before, within, of_arrays = _split(jaxpr, self.own)
    within = _flat_indices(within)
    made = {v for eqn in self.before for v in eqn.outvars}
    known = {*self.own, *jaxpr.constvars, *made}
    self.products: Sequence[TableProduct] = ()
    if reach is not None:
      at = jax.tree.unflatten(jax.tree.structure(tile), self.tile)
      pos = at["pos_L"], at["pos_M"]
      self.products = table_products.find(closed, within, known, pos, reach)
    found = {x.of.found for x in self.products}
    within = [eqn for eqn in within if not found.intersection(eqn.outvars)]
    operands = [v for x in self.products for v in (x.of.x, x.of.index)]
    self.wanted = [*jaxpr.outvars, *operands]
    within = _needed(within, self.wanted)
    order = [*self.own, *jaxpr.constvars, *(v for e in self.before for v in e.outvars)]
    self.within, self.tables = _tables(
      order, self.wanted, self.before, within, of_arrays
    )

  def hook(self, result, tile) -> Hook:
    """Returns the hook, with trees of its result and its tile."""
    outs = self._within(self.closed.jaxpr.outvars)
    every = [*_every(self.within)]
    for eqn in every:
      check(eqn)
    arrays = [v.aval for eqn in every for v in eqn.outvars]
    read = {*variables(self.wanted)}
    read.update(v for eqn in self.within for v in variables(eqn.invars))
    return Hook(
      outer=lambda own: [jnp.asarray(x) for x in self._before(own, self.tables)],
      extended=self._extended,
      products=self.products,
      vectors=self._within([x.of.x for x in self.products]),
      indices=self._within([x.of.index for x in self.products]),
      inner=lambda *args: jax.tree.unflatten(result, outs(*args)),
      reads=bool(self.products) or any(eqn.primitive.name in READS for eqn in every),
      depth=max([x.ndim for x in arrays], default=0),
      largest=max([x.size for x in arrays], default=0),
      ops=frozenset(eqn.primitive.name for eqn in every),
      uses=jax.tree.unflatten(tile, [v in read for v in self.tile]),
    )

  def _before(self, own, outvars):
    """Returns values of variables that depend on parameters or constants alone."""
    known = dict(zip(self.closed.jaxpr.constvars, self.closed.consts, strict=True))
    known |= zip(self.own, jax.tree.leaves(own), strict=True)
    evaluate(self.before, known, None)
    return [known[v] for v in outvars]

  def _extended(self, own):
    tables = self._before(own, [x.of.table for x in self.products])
    pairs = zip(self.products, tables, strict=True)
    return [product.extended(table) for product, table in pairs]

  def _within(self, outvars):
    """Returns a function of (table_lookup, tables, tile, found) for these variables."""
    eqns = _needed(self.within, outvars)
    names = [x.of.found for x in self.products]

    def run(table_lookup, tables, tile, found=()):
      known = dict(zip(self.tables, tables, strict=True))
      known |= zip(self.tile, jax.tree.leaves(tile), strict=True)
      known |= zip(names, found, strict=False)  # no operand depends on any
      evaluate(eqns, known, table_lookup)
      return [value_of(v, known) for v in outvars]

    return run


def _without_calls(closed):
  """Returns the program with all calls inlined."""

  def flat(*args):
    known = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    known |= zip(closed.jaxpr.invars, args, strict=True)
    evaluate(closed.jaxpr.eqns, known, None)
    return [value_of(v, known) for v in closed.jaxpr.outvars]

  return jax.make_jaxpr(flat)(*closed.in_avals)


def _split(jaxpr, own_vars):
  """Returns equations before and within the kernel, and variables that need memory.

  The latter depend on parameters or on constants that are arrays.
  """
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
  return before, within, of_arrays


def _tables(order, outvars, before, within, of_arrays):
  """Returns equations within the kernel, and the variables that it gets for them.

  What is cheap is computed within.

  order            variables known before the kernel
  outvars          variables that the kernel computes
  before, within   equations
  of_arrays        variables that need memory
  """
  known = {*order}
  need = known.intersection(variables(outvars)) | {
    v for eqn in within for v in variables(eqn.invars) if v in known
  }
  moved = []
  for eqn in reversed(before):
    cheap = eqn.primitive.name in CHEAP or not of_arrays.intersection(eqn.outvars)
    if cheap and need.intersection(eqn.outvars):
      need = need.difference(eqn.outvars) | {*variables(eqn.invars)}
      moved.append(eqn)
  return moved[::-1] + within, [v for v in order if v in need]


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
