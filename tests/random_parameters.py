"""Random parameters of models: compiling how a model starts would take seconds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


def normal(shapes, scale=0.3):
  """Returns a tree of normal numbers with these shapes and types."""
  random = np.random.default_rng(0)
  draw = lambda x: (scale * random.normal(size=x.shape)).astype(x.dtype)
  return jax.tree.map(draw, shapes)


def of_model(model, *reads, scale=0.3):
  """Returns random parameters of a model that reads these arrays."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), *reads)["params"]
  return jax.tree.map(jnp.asarray, normal(shapes, scale))


def state(shapes, seeds, **larger):
  """Returns a state of these seeds with random parameters.

  larger   factors of some parameters of the model, by name
  """
  random = np.random.default_rng(0)

  def nothing(x):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      return jnp.stack([jax.random.key(0)] * seeds)
    return np.zeros((seeds, *x.shape), x.dtype)

  def draw(x):
    scale = 1.0 if x.ndim < 2 else x.shape[0] ** -0.5
    return (scale * random.normal(size=(seeds, *x.shape))).astype(x.dtype)

  params = jax.tree.map(draw, shapes.params)
  params |= {name: params[name] * factor for name, factor in larger.items()}
  return dataclasses.replace(jax.tree.map(nothing, shapes), params=params)
