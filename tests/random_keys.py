"""The keys of all random numbers that a program draws, found without running it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from transformer_jax.numpy_interpreter import by_step


def drawn(function, *args) -> list[tuple[int, ...]]:
  """Returns the key of every draw in `function(*args)`, as often as it is drawn from.

  Traces the function, and computes of it just the keys: loops and calls are followed.
  """
  closed = jax.make_jaxpr(function)(*args)
  found: list[tuple[int, ...]] = []
  _walk(closed.jaxpr, _known(closed.consts), _known(jax.tree.leaves(args)), found)
  return found


def _known(values):
  return [lambda x=x: x for x in values]


def _walk(jaxpr, consts, args, found):
  """Notes the keys of one program; a value is a function that computes it if asked."""
  values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
  read = lambda v: (lambda: v.val) if isinstance(v, Literal) else values[v]
  for eqn in jaxpr.eqns:
    inputs = [read(v) for v in eqn.invars]
    if eqn.primitive.name == "random_bits":
      found += map(tuple, np.asarray(jax.random.key_data(inputs[0]())).reshape(-1, 2))
    follow = _call if _draws(eqn) and eqn.primitive.name != "random_bits" else _compute
    values |= zip(eqn.outvars, follow(eqn, inputs, found), strict=True)
  return [read(v) for v in jaxpr.outvars]


def _draws(eqn):
  """Returns whether an equation, or a program that it calls, draws."""
  if eqn.primitive.name == "random_bits":
    return True
  return any(_draws(inner) for closed in _programs(eqn) for inner in closed.jaxpr.eqns)


def _programs(eqn):
  """Yields the programs that an equation calls."""
  for x in jax.tree.leaves([*eqn.params.values()]):
    if isinstance(x, ClosedJaxpr):
      yield x
    elif hasattr(x, "eqns"):
      yield ClosedJaxpr(x, ())


def _compute(eqn, inputs, found):
  """Returns how to compute the results of an equation, all at once and only once."""
  made: list = []

  def make():
    if not made:
      params = eqn.primitive.get_bind_params(eqn.params)
      out = eqn.primitive.bind(*(x() for x in inputs), **params)
      made.extend(out if eqn.primitive.multiple_results else [out])
    return made

  return [lambda n=n: make()[n] for n in range(len(eqn.outvars))]


def _call(eqn, inputs, found):
  """Follows the program that an equation calls, a loop as often as it runs."""
  (closed,) = _programs(eqn)
  if eqn.primitive.name != "scan":
    assert "branches" not in eqn.params and "body_jaxpr" not in eqn.params, (
      eqn.primitive
    )
    return _walk(closed.jaxpr, _known(closed.consts), inputs, found)
  carry = len(eqn.outvars) - by_step(eqn.outvars, closed.out_avals)
  consts = len(inputs) - carry - by_step(eqn.invars, closed.in_avals)
  fixed, state, rest = inputs[:consts], inputs[consts : consts + carry], []
  columns = [[] for _ in eqn.outvars[carry:]]
  for n in range(eqn.params["length"]):
    rest = [lambda x=x, n=n: x()[n] for x in inputs[consts + carry :]]
    args = [*fixed, *state, *rest]
    out = _walk(closed.jaxpr, _known(closed.consts), args, found)
    state = out[:carry]
    for column, x in zip(columns, out[carry:], strict=True):
      column.append(x)
  stack = lambda column: jnp.stack([x() for x in column])
  return [*state, *(lambda column=column: stack(column) for column in columns)]
