"""Axis letters. Every array name ends in its axes: `query_DHK`, `pos_BL`.

B batch   L query length   M key length   D model width   H heads   K head width
F feed-forward width   V vocabulary   N layers or table entries   S seeds
R rotated pairs of features   W hidden units of an encoding   1 an axis of length one
G heads of keys and values   E value width   C width of compressed keys and values
Q width of compressed queries   P width of the rotated part of a head
"""

import dataclasses


def axes_of(name: str) -> str:
  """Returns the axis letters of a name: `axes_of("table_HN") == "HN"`.

  Empty for a scalar: `axes_of("gain") == ""`.
  """
  letters = name.rpartition("_")[2]
  return letters if letters.isupper() else ""


@dataclasses.dataclass(frozen=True)
class Dims:
  """Every size in a model, by its axis letter.

  V vocabulary, D model width, H heads, K head width, F feed-forward width, L tokens in
  a training sequence, E value width, G heads of keys and values. 0 means D / H for K,
  K for E, and H for G.

  >>> Dims(V=256, D=64, H=4, F=256, L=128).K
  16
  """

  V: int
  D: int
  H: int
  F: int
  L: int
  K: int = 0
  E: int = 0
  G: int = 0

  def __post_init__(self):
    if self.K == 0 and self.D % self.H:
      raise ValueError(
        f"width {self.D} does not divide into {self.H} heads; change one of them or"
        " give head_width"
      )
    object.__setattr__(self, "K", self.K or self.D // self.H)
