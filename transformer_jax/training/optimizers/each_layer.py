"""Optimizers that read whole arrays, applied to each of the layers in a stack alone."""

from collections.abc import Callable
from typing import Any

import jax
import optax

STACK = "layers"  # folder of parameters that have an axis of layers in front


def each_layer(
  transformation: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """Returns a transformation that is the same whether layers are stacked or not.

  A norm, a factored moment or a trust ratio is that of an array. A scan over layers
  stores those of all layers as one: there the transformation is mapped over them.

  transformation   of arrays that do not depend on each other

  >>> import jax.numpy as jnp
  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> norm = optax.normalize_by_update_norm()
  >>> tree = {"layers": {"gain_D": jnp.array([[1.0, 0.0], [0.0, 2.0]])}}
  >>> tx = each_layer(optax.masked(norm, True))
  >>> updates, _ = evaluate(lambda: tx.update(tree, tx.init(tree), tree))
  >>> updates["layers"]["gain_D"].round(3).tolist()  # each row has a norm of 1
  [[1.0, 0.0], [0.0, 1.0]]
  """

  def init(params):
    return {
      str(n): _mapped(transformation.init, n)(_part(params, n)) for n in _sizes(params)
    }

  def update(updates, state, params=None):
    found: dict[Any, Any] = {}
    after: dict[str, Any] = {}
    for n in _sizes(updates):
      step = _mapped(transformation.update, n)
      parts = (tree if tree is None else _part(tree, n) for tree in (updates, params))
      own, own_params = parts
      changed, after[str(n)] = step(own, state[str(n)], own_params)
      found |= dict(jax.tree_util.tree_leaves_with_path(changed))
    new = jax.tree_util.tree_map_with_path(lambda path, _: found[path], updates)
    return new, after

  return optax.GradientTransformation(init, update)


def _layers(path: Any, x: Any) -> int:
  """Returns the number of layers that an array is a stack of; 0: it is none."""
  stacked = any(getattr(key, "key", None) == STACK for key in path)
  return x.shape[0] if stacked else 0


def _sizes(tree: Any) -> list[int]:
  """Returns the sizes of stacks in a tree."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return sorted({_layers(path, x) for path, x in leaves})


def _part(tree: Any, layers: int) -> Any:
  """Returns a tree without the arrays that are stacks of another size."""

  def one(path, x):
    return x if _layers(path, x) == layers else optax.MaskedNode()

  return jax.tree_util.tree_map_with_path(one, tree)


def _mapped(function: Callable[..., Any], layers: int) -> Callable[..., Any]:
  return jax.vmap(function) if layers else function
