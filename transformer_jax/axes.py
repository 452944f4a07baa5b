"""Axis letters. Every array name ends in its axes: `query_DHK`, `pos_BL`.

B batch   L query length   M key length   D model width   H heads   K head width
F feed-forward width   V vocabulary   N layers or table entries   S seeds
R rotated pairs of features   1 an axis of length one
"""


def axes_of(name: str) -> str:
  """Returns the axis letters of a name: `axes_of("table_HN") == "HN"`.

  A name without axes (`"gain"`) has none: it is a scalar.
  """
  letters = name.rpartition("_")[2]
  return letters if letters.isupper() else ""
