"""Interpreter of JAX functions in NumPy: no compilation, no device.

Compiling a small function takes hundreds of milliseconds, running it microseconds. For
a few numbers its jaxpr is interpreted, operation by operation. Operations without an
entry in the tables below run in JAX, slower and with the same results. Random bits are
drawn in order from one generator, whatever the key.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from transformer_jax.numpy_operations import ELEMENTWISE, REDUCE, SHAPED


@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
  """Traced function that runs in NumPy; arguments are pytrees of arrays.

  jaxpr   operations of the function
  tree    structure of the result

  >>> run = trace(lambda x: {"sum": x.sum(), "product": x.prod()}, np.ones(3))
  >>> found = run(np.array([1.0, 2.0, 4.0]))
  >>> float(found["sum"]), float(found["product"])
  (7.0, 8.0)
  """

  jaxpr: ClosedJaxpr
  tree: Any

  def __call__(self, *args: Any) -> Any:
    BITS.bit_generator.state = np.random.default_rng(0).bit_generator.state
    with np.errstate(all="ignore"):
      outs = run_jaxpr(self.jaxpr, jax.tree.leaves(args))
    return jax.tree.unflatten(self.tree, outs)


def evaluate(function: Callable[..., Any], *args: Any) -> Any:
  """Returns `function(*args)` as NumPy arrays; args are pytrees of arrays."""
  return trace(function, *args)(*args)


def trace(function: Callable[..., Any], *args: Any) -> Traced:
  """Returns the traced function, for arrays of these shapes."""
  jaxpr, shape = jax.make_jaxpr(function, return_shape=True)(*args)
  return Traced(jaxpr, jax.tree.structure(shape))


def without(run: Traced, name: str) -> Traced:
  """Returns a traced function without one entry of its outputs, a dict by name."""
  outs = jax.tree.unflatten(run.tree, run.jaxpr.jaxpr.outvars)
  left = {key: out for key, out in outs.items() if key != name}
  wanted, tree = jax.tree.flatten(left)
  jaxpr = run.jaxpr.jaxpr
  info = jaxpr.debug_info.with_unknown_names()
  eqns = _needed(jaxpr.eqns, wanted)
  jaxpr = jaxpr.replace(outvars=wanted, eqns=eqns, debug_info=info)
  return Traced(ClosedJaxpr(jaxpr, run.jaxpr.consts), tree)


def _needed(eqns: Sequence[Any], wanted: Sequence[Any]) -> list[Any]:
  """Returns the dependencies of some outputs, and all operations on random keys."""
  needed, kept = {v for v in wanted if not isinstance(v, Literal)}, []
  for eqn in reversed(eqns):
    vars_of = (*eqn.invars, *eqn.outvars)
    if needed & {*eqn.outvars} or any(_is_key(v.aval) for v in vars_of):
      needed |= {v for v in eqn.invars if not isinstance(v, Literal)}
      kept.append(eqn)
  return kept[::-1]


def run_jaxpr(closed: ClosedJaxpr, args: Sequence[Any]) -> list[np.ndarray]:
  """Returns the outputs of a jaxpr for these inputs."""
  jaxpr = closed.jaxpr
  known = dict(zip(jaxpr.constvars, map(_array, closed.consts), strict=True))
  known |= dict(zip(jaxpr.invars, map(_array, args), strict=True))

  def read(v):
    return np.asarray(v.val) if isinstance(v, Literal) else known[v]

  for eqn in jaxpr.eqns:
    outs = _run(eqn, [read(v) for v in eqn.invars])
    known |= dict(zip(eqn.outvars, outs, strict=True))
  return [read(v) for v in jaxpr.outvars]


def _array(x: Any) -> np.ndarray:
  return np.zeros(x.shape) if _is_key(x) else np.asarray(x)


def _is_key(x: Any) -> bool:
  return _is_extended(getattr(x, "dtype", np.float32))


@functools.cache  # called for each operand of each operation
def _is_extended(dtype: Any) -> bool:
  return jax.dtypes.issubdtype(dtype, jax.dtypes.extended)


def _run(eqn: Any, args: list[np.ndarray]) -> list[np.ndarray]:
  """Returns the outputs of one operation."""
  name, shapes = eqn.primitive.name, [v.aval for v in eqn.outvars]
  if name == "cond":
    return run_jaxpr(eqn.params["branches"][int(args[0])], args[1:])
  if name == "scan":
    return _scan(args, eqn)
  if name == "while":
    return _while(args, **eqn.params)
  if name == "custom_linear_solve":
    return _linear_solve(args, **eqn.params)
  inner = next((eqn.params[n] for n in INNER if n in eqn.params), None)
  if inner is not None and name in CALLS:
    return run_jaxpr(
      inner if hasattr(inner, "consts") else ClosedJaxpr(inner, ()), args
    )
  if any(_is_key(v.aval) for v in (*eqn.invars, *eqn.outvars)):
    return [_random(aval) for aval in shapes]
  outs: Sequence[Any] = _in_numpy(name, args, shapes, eqn.params)
  if [x.shape for x in outs] != [aval.shape for aval in shapes]:
    outs = _in_jax(eqn, args)
  return [np.asarray(x, aval.dtype) for x, aval in zip(outs, shapes, strict=True)]


INNER = "jaxpr", "call_jaxpr", "fun_jaxpr", "call"
CALLS = (
  *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
  "custom_jvp_call",
  "custom_vjp_call",
  "custom_vjp_call_jaxpr",
  "custom_vmap_call",
)


def _in_numpy(name: str, args: list, shapes: list, params: dict) -> list[np.ndarray]:
  """Returns the outputs of an operation; an empty list if the tables lack it.

  name     of the primitive
  args     input arrays
  shapes   abstract values of the outputs
  params   static parameters of the primitive
  """
  try:
    if name in ELEMENTWISE:
      found = ELEMENTWISE[name](*args)
    elif name in REDUCE:
      found = REDUCE[name](args[0], axis=tuple(params["axes"]))
    elif name in SHAPED:
      found = SHAPED[name](*args, out=shapes[0], **params)
    else:
      return []
  except (TypeError, ValueError, KeyError, IndexError, AttributeError):
    return []  # other parameters, of another version of JAX: run in JAX
  found = found if isinstance(found, list) else [found]
  return [np.asarray(x) for x in found]


def _scan(args, eqn):
  """Returns the outputs of `lax.scan`: the last carry and the stacked step outputs.

  args   constants, initial carry and inputs by step
  eqn    the equation: one step as `jaxpr`, number of steps and their order
  """
  step, length = eqn.params["jaxpr"], eqn.params["length"]
  num_consts, num_carry = scan_counts(eqn)
  fixed, carry = args[:num_consts], args[num_consts : num_consts + num_carry]
  given, steps = args[num_consts + num_carry :], {}
  for n in reversed(range(length)) if eqn.params["reverse"] else range(length):
    outs = run_jaxpr(step, [*fixed, *carry, *(x[n] for x in given)])
    carry, steps[n] = outs[:num_carry], outs[num_carry:]
  columns = zip(*(steps[n] for n in range(length)), strict=True)
  return [*carry, *map(np.stack, columns)]


def scan_counts(eqn: Any) -> tuple[int, int]:
  """Returns the numbers of constants and of carried values among a scan's inputs.

  What has an axis more outside than in a step goes by step: jax 0.12 renamed the
  parameters that count the others.

  >>> import jax.numpy as jnp
  >>> def sums(start, x_N, scale):
  ...   return jax.lax.scan(lambda total, x: (total + scale * x, total), start, x_N)
  >>> eqn = jax.make_jaxpr(sums)(0.0, jnp.ones(3), 2.0).eqns[-1]
  >>> scan_counts(eqn)
  (1, 1)
  """
  step = eqn.params["jaxpr"]
  num_carry = len(eqn.outvars) - by_step(eqn.outvars, step.out_avals)
  num_given = by_step(eqn.invars, step.in_avals)
  return len(eqn.invars) - num_carry - num_given, num_carry


def by_step(outside, inside):
  """Returns how many variables of a scan have an axis of steps that a step lacks."""
  pairs = zip(outside, inside, strict=True)
  return sum(var.aval.ndim > aval.ndim for var, aval in pairs)


def _while(args, *, cond_jaxpr, cond_nconsts, body_jaxpr, body_nconsts, **_):
  """Returns the last carry of `lax.while_loop`.

  Under `jax.vmap` the condition is an array by example; those at the end keep theirs.

  args                         constants of the condition and of the body, first carry
  cond_jaxpr, body_jaxpr       whether to go on, and one step
  cond_nconsts, body_nconsts   lengths of the first two parts of args
  """
  first = cond_nconsts + body_nconsts
  tested, fixed, carry = args[:cond_nconsts], args[cond_nconsts:first], args[first:]
  while (goes_on := run_jaxpr(cond_jaxpr, [*tested, *carry])[0]).any():
    after = run_jaxpr(body_jaxpr, [*fixed, *carry])
    carry = [_select(goes_on, *pair) for pair in zip(after, carry, strict=True)]
  return carry


def _linear_solve(args, *, const_lengths, jaxprs, **_):
  """Returns the solution of `lax.custom_linear_solve`, by its own way to solve.

  args            constants of the four functions, then the right side
  const_lengths   how many constants each function has
  jaxprs          the four functions
  """
  before = const_lengths.matvec + const_lengths.vecmat
  constants = args[before : before + const_lengths.solve]
  return run_jaxpr(jaxprs.solve, [*constants, *args[sum(const_lengths) :]])


def _select(which, x, other):
  """Returns x where `which`, an array over the leading axes, is true; else other."""
  return np.where(which.reshape(which.shape + (1,) * (x.ndim - which.ndim)), x, other)


def _in_jax(eqn: Any, args: list[np.ndarray]) -> Sequence[Any]:
  """Returns the outputs of one operation, computed by JAX."""
  with jax.ensure_compile_time_eval():
    found = eqn.primitive.bind(*map(jax.numpy.asarray, args), **eqn.params)
  return found if eqn.primitive.multiple_results else [found]


BITS = np.random.default_rng(0)


def _random(aval: Any) -> np.ndarray:
  """Returns random bits; zeros for a key."""
  if jax.dtypes.issubdtype(aval.dtype, jax.dtypes.extended):
    return np.zeros(aval.shape)
  return BITS.integers(2 ** (8 * aval.dtype.itemsize), size=aval.shape, dtype="u8")
