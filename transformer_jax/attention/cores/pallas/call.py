"""Calls of kernels: arguments, results, gradients and refusals."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.base import tiled_refusal
from transformer_jax.attention.cores.pallas import layout
from transformer_jax.attention.cores.pallas.lowering import Hook
from transformer_jax.attention.cores.pallas.primitives import CannotLower
from transformer_jax.attention.cores.pallas.score_program import ScoreProgram
from transformer_jax.attention.cores.pallas.score_terms import ScoreTerm, Sizes, shape
from transformer_jax.attention.variants.base import Variant
from transformer_jax.attention.variants.bound_variant import BoundVariant
from transformer_jax.axes import Dims, axes_of
from transformer_jax.positions import Bound, Coords

Tree = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
  """Static description of one call: the program, sizes, and shapes of tables.

  B, H, L, M   batch size, heads, and padded numbers of queries and keys
  tables       shapes of the tables of a head
  own_data     shapes of a head's token data: (of queries, of keys)
  sink_logit   whether the softmax has a sink
  form         order of axes in the arrays
  G            heads of keys and values
  visited      estimated share of tiles that are not masked
  """

  program: ScoreProgram
  B: int
  H: int
  L: int
  M: int
  tables: Tree
  own_data: tuple[Tree, Tree]
  sink_logit: bool
  form: layout.Layout
  G: int
  visited: float

  @property
  def tile(self) -> Sizes:
    return self.program.sizes


def call(backend, blocks, least, q_BLHK, k_BMGK, v_BMGE, context):
  """Returns o_BLHE by a backend's kernels, `forward` and `backward`.

  backend   kernels of a chip, with the order of axes that they read
  blocks    queries and keys in a tile: the first number whose tile fits is taken
  least     (queries, keys): the smallest tile that the chip takes
  context   coordinates, encoding, scale, variant and dropout

  q_BLHK, k_BMGK, v_BMGE as in `Core`.
  """
  bound, position = context.variant, context.position
  q_at, k_at = context.q_at, context.k_at
  if _small(position.encoding, bound.variant).prepared:
    position, q_at, k_at = position.prepare(q_at, k_at)
  context = dataclasses.replace(context, position=position, q_at=q_at, k_at=k_at)
  B, L, H, K = q_BLHK.shape
  M, E = k_BMGK.shape[1], v_BMGE.shape[-1]
  whole = Sizes(L=L, M=M, K=K, E=E, room=backend.room)
  program, used = _fitting(backend, blocks, least, whole, context)
  size, form = program.sizes, backend.form
  tables = _tables(program, context, H)
  queries = layout.queries(q_BLHK, q_at, _only(used[0], q_at.data), size.L, form)
  keys = layout.keys(k_BMGK, v_BMGE, k_at, _only(used[1], k_at.data), size.M, form)
  q_padded, k_padded = layout.padded(q_at, size.L), layout.padded(k_at, size.M)
  work = Work(
    program,
    B=B,
    H=H,
    L=q_padded.order_BL.shape[1],
    M=k_padded.order_BL.shape[1],
    tables=jax.tree.map(lambda x: shape(x.shape[1:], x.dtype), tables),
    own_data=(_own(q_at, size.L), _own(k_at, size.M)),
    sink_logit="sink_logit" in tables,
    form=form,
    G=k_BMGK.shape[2] if k_BMGK.shape[2] == v_BMGE.shape[2] else H,
    visited=layout.visited(bound, L, M, size),
  )
  where = {
    "mask_Bnn": layout.visible_tiles(bound, q_padded, k_padded, size.L, size.M),
    "shift_B": _shift(program, q_padded, k_padded),
  }
  tables = jax.tree.map(_as_matrix, tables)
  out = _flash(backend, work, tables, queries, keys, where)
  return form.tokens_first(out)[:, :L].astype(v_BMGE.dtype)


def _fitting(backend, blocks, least, whole, context):
  """Returns the program of the largest tile that fits, as `_program` does.

  backend   kernels of a chip
  blocks    queries and keys in a tile, largest first; the last one is taken unasked
  least     (queries, keys) in the smallest tile
  whole     sizes of the call
  context   prepared coordinates and encoding, and the variant
  """
  for block in blocks:
    sides = (whole.L, whole.M), least
    L, M = (layout.block_of(n, block, few) for n, few in zip(*sides, strict=True))
    size = dataclasses.replace(whole, L=L, M=M)
    found = _program(
      context.position, context.variant, size, context.q_at, context.k_at
    )
    if block == blocks[-1] or backend.fits(found[0]):
      return found
  raise ValueError("no size of a tile is given")


def _tables(program, context, H):
  """Returns the arrays of each head that depend on parameters alone.

  program   the traced score function
  context   encoding, scale and variant
  H         number of heads
  """
  position, bound = context.position, context.variant
  scale_H = jnp.broadcast_to(jnp.asarray(context.scale, jnp.float32), (H,))
  own_H = {"position": position.params, "variant": bound.params, "scale": scale_H}
  axes = {"position": position.head_axes, "variant": bound.head_axes, "scale": 0}
  tables = program.tables(own_H, axes)
  sink_logit_H = bound.sink_logit()
  if sink_logit_H is not None:
    tables["sink_logit"] = sink_logit_H.astype(jnp.float32)
  return tables


def _shift(program, q_at, k_at):
  if program.bands:
    return layout.shift(q_at, k_at)
  return jnp.zeros((1,), jnp.int32)


def _flash(backend, work, tables, queries, keys, where):
  """Returns the outputs of the forward kernel; gradients are the backward kernels'.

  backend   kernels of a chip
  work      static description of the call
  tables    arrays that depend on parameters alone, by head
  queries   arrays of queries
  keys      arrays of keys and values
  where     block mask and `shift_B`
  """

  @jax.custom_vjp
  def flash(tables, queries, keys, where):
    return backend.forward(work, tables, queries, keys, where)[0]

  def forward(tables, queries, keys, where):
    out, lse = backend.forward(work, tables, queries, keys, where)
    return out, (tables, queries, keys, where, out, lse)

  def backward(residuals, d_out):
    tables, queries, keys, where, out, lse = residuals
    rows = {"d_out": d_out, "lse": lse} | _delta_rows(work, out, d_out)
    d_tables, d_queries, d_keys = backend.backward(
      work, tables, queries | rows, keys, where
    )
    delta = d_queries.pop("delta", rows.get("delta"))
    if work.sink_logit:
      weight = jnp.exp(tables["sink_logit"] - lse)
      d_sink_logit_H = -jnp.sum(weight * delta, axis=(0, 2, 3))
      d_tables["sink_logit"] = d_sink_logit_H[:, None, None]
    if "mask" in tables:
      d_tables["mask"] = jax.tree.map(lambda x: None, tables["mask"])
    d_queries = _like(queries, d_queries | {"ints": None, "pos": None})
    d_keys = _like(keys, d_keys | {"ints": None, "pos": None})
    return _like(tables, d_tables), d_queries, d_keys, None

  flash.defvjp(forward, backward)
  return flash(tables, queries, keys, where)


def _delta_rows(work, out, d_out):
  """Returns what the backward kernels get to know delta: row sums of dO * O.

  Dao et al., section B.2. Where tokens come last, kernels compute it from the outputs.
  """
  if work.form.tokens_last:
    return {"out": out}
  product_BLHE = out.astype(jnp.float32) * d_out.astype(jnp.float32)
  return {"delta": jnp.swapaxes(jnp.sum(product_BLHE, axis=-1), 1, 2)[..., None]}


def _like(arrays, grads):
  """Returns gradients in the shapes and types of their arrays; None stays None."""
  return jax.tree.map(
    lambda x, d: None if d is None else _reduced(d, x),
    arrays,
    grads,
    is_leaf=lambda d: d is None,
  )


def _reduced(d, x):
  """Returns a gradient summed to the shape of its argument x, in the type of x."""
  B, H = d.shape[:2]
  if x.shape == d.shape:
    return d.astype(x.dtype)
  d = d.reshape(x.shape[0], B // x.shape[0], x.shape[1], H // x.shape[1], *d.shape[2:])
  return jnp.sum(d, axis=(1, 3)).astype(x.dtype)


def _program(position, bound, size, q_at, k_at):
  """Returns the traced score function and the names of token data that it reads.

  position     the bound encoding
  bound        the bound variant
  size         sizes of a tile
  q_at, k_at   coordinates
  """
  q_data, k_data = _own(q_at, size.L), _own(k_at, size.M)
  tokens = q_at.pos_BL.shape[1] + k_at.pos_BL.shape[1]
  size = dataclasses.replace(size, reach=tokens + size.L + size.M)
  program = ScoreProgram(
    position, bound, size, q_at.pos_BL.dtype, k_at.pos_BL.dtype, q_data, k_data
  )
  term = program.terms.get("score")
  uses = term.hook.uses if isinstance(term, ScoreTerm) else {"q_data": {}, "k_data": {}}
  q_names, k_names = (
    {n for n, used in uses[part].items() if used} for part in ("q_data", "k_data")
  )
  return program, (q_names, k_names)


def _only(names, data):
  return {n: x for n, x in data.items() if n in names}


def _own(at: Coords, size: int) -> Tree:
  """Returns shapes of the data of `size` tokens, for one head of one sequence."""

  def rest(n, x):
    return [s for a, s in zip(axes_of(n), x.shape, strict=True) if a not in "BLH"]

  return {n: shape((size, *rest(n, x)), x.dtype) for n, x in at.data.items()}


def _as_matrix(x_H):
  """Returns an array of [H, ...] with at least two axes after the first."""
  return x_H.reshape(x_H.shape[0], *[1] * (3 - x_H.ndim), *x_H.shape[1:])


def refusal(core, encoding, variant, dropout) -> str | None:
  """Returns why a kernel cannot serve an encoding, a variant or both, or None."""
  reason = tiled_refusal(core, encoding, variant, dropout)
  if reason:
    return reason
  for hook in ("dot", "pointwise"):
    if variant.overrides(hook):
      return (
        f"{variant.name} is no softmax of dot products, which is all that {core} has;"
        " use model.core=blockwise or dense"
      )
  if variant.overrides("score") or variant.reads_keys:
    return (
      f"{variant.name} reads data of tokens in each tile, which {core} does not load;"
      " use model.core=blockwise or dense"
    )
  lacking = _small(encoding, variant).lacking
  if lacking:
    return (
      f"{encoding.name} needs {lacking} in each tile, which {core} has no form of; use"
      " model.core=blockwise or dense"
    )
  return None


def hooks_of(encoding, room: bool) -> list[Hook]:
  """Returns the traced hooks of an encoding, for tiles of 16 x 16 and heads of 16.

  room   as in `Sizes`
  """
  terms = getattr(_small(encoding, Variant(), room).program, "terms", {})
  return [hook for term in terms.values() for hook in term.hooks]


@dataclasses.dataclass(frozen=True)
class _Small:
  """Score program of a small model.

  program    the program, or None
  prepared   whether its encoding must be prepared: what tiles lack is computed before
  lacking    name of the primitive that kernels lack, where there is no program
  """

  program: ScoreProgram | None
  prepared: bool
  lacking: str = ""


@functools.cache
def _small(encoding, variant, room: bool = True) -> _Small:
  """Returns the program of a small model, or the primitive that kernels lack."""
  lacking = ""
  for prepared in (False, True):
    try:
      return _Small(_small_program(encoding, variant, prepared, room), prepared)
    except CannotLower as error:
      lacking = lacking or str(error)
  return _Small(None, False, lacking)


def _small_program(encoding, variant, prepared, room) -> ScoreProgram:
  """Returns the program of a small model; raises CannotLower."""
  dims = Dims(V=8, D=32, H=2, F=8, L=16, K=16)
  none_BL = jnp.zeros((1, 16), jnp.int32)
  data = {name: none_BL for name in encoding.ids}
  at = Coords(none_BL, none_BL, none_BL, none_BL, data)

  def bound(key):
    params = encoding.init(key, dims) | encoding.constants(dims)
    return Bound(encoding, params), BoundVariant(variant, variant.init(key, dims))

  def read(position, x_BLD, q_BLHK):
    own_at = position.accumulate(position.read(x_BLD, q_BLHK, at))
    if prepared:
      return position.prepare(own_at, own_at)
    return position, own_at, own_at

  position, variant = jax.eval_shape(bound, jax.random.key(0))
  f32 = functools.partial(shape, dtype=jnp.float32)
  vectors = f32((1, 16, 32)), f32((1, 16, 2, 16))
  position, q_at, k_at = jax.eval_shape(read, position, *vectors)
  return _program(position, variant, Sizes(16, 16, 16, 16, room), q_at, k_at)[0]
