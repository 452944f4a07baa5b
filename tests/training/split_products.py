"""Products of a traced program that read a part of a weight that a mesh splits."""

import itertools

import jax
from jax.extend.core import ClosedJaxpr, Literal

from transformer_jax.numpy_interpreter import scan_counts

WHOLE = "sharding_constraint"  # gathers what a mesh splits
PRODUCTS = {"dot_general", "conv_general_dilated"}
SEAM = {"shard_map"}  # devices gather inside of it


def divided(jaxpr, split):
  """Returns the names of split weights that a product reads before they are gathered.

  jaxpr   of a forward pass
  split   {input of the jaxpr: name of a weight}
  """
  found = set()
  _walk(jaxpr, {variable: frozenset({name}) for variable, name in split.items()}, found)
  return found


def _walk(jaxpr, of, found):
  """Returns the weights that each output is made of; adds those of products."""
  of = dict(of)

  def read(variable):
    empty = frozenset()
    return empty if isinstance(variable, Literal) else of.get(variable, empty)

  for equation in jaxpr.eqns:
    name, inputs = equation.primitive.name, [read(v) for v in equation.invars]
    every = frozenset(itertools.chain(*inputs))
    inner = [*_inner(equation)]
    if name in PRODUCTS:
      found |= every
    if name in PRODUCTS | SEAM | {WHOLE}:
      outputs = [frozenset()] * len(equation.outvars)
    elif name == "gather":  # rows of a table
      outputs = [inputs[0]]
    elif every and inner:
      outputs = _of_inner(equation, inner, inputs, found)
    else:
      outputs = [every] * len(equation.outvars)
    of |= dict(zip(equation.outvars, outputs, strict=True))
  return [read(v) for v in jaxpr.outvars]


def _of_inner(equation, inner, inputs, found):
  """Returns the weights in the outputs of a call, a loop or a condition."""
  outputs = [frozenset()] * len(equation.outvars)
  for jaxpr in inner:
    own = inputs[len(inputs) - len(jaxpr.invars) :]
    for _ in range(2):  # what a loop carries comes back
      ends = _walk(jaxpr, dict(zip(jaxpr.invars, own, strict=True)), found)
      if equation.primitive.name == "scan":
        first, carried = scan_counts(equation)
        for n in range(carried):
          own[first + n] |= ends[n]
    if len(ends) == len(outputs):
      outputs = [a | b for a, b in zip(outputs, ends, strict=True)]
  return outputs


def _inner(equation):
  for value in jax.tree.leaves(
    [*equation.params.values()], is_leaf=lambda x: isinstance(x, ClosedJaxpr)
  ):
    value = value.jaxpr if isinstance(value, ClosedJaxpr) else value
    if hasattr(value, "eqns"):
      yield value
