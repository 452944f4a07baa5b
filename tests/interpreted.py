"""Functions of tests, interpreted in NumPy: compiling costs more than they do."""

import functools

import jax

from transformer_jax.numpy_interpreter import evaluate


def interpreted(function, statics=0):
  """Returns the function, interpreted unless it is a part of a program.

  statics   how many of its first arguments are no arrays
  """

  @functools.wraps(function)
  def call(*args, **how):
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, how))):
      return function(*args, **how)
    return evaluate(
      functools.partial(function, *args[:statics], **how), *args[statics:]
    )

  return call
