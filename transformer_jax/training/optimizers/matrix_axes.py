"""Input and output axes of matrices, by the axes in their names.

`query_DHK` maps D to the heads' features HK, `out_HKD` maps HK to D. Every other axis,
also one that the name does not have (layers that are stacked for a scan), counts
matrices that are handled each alone.
"""

import dataclasses

from transformer_jax.axes import axes_of
from transformer_jax.training.optimizers.matrices import HEADS, is_matrix

PER_HEAD = "HG"
TABLES = "VLM"  # tokens and places: what is looked up
ENTRIES, EXPERTS = "N", "X"  # entries of a table; both count matrices side by side


@dataclasses.dataclass(frozen=True)
class MatrixAxes:
  """Indices of the axes of a matrix, counted from the last as -1.

  >>> matrix_axes("query_DHK")
  MatrixAxes(inputs=(-3,), outputs=(-2, -1))
  >>> matrix_axes("out_HKD")
  MatrixAxes(inputs=(-3, -2), outputs=(-1,))
  >>> matrix_axes("input_DNW")  # N matrices, those of the gates of an LSTM
  MatrixAxes(inputs=(-3,), outputs=(-1,))
  """

  inputs: tuple[int, ...]
  outputs: tuple[int, ...]


def is_hidden_matrix(name: str) -> bool:
  """Returns whether a parameter of this name maps hidden features to hidden features.

  Embeddings, the output head, patches, tables, vectors and taps of each feature do not.
  """
  letters, words = axes_of(name), name.split("_")
  if not is_matrix(name) or {*TABLES} & {*letters} or {"patch", "table"} & {*words}:
    return False
  mapped = letters.replace(ENTRIES, "")
  # N vectors, or N numbers for each feature of a head.
  vectors = mapped != letters and (len(mapped) < 2 or {*mapped} <= {*HEADS})
  return not vectors and matrix_axes(name) is not None


def matrix_axes(name: str, per_head: bool = False) -> MatrixAxes | None:
  """Returns the inputs and outputs of a matrix; None for a name without two axes.

  name       name of a parameter
  per_head   whether the matrix of each head stands alone
  """
  letters = axes_of(name)
  places = [(n - len(letters), letter) for n, letter in enumerate(letters)]
  places = [place for place in places if place[1] != "1"]
  mapped = [place for place in places if place[1] not in ENTRIES + EXPERTS]
  places = mapped if len(mapped) >= 2 else places
  if len(places) < 2:
    return None
  inputs, outputs = _sides(places)
  if per_head:
    inputs, outputs = _without_heads(inputs), _without_heads(outputs)
  return MatrixAxes(tuple(n for n, _ in inputs), tuple(n for n, _ in outputs))


def _sides(places):
  """Returns the inputs and the outputs among [(index, letter), ...].

  Heads and their features are one side: HKD has the inputs HK, DHK and HDK have D.
  """
  features = [place for place in places if place[1] in HEADS]
  others = [place for place in places if place[1] not in HEADS]
  if not others and len(features) > 2:  # K to R, in each head
    features = [place for place in features if place[1] not in PER_HEAD]
  first, last = places[0], places[-1]
  if others and first in features and last in features:
    return others, features
  if others and first in features:
    return places[:-1], [last]
  rest = sorted(features + others)
  return rest[:1], rest[1:]


def _without_heads(side):
  """Returns a side without its axis of heads, unless it has no other."""
  return [place for place in side if place[1] not in PER_HEAD] or side
