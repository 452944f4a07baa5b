"""Which parameters are matrices, by the axes in their names."""

import jax

from transformer_jax.axes import axes_of

HEADS = "HGKERP"  # axes of heads and of a head's features


def matrices(params):
  """Returns a tree of bools: True for matrices and tables, by their names."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: is_matrix(path[-1].key), params
  )


def is_matrix(name: str) -> bool:
  """Returns whether a parameter of this name is a matrix or a table of vectors.

  Vectors are gains and shifts, per gate and per head too, and parameters with one axis
  besides those of heads and of a head's features.
  """
  axes, words = axes_of(name), name.split("_")
  per_head = len(axes) == 2 and {*axes} <= {*HEADS}
  return len(axes) > 1 and not per_head and not {"gain", "shift"} & {*words}
