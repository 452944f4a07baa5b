"""Tables from our parameters to HuggingFace's tensors.

A table maps a path of ours to (their name, their axes):

  "decoder/layer_{n}/attention/query_DHK": ("h.{n}.attn.c_attn.weight", "D *HK")

Spaces separate their axes; adjacent letters are one axis of theirs, as "HK" of size
H x K. The letters are those of our name, so "HK D" is the transpose of a matrix. A star
is the axis along which our parameters are concatenated in one tensor of theirs, in the
order of the table. It replaces a letter of ours that theirs lack, as in "*K", where
keys may have fewer heads than queries. "G*" is our axis of heads: G groups of equally
many heads. 1 is an axis of length one. The second axis of "DD" is d. "-N" is the axis
N in reverse order. Adjacent letters of ours that theirs lack are all in the star: "* D"
holds query_DHK and value_DHE.
"""

import dataclasses
import itertools
import math

import numpy as np

from transformer_jax.axes import axes_of

NameTable = dict[str, tuple[str, str]]
HostArrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class TensorLayout:
  """Layout of one of our arrays in one of their tensors.

  ours, theirs   axis letters of both; theirs with spaces
  sizes          size of each letter
  reverse        letters of axes that are in reverse order there

  >>> part = layout("attention/query_DHK", (4, 2, 3), "HK D", groups=1)
  >>> part.give(np.zeros((4, 2, 3))).shape, part.merged(star=1)
  ((2, 3, 4), (6, 4))
  """

  ours: str
  theirs: str
  sizes: dict[str, int]
  reverse: str = ""

  @property
  def letters(self) -> str:
    return self.theirs.replace(" ", "").replace("1", "")

  def give(self, x: np.ndarray) -> np.ndarray:
    """Returns our array with an axis for each of their letters."""
    x = np.asarray(x).reshape([self.sizes[a] for a in self.ours])
    x = np.transpose(x, [self.ours.index(a) for a in self.letters])
    return np.flip(x, self._reversed)

  def take(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Inverse of `give`."""
    x = np.transpose(np.flip(x, self._reversed), self._order)
    return np.ascontiguousarray(x.reshape(shape))

  @property
  def _order(self) -> list[int]:
    return [self.letters.index(a) for a in self.ours]

  @property
  def _reversed(self) -> tuple[int, ...]:
    return tuple(self.letters.index(a) for a in self.reverse)

  def shape(self, star: int) -> list[int]:
    """Returns the shape with an axis for each letter, `star` of them at the star."""
    return [star if a == "*" else self.sizes[a] for a in self.letters]

  def merged(self, star: int) -> tuple[int, ...]:
    """Returns the shape of their tensor."""
    sizes = self.sizes | {"*": star}
    return tuple(math.prod(sizes[a] for a in axis) for axis in self.theirs.split())


def layout(path: str, shape: tuple[int, ...], theirs: str, groups: int) -> TensorLayout:
  """Returns the layout of our array in a tensor with the given axes."""
  axes = axes_of(path)
  ours = _distinct(axes.replace("1", ""))
  shape = tuple(n for a, n in zip(axes, shape, strict=True) if a != "1")
  reverse = "".join(a for before, a in itertools.pairwise(theirs) if before == "-")
  theirs = theirs.replace("-", "")
  sizes = dict(zip(ours, shape, strict=True)) | {"1": 1, "*": 1}
  if "G*" in theirs and "H" in ours:  # its heads are G groups of r
    ours = ours.replace("H", "Gr")
    sizes |= {"G": groups, "r": sizes["H"] // groups}
  if "*" not in theirs:
    return TensorLayout(ours, theirs, sizes, reverse)
  others = "".join(a for a in ours if a not in theirs)
  if not others:
    return TensorLayout("*" + ours, theirs, sizes, reverse)
  sizes["*"] = math.prod(sizes[a] for a in others)
  return TensorLayout(ours.replace(others, "*"), theirs, sizes, reverse)


def of_layer(table: NameTable, n: int) -> NameTable:
  """Returns the table with the names of layer n in place of {n}."""
  return {
    path.replace("{n}", str(n)): (name.replace("{n}", str(n)), axes)
    for path, (name, axes) in table.items()
  }


def of_layers(table: NameTable, layers: int) -> NameTable:
  """Returns the table with the names of each layer in place of {n}."""

  found: NameTable = {}
  for path, row in table.items():
    for n in range(layers) if "{n}" in path else (0,):
      found |= of_layer({path: row}, n)
  return found


@dataclasses.dataclass(frozen=True)
class Names:
  """Table of one model's parameters.

  table    of all layers
  shapes   of our parameters, by path

  >>> table = {"out_HKD": ("attn.o_proj.weight", "D HK")}
  >>> names = Names(table, {"out_HKD": (2, 3, 4)})
  >>> names.expected()
  {'attn.o_proj.weight': (4, 6)}
  >>> names.ours({"attn.o_proj.weight": np.zeros((4, 6))})["out_HKD"].shape
  (2, 3, 4)
  """

  table: NameTable
  shapes: Shapes

  def __post_init__(self):
    missing = self.shapes.keys() - self.table.keys()
    if missing:
      raise ValueError(
        f"these parameters have no name in this family: {', '.join(sorted(missing))}"
      )

  @property
  def sharing(self) -> dict[str, dict[str, TensorLayout]]:
    """{their name: {our path: layout}}."""
    sharing: dict[str, dict[str, TensorLayout]] = {}
    for path, (name, axes) in self.table.items():
      if path in self.shapes:
        found = layout(path, self.shapes[path], axes, self.groups(name))
        sharing.setdefault(name, {})[path] = found
    return sharing

  def groups(self, name: str) -> int:
    """Returns G of a tensor's layer, heads of keys; 1 without grouped queries.

    name   theirs
    """
    there = {path for path, (theirs, _) in self.table.items() if theirs == name}
    layers = {_layer(path) for path in there & self.shapes.keys()}
    shapes = ((path, x) for path, x in self.shapes.items() if _layer(path) in layers)
    pairs = (zip(axes_of(path), shape, strict=True) for path, shape in shapes)
    return next((size for pair in pairs for a, size in pair if a == "G"), 1)

  def expected(self) -> Shapes:
    """Returns the shapes of all their tensors."""
    return {
      name: next(iter(parts.values())).merged(_star(parts))
      for name, parts in self.sharing.items()
    }

  def ours(self, tensors: HostArrays) -> HostArrays:
    """Returns our parameters by path, from tensors of the expected shapes."""
    found = {}
    for name, parts in self.sharing.items():
      first = next(iter(parts.values()))
      whole = tensors[name].reshape(first.shape(_star(parts)))
      start = 0
      for path, part in parts.items():
        end = start + part.sizes["*"]
        axis = part.letters.find("*")
        cut = np.take(whole, range(start, end), axis) if axis >= 0 else whole
        found[path], start = part.take(cut, self.shapes[path]), end
    return found

  def theirs(self, arrays: HostArrays) -> HostArrays:
    """Returns their tensors, from our parameters by path."""
    found = {}
    for name, parts in self.sharing.items():
      given = [part.give(arrays[path]) for path, part in parts.items()]
      first = next(iter(parts.values()))
      axis = max(first.letters.find("*"), 0)
      found[name] = np.concatenate(given, axis).reshape(first.merged(_star(parts)))
    return found


def _distinct(letters: str) -> str:
  """Returns the letters, repeated ones in lower case: "DD" is "Dd"."""
  pairs = enumerate(letters)
  return "".join(a.lower() if a in letters[:n] else a for n, a in pairs)


def _layer(path: str) -> str:
  return path.rpartition("/")[0]


def _star(parts: dict[str, TensorLayout]) -> int:
  return sum(part.sizes["*"] for part in parts.values())
