"""Loops over the texts of a batch: arrays of all pairs then fit the cache of a core."""

import math
from collections.abc import Callable
from typing import Any

from jax.custom_batching import sequential_vmap

from transformer_jax.devices import free_axes, platform


def text_by_text(function: Callable[..., Any]) -> Callable[..., Any]:
  """Returns the function, which `vmap` calls for one text after another on one CPU.

  It needs a gradient of its own: JAX differentiates no such loop. On accelerators, and
  where devices share the texts, `vmap` computes all at once.

  >>> import jax
  >>> import jax.numpy as jnp
  >>> doubled = text_by_text(lambda x_L: 2 * x_L)
  >>> jax.vmap(doubled)(jnp.ones((2, 3))).tolist()
  [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
  """
  alone = math.prod(free_axes().values()) == 1
  return sequential_vmap(function) if alone and platform() == "cpu" else function
