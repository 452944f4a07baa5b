"""Axis letters. Every array name ends in its axes: `query_DHK`, `pos_BL`.

B batch   L query length   M key length   D model width   H heads   K head width
F feed-forward width   V vocabulary   N layers or table entries   S seeds
R rotated pairs of features   W hidden units of an encoding   1 an axis of length one
G heads of keys and values   E value width   C width of compressed keys and values
Q width of compressed queries   P width of the rotated part of a head   X experts
"""

import dataclasses
import numbers
from typing import Any

from transformer_jax.spec import SpecError
from transformer_jax.spec.former_arguments import explain_arguments

MISSING: Any = None  # of a required size; `__post_init__` names it
# Least value of each size; 0 stands for a default, or for layers without such units.
LEAST = {"V": 1, "D": 1, "H": 1, "F": 0, "L": 1, "K": 0, "E": 0, "G": 0}


def axes_of(name: str) -> str:
  """Returns the axis letters of a name: `axes_of("table_HN") == "HN"`.

  Empty for a scalar: `axes_of("gain") == ""`.
  """
  letters = name.rpartition("_")[2]
  return letters if letters.isupper() else ""


def whole(value: Any, least: int) -> bool:
  """Returns whether a value is a whole number of at least `least`; True is none.

  >>> import numpy as np
  >>> whole(np.int64(2), 1), whole(2.0, 1), whole(True, 1)
  (True, False, False)
  """
  is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  return is_whole and int(value) >= least


def check_whole(part: Any, /, **least: int) -> None:
  """Raises SpecError unless arguments of a part are whole numbers of at least `least`.

  part    has a name
  least   of each argument, by its name
  """
  for argument, smallest in least.items():
    value = getattr(part, argument)
    if not whole(value, smallest):
      raise SpecError(
        f"{part.name}: {argument} is {value!r}; write a whole number from {smallest}"
      )


@explain_arguments(N="an Architecture has the number of layers, as in decoders=2")
@dataclasses.dataclass(frozen=True)
class Dims:
  """Every size in a model, by its axis letter.

  V vocabulary, D model width, H heads, K head width, F feed-forward width, L tokens in
  a training sequence, E value width, G heads of keys and values. 0 means D / H for K,
  K for E, H for G, and no feed-forward part for F.

  >>> Dims(V=256, D=64, H=4, F=256, L=128).K
  16

  Raises ValueError where V, D, H, F or L is missing, or a size is impossible; SpecError
  for an argument that is no size.
  """

  V: int = MISSING
  D: int = MISSING
  H: int = MISSING
  F: int = MISSING
  L: int = MISSING
  K: int = 0
  E: int = 0
  G: int = 0

  def __post_init__(self):
    missing = [letter for letter in "VDHFL" if getattr(self, letter) is None]
    if missing:
      raise ValueError(
        f"Dims without {', '.join(missing)}; write every size, as in Dims(V=256, D=64,"
        " H=4, F=256, L=128)"
      )
    for letter, least in LEAST.items():
      size = getattr(self, letter)
      if not whole(size, least):
        raise ValueError(
          f"{letter} is {size!r}; write a whole number of at least {least}"
        )
      object.__setattr__(self, letter, int(size))  # NumPy's are whole numbers too
    self._check_heads()
    object.__setattr__(self, "K", self.K or self.D // self.H)

  def _check_heads(self) -> None:
    """Raises ValueError where the width or the groups do not fit the heads."""
    if self.K == 0 and self.D % self.H:
      raise ValueError(
        f"width {self.D} does not divide into {self.H} heads; change one of them or"
        " give K, the width of a head (model.head_width in a config)"
      )
    if self.G and self.H % self.G:
      raise ValueError(
        f"{self.G} groups of keys (G) do not divide {self.H} heads; change one of them"
      )
