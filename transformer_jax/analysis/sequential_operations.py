"""Sequential operations of a program: the longest chain of those that wait for others.

Vaswani et al., 2017, table 1. https://arxiv.org/abs/1706.03762
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from transformer_jax.numpy_interpreter import scan_counts

Depths = list[int]  # operations of the longest chain that ends in each array


def sequential_operations(function: Callable, *args: Any) -> int:
  """Returns the length of the longest chain of dependent operations of a function.

  Every primitive of its jaxpr counts one, whatever its size; an iteration of a loop
  waits for the one before only where it reads its result.

  args   arrays or their shapes

  Raises ValueError for a loop whose number of iterations only its data tell.

  >>> from jax import numpy as jnp
  >>> sequential_operations(lambda x, y: jnp.sin(x) + jnp.cos(y), 1.0, 1.0)
  2
  >>> sequential_operations(jnp.cumsum, jnp.ones(1000))  # one primitive
  1
  >>> def step(h, x):
  ...   return jnp.tanh(h + x), h
  >>> text = jnp.zeros(()), jnp.ones(999)
  >>> sequential_operations(lambda h, x: jax.lax.scan(step, h, x), *text)
  1998
  """
  closed = jax.make_jaxpr(function)(*args)
  return max(_depths(closed.jaxpr, [0] * len(closed.jaxpr.invars)), default=0)


def _depths(jaxpr: Jaxpr, inputs: Sequence[int]) -> Depths:
  """Returns the depths of the outputs, from those of the inputs."""
  known: dict[Any, int] = dict.fromkeys(jaxpr.constvars, 0)
  known |= dict(zip(jaxpr.invars, inputs, strict=True))

  def depth(x: Any) -> int:
    return 0 if isinstance(x, Literal) else known[x]

  for eqn in jaxpr.eqns:
    found = _of_equation(eqn, [depth(x) for x in eqn.invars])
    known |= dict(zip(eqn.outvars, found, strict=True))
  return [depth(x) for x in jaxpr.outvars]


def _of_equation(eqn: Any, inputs: Depths) -> Depths:
  """Returns the depths of the outputs of an equation, which may call others."""
  name = eqn.primitive.name
  if name == "scan":
    return _of_scan(eqn, inputs)
  if name == "while":
    raise ValueError(
      "a loop's number of iterations depends on data, so its operations cannot be"
      " counted; write a scan, or attend with core=dense"
    )
  if name == "cond":
    which, *rest = inputs
    inner = [_depths(x.jaxpr, rest) for x in eqn.params["branches"]]
    return [max(which, *each) for each in zip(*inner, strict=True)]
  called = next(_called(eqn), None)
  if called is not None and len(called.invars) == len(inputs):
    return _depths(called, inputs)
  return [max(inputs, default=0) + 1] * len(eqn.outvars)


def _of_scan(eqn: Any, inputs: Depths) -> Depths:
  """Returns the depths after all iterations: each reads the carry of the last one."""
  params, (consts, carries) = eqn.params, scan_counts(eqn)
  const, carry = inputs[:consts], inputs[consts : consts + carries]
  xs = inputs[consts + carries :]
  body = params["jaxpr"].jaxpr
  ys: Depths = [0] * (len(body.outvars) - carries)
  for _ in range(params["length"]):
    out = _depths(body, [*const, *carry, *xs])
    carry = out[:carries]
    ys = [max(pair) for pair in zip(ys, out[carries:], strict=True)]
  return [*carry, *ys]


def _called(eqn: Any) -> Iterator[Jaxpr]:
  """Yields the jaxprs that an equation calls."""
  for value in eqn.params.values():
    if isinstance(value, ClosedJaxpr):
      yield value.jaxpr
    elif isinstance(value, Jaxpr):
      yield value
