"""Calls of kernels: arguments, results, gradients and refusals."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.base import tiled_refusal
from transformer_jax.attention.cores.pallas import layout
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
  """

  program: ScoreProgram
  B: int
  H: int
  L: int
  M: int
  tables: Tree
  own_data: tuple[Tree, Tree]
  sink_logit: bool

  @property
  def tile(self) -> Sizes:
    return self.program.sizes


def call(backend, block, least, q_BLHK, k_BMGK, v_BMGE, context):
  """Returns o_BLHE by a backend's kernels, `forward` and `backward`.

  backend   kernels of a chip
  block     queries and keys in a tile
  least     (queries, keys): the smallest tile that the chip takes
  context   coordinates, encoding, scale, variant and dropout

  q_BLHK, k_BMGK, v_BMGE as in `Core`.
  """
  q_at, k_at, bound = context.q_at, context.k_at, context.variant
  B, L, H, K = q_BLHK.shape
  M, E = k_BMGK.shape[1], v_BMGE.shape[-1]
  size = Sizes(
    L=layout.block_of(L, block, least[0]),
    M=layout.block_of(M, block, least[1]),
    K=K,
    E=E,
    room=backend.room,
  )
  program, used = _program(context.position, bound, size, q_at, k_at)
  tables = _tables(program, context, H)
  queries = layout.queries(q_BLHK, q_at, _only(used[0], q_at.data), size.L)
  keys = layout.keys(k_BMGK, v_BMGE, k_at, _only(used[1], k_at.data), size.M)
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
  )
  where = {
    "mask_Bnn": layout.visible_tiles(bound, q_padded, k_padded, size.L, size.M),
    "shift_B": _shift(program, q_padded, k_padded),
  }
  tables = jax.tree.map(_as_matrix, tables)
  out_BHLE = _flash(backend, work, tables, queries, keys, where)
  return jnp.moveaxis(out_BHLE, 1, 2)[:, :L].astype(v_BMGE.dtype)


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
  """Returns out_BHLE of the forward kernel; gradients are from the backward kernel.

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
    out_BHLE, lse_BHL1 = backend.forward(work, tables, queries, keys, where)
    return out_BHLE, (tables, queries, keys, where, out_BHLE, lse_BHL1)

  def backward(residuals, d_out_BHLE):
    tables, queries, keys, where, out_BHLE, lse_BHL1 = residuals
    # delta: row sums of dO * O (Dao et al., section B.2).
    product = out_BHLE.astype(jnp.float32) * d_out_BHLE.astype(jnp.float32)
    rows = {
      "d_out": d_out_BHLE,
      "lse": lse_BHL1,
      "delta": jnp.sum(product, axis=-1, keepdims=True),
    }
    d_tables, d_queries, d_keys = backend.backward(
      work, tables, queries | rows, keys, where
    )
    if work.sink_logit:
      weight_BHL1 = jnp.exp(tables["sink_logit"] - lse_BHL1)
      d_sink_logit_H = -jnp.sum(weight_BHL1 * rows["delta"], axis=(0, 2, 3))
      d_tables["sink_logit"] = d_sink_logit_H[:, None, None]
    if "mask" in tables:
      d_tables["mask"] = jax.tree.map(lambda x: None, tables["mask"])
    d_queries = _like(queries, d_queries | {"ints": None, "pos": None})
    d_keys = _like(keys, d_keys | {"ints": None, "pos": None})
    return _like(tables, d_tables), d_queries, d_keys, None

  flash.defvjp(forward, backward)
  return flash(tables, queries, keys, where)


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
  found = _small(encoding, variant)
  if isinstance(found, str):
    return (
      f"{encoding.name} needs {found} in each tile, which {core} has no form of; use"
      " model.core=blockwise or dense"
    )
  return None


def deep(encoding) -> bool:
  """Returns whether an encoding's bias makes arrays of [L, M, W]."""
  term = getattr(_small(encoding, Variant()), "terms", {}).get("score")
  return term is not None and term.hooks[0].depth > 2


@functools.cache
def _small(encoding, variant) -> ScoreProgram | str:
  """Returns the program of a small model, or the primitive that kernels lack."""
  dims = Dims(V=8, D=32, H=2, F=8, L=16, K=16)
  none_BL = jnp.zeros((1, 16), jnp.int32)
  data = {name: none_BL for name in encoding.ids}
  at = Coords(none_BL, none_BL, none_BL, none_BL, data)

  def bound(key):
    params = encoding.init(key, dims) | encoding.constants(dims)
    return Bound(encoding, params), BoundVariant(variant, variant.init(key, dims))

  def read(position, x_BLD, q_BLHK):
    return position.accumulate(position.read(x_BLD, q_BLHK, at))

  position, bound = jax.eval_shape(bound, jax.random.key(0))
  f32 = functools.partial(shape, dtype=jnp.float32)
  at = jax.eval_shape(read, position, f32((1, 16, 32)), f32((1, 16, 2, 16)))
  try:
    return _program(position, bound, Sizes(16, 16, 16, 16), at, at)[0]
  except CannotLower as error:
    return str(error)
