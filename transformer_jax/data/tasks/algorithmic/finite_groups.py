"""Multiplication tables of small finite groups, in NumPy.

Permutations are listed in lexicographic order, so element 0 is the identity. The
product p * q applies q first: (p * q)[i] = p[q[i]]. Elements of a direct product are
pairs, in row-major order. This is the numbering of Merrill et al., 2024.
https://arxiv.org/abs/2404.08819
"""

import dataclasses
import functools
import itertools
import math
import re

import numpy as np

from transformer_jax.spec import SpecError

LARGEST = 1000  # elements: a table of a million products is part of each program


@dataclasses.dataclass(frozen=True, eq=False)
class FiniteGroup:
  """A finite group.

  table_NN   int32, the number of the product of two elements
  moved_N    how many points each element moves; in Z_n all but the identity move all n

  >>> group = build("S3")
  >>> group.order, group.moved_N.tolist()  # the identity, a swap, ...
  (6, [0, 2, 2, 3, 3, 2])
  """

  table_NN: np.ndarray
  moved_N: np.ndarray

  @property
  def order(self) -> int:
    """Number of elements."""
    return len(self.table_NN)


@functools.cache
def build(name: str) -> FiniteGroup:
  """Returns a group by name: S5, A5, Z60, or a product such as A4_x_Z5.

  Raises SpecError for another name and for groups of more than 1000 elements.
  """
  parts = [_factor(name, part) for part in name.split("_x_")]
  orders = [order(int(n)) for (order, _), n in parts]
  if math.prod(orders) > LARGEST:
    raise SpecError(
      f"group '{name}' has more than {LARGEST} elements; choose a smaller one, such as"
      " S5"
    )
  return functools.reduce(_product, [make(int(n)) for (_, make), n in parts])


def _factor(name, part):
  """Returns the kind of a factor, as in KINDS, and its number."""
  found = re.fullmatch(r"([SAZ])([1-9][0-9]{0,2})", part)
  if not found:
    raise SpecError(
      f"group is '{name}'; write S5 (all permutations), A5 (the even ones), Z60 (sums"
      " modulo 60), or a product such as A4_x_Z5"
    )
  return KINDS[found[1]], found[2]


def _symmetric(n):
  return _permutations(list(itertools.permutations(range(n))))


def _alternating(n):
  return _permutations([p for p in itertools.permutations(range(n)) if _even(p)])


def _cyclic(n):
  element_N = np.arange(n, dtype=np.int32)
  table_NN = (element_N[:, None] + element_N) % n
  return FiniteGroup(table_NN, np.where(element_N > 0, n, 0))


def _even(permutation):
  pairs = itertools.combinations(permutation, 2)
  return sum(first > second for first, second in pairs) % 2 == 0


def _permutations(listed):
  """Returns the group of the permutations that are listed."""
  number = {p: n for n, p in enumerate(listed)}
  table = [[number[tuple(p[i] for i in q)] for q in listed] for p in listed]
  moved = [sum(image != i for i, image in enumerate(p)) for p in listed]
  return FiniteGroup(np.array(table, np.int32), np.array(moved))


def _product(first, second):
  """Returns the direct product of two groups."""
  n = second.order
  left_NN = np.repeat(np.repeat(first.table_NN, n, axis=0), n, axis=1)
  right_NN = np.tile(second.table_NN, (first.order, first.order))
  moved_NN = first.moved_N[:, None] + second.moved_N
  return FiniteGroup(left_NN * n + right_NN, moved_NN.reshape(-1))


def _half_factorial(n):
  return max(1, math.factorial(n) // 2)


def _same(n):
  return n


# The number of elements, which is known before they are listed, and the group.
KINDS = {
  "S": (math.factorial, _symmetric),
  "A": (_half_factorial, _alternating),
  "Z": (_same, _cyclic),
}
