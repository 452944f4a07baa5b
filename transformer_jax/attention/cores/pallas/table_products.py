"""Products of vectors with rows of a table, of which a tile reads those it needs.

Encodings multiply each query, or each key, with a vector of the distance:

    found[a, b] = x_a . table[index[a, b]]

As it stands, a tile multiplies its vectors with the whole table, though it has only as
many distances as it has diagonals. Where the index is a clipped distance, a tile of
consecutive positions reads a band: as many consecutive rows. Outside of the kernel the
table gets copies of its first and last row, so that no band is cut; JAX adds up their
gradients. The gradient of a band is added to that of the table in fast memory.

For positions that are not consecutive the table is read in parts of 128 rows, from the
least to the greatest row that the tile needs. So are long tables with another index:
what a one-hot matrix of more than `gather.PART` rows becomes, TPUs' compiler refuses.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.extend.core import ClosedJaxpr, Literal

from transformer_jax.attention.cores.pallas import distance_index, gather
from transformer_jax.attention.cores.pallas.distance_index import DistanceIndex
from transformer_jax.numpy_interpreter import run_jaxpr

PART = 128  # rows of a table that are read together where the index is any


@dataclasses.dataclass(frozen=True, eq=False)
class Operands:
  """Variables of a product in the program of a hook.

  found   result, [A, B]
  x       vectors, [A, K]
  index   rows of the table, [A, B]
  table   [N, K], or [K, N]
  axis    of the table: that of its rows
  dot     parameters of the product: precision and type of the result
  """

  found: Any
  x: Any
  index: Any
  table: Any
  axis: int
  dot: dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class TableProduct:
  """Product of the vectors of a tile with rows of a table, and its gradients.

  of   variables in the program of the hook
  by   the index as a clipped distance; None: any index, without bands
  """

  of: Operands
  by: DistanceIndex | None

  @property
  def diagonals(self) -> int:
    """Returns the rows in a band: one for each diagonal of a tile, and one more."""
    return sum(self.of.index.aval.shape) if self.by else 0

  @property
  def rows(self) -> int:
    """Returns the rows of the table."""
    return self.of.table.aval.shape[self.of.axis]

  @property
  def backwards(self) -> bool:
    """Returns whether rows of the table come last first: a band's rows then ascend."""
    return self.by is not None and (self.by.slope > 0) != self.by.by_keys

  def extended(self, table: jax.Array) -> jax.Array:
    """Returns the table as tiles read it, [whole parts, K], float32."""
    table_NK = (table.T if self.of.axis else table).astype(jnp.float32)
    table_NK = table_NK[::-1] if self.backwards else table_NK
    W = self.diagonals
    more = ((W, W + -(2 * W + self.rows) % PART), (0, 0))
    return jnp.pad(table_NK, more, mode="edge")

  def value(self, way: str, table, x_AK, index_AB, base) -> jax.Array:
    """Returns found_AB.

    way        "band" for a tile of consecutive positions, else any
    table      reference to the extended table
    x_AK       vectors
    index_AB   rows of the table; not read in a band
    base       distance of the first query from the first key
    """
    A, B = self.of.index.aval.shape
    if self.by and way == "band":
      match_AW = self._dot(x_AK, table[self._band(self.by, table, base)], 1, 1)
      return pltpu.roll(match_AW, B, 1, stride=1, stride_axis=0)[:, :B]
    row_AB, inside_AB = self._row(index_AB)

    def add(n, found_AB):
      match_AP = self._dot(x_AK, table[pl.ds(n * PART, PART)], 1, 1)
      return found_AB + gather.lookup("loop", match_AP, row_AB - n * PART)

    found_AB = self._each_part(row_AB, add, jnp.zeros((A, B), self.of.found.aval.dtype))
    return jnp.where(inside_AB, found_AB, jnp.nan)

  def pull(self, way: str, table, sums, x_AK, index_AB, base, d_AB) -> jax.Array:
    """Returns the gradient of x_AK, and adds that of the table to `sums`.

    sums   reference to the gradient of the extended table, or None
    d_AB   gradient of found_AB

    way, table, x_AK, index_AB and base as in `value`.
    """
    A, W = len(x_AK), self.diagonals
    if self.by and way == "band":
      band = self._band(self.by, table, base)
      d_AW = pltpu.roll(gather.straighten(d_AB, W), A, 1)
      if sums is not None:
        sums[band] += self._dot(d_AW, x_AK, 0, 0)
      return self._dot(d_AW, table[band], 1, 0)
    row_AB, inside_AB = self._row(index_AB)
    d_AB = jnp.where(inside_AB, d_AB, 0.0)

    def add(n, d_x_AK):
      part = pl.ds(n * PART, PART)
      d_AP = gather.collect("loop", (A, PART), d_AB, row_AB - n * PART)
      if sums is not None:
        sums[part] += self._dot(d_AP, x_AK, 0, 0)
      return d_x_AK + self._dot(d_AP, table[part], 1, 0)

    return self._each_part(row_AB, add, jnp.zeros_like(x_AK))

  def _band(self, by: DistanceIndex, table, base):
    """Returns the rows of the extended table that a tile's diagonals read, in order.

    They ascend from the diagonal of the last row of the tile to that of its last
    column; far from the table all are copies of its first or last row.
    """
    A, N, W = self.of.index.aval.shape[0], self.rows, self.diagonals
    corner = base - A if by.by_keys else base + A
    first = by.first + by.slope * corner
    first = N - 1 - first if self.backwards else first
    start = jnp.clip(first + W, 0, table.shape[0] - W)
    return pl.ds(start, W)

  def _row(self, index_AB):
    """Returns rows of the extended table, and where the index is in the table."""
    last = self.rows - 1
    clipped_AB = jnp.clip(index_AB, 0, last)
    row_AB = last - clipped_AB if self.backwards else clipped_AB
    return row_AB + self.diagonals, clipped_AB == index_AB

  def _each_part(self, row_AB, step, start):
    first, end = jnp.min(row_AB) // PART, jnp.max(row_AB) // PART + 1
    return jax.lax.fori_loop(first, end, step, start)

  def _dot(self, x, y, x_axis, y_axis):
    axes = (((x_axis,), (y_axis,)), ((), ()))
    return jax.lax.dot_general(x, y.astype(x.dtype), axes, **self.of.dot)


def find(
  closed: ClosedJaxpr, eqns: Sequence[Any], known: set, pos: tuple, reach: int
) -> list[TableProduct]:
  """Returns the products with tables read by clipped distances, and with long ones.

  closed   program of a hook, calls inlined
  eqns     its equations in a tile
  known    variables that depend on parameters or constants alone
  pos      variables of the positions of queries and of keys
  reach    largest distance in the call; 0: the hook does not depend on distances
  """
  made = {v: eqn for eqn in eqns for v in eqn.outvars}
  found: list[TableProduct] = []
  later = set[Any]()  # variables that depend on a product's result
  for eqn in eqns:
    if later.intersection(v for v in eqn.invars if not isinstance(v, Literal)):
      later.update(eqn.outvars)
      continue
    of = _operands(eqn, made, known) if eqn.primitive.name == "gather" else None
    if of is None:
      continue
    by = _by_distance(closed, of, pos, reach)
    if by or of.table.aval.shape[of.axis] > gather.PART:
      found.append(TableProduct(of, by))
      later.update(eqn.outvars)
  return found


def _operands(eqn, made: dict, known: set) -> Operands | None:
  """Returns the operands of a gather from a product with a table; None: it is none."""
  match, index = eqn.invars
  dot = made.get(match)
  by_row = eqn.params["dimension_numbers"].operand_batching_dims == (0,)
  if not by_row or dot is None or dot.primitive.name != "dot_general":
    return None
  (x, table), params = dot.invars, dict(dot.params)
  (x_axes, axes), batch = params.pop("dimension_numbers")
  sizes = [v.aval.ndim for v in (x, table, index)]
  if sizes != [2, 2, 2] or x_axes != (1,) or batch != ((), ()):
    return None
  if isinstance(x, Literal) or x in known or table not in known:
    return None
  names = "precision", "preferred_element_type"
  of_dot = {name: params[name] for name in names}
  return Operands(eqn.outvars[0], x, index, table, 1 - axes[0], of_dot)


def _by_distance(closed, of: Operands, pos, reach: int) -> DistanceIndex | None:
  """Returns the index of a product as a clipped distance, or None."""
  index = _index(closed, of.index, pos) if reach else None
  if index is None:
    return None
  L, M = (v.aval.shape[0] for v in pos)
  return distance_index.fit(index, L, M, of.table.aval.shape[of.axis], reach)


def _index(closed, index, pos) -> Callable[..., Any] | None:
  """Returns an index as a function of positions, evaluated in NumPy.

  None where it depends on more than positions and constants.
  """
  jaxpr = closed.jaxpr
  need, eqns = {index}, []
  for eqn in reversed(jaxpr.eqns):
    if need.intersection(eqn.outvars):
      need.update(v for v in eqn.invars if not isinstance(v, Literal))
      eqns.append(eqn)
  need.difference_update(v for eqn in eqns for v in eqn.outvars)
  consts = dict(zip(jaxpr.constvars, closed.consts, strict=True))
  traced = {v for v, x in consts.items() if isinstance(x, jax.core.Tracer)}
  if not need <= {*pos, *consts} - traced:
    return None
  given = {v: x for v, x in consts.items() if v in need}
  part = jaxpr.replace(
    eqns=eqns[::-1],
    constvars=[],  # they are inputs, as jax 0.12 would make of them without constants
    invars=[*pos, *given],
    outvars=[index],
    debug_info=jaxpr.debug_info.with_unknown_names(),
  )
  own = ClosedJaxpr(part, [])
  return lambda *at: run_jaxpr(own, [*at, *given.values()])[0]
