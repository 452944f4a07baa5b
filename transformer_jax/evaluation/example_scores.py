"""Scores of single examples, and the file that keeps them beside result.json.

examples.npz is a compressed NumPy archive, `numpy.load` reads it; nothing is pickled:

seeds                         int64 [S], the run's seeds
value/LENGTH/MEASURE/PART     float32 [S, E], the score of each example; NaN: it has no
                              target, or a logit that is not a number
weight/LENGTH/PART            float32 [E], the sum of the weights of its targets

A score in result.json is the mean over the examples that have a target; value times
weight is an example's sum over targets. Example e is the same in all runs whose targets
have the same fingerprint: in all variants and seeds.
"""

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from transformer_jax import untrusted
from transformer_jax.training.json_files import replace_file, warn

FILE = "examples.npz"
MOST_BYTES = 2**30  # of all arrays together, when a file is read
ScoreKey = tuple[int, str, str]  # length, measure, part


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleScores:
  """Scores of each seed's examples, by length, measure and part of the targets.

  seeds      of the run
  value_SE   {(length, measure, part): scores, seeds by examples}
  weight_E   {(length, part): sums of the weights of targets}

  >>> cell = (64, "accuracy", "mean")
  >>> value_SE = {cell: np.array([[0.5, 1.0]], np.float32)}
  >>> scores = ExampleScores((7,), value_SE, {(64, "mean"): np.ones(2, np.float32)})
  >>> again = ExampleScores.parse(scores.content())
  >>> again.seeds, again.value_SE[cell].tolist()
  ((7,), [[0.5, 1.0]])
  """

  seeds: tuple[int, ...]
  value_SE: Mapping[ScoreKey, np.ndarray]
  weight_E: Mapping[tuple[int, str], np.ndarray]

  def of_seeds(self, seeds: Sequence[int]) -> "ExampleScores":
    """Returns the same scores with other numbers for the seeds, in their order."""
    return dataclasses.replace(self, seeds=tuple(seeds))

  def content(self) -> bytes:
    """Returns the content of the file."""
    arrays = {"seeds": np.array(self.seeds, np.int64)}
    for (length, measure, part), value_SE in self.value_SE.items():
      arrays[f"value/{length}/{measure}/{part}"] = np.asarray(value_SE, np.float32)
    for (length, part), weight_E in self.weight_E.items():
      arrays[f"weight/{length}/{part}"] = np.asarray(weight_E, np.float32)
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()

  @classmethod
  def parse(cls, content: bytes) -> "ExampleScores":
    """Returns the scores in a file's content; raises ValueError where it is damaged."""
    arrays = _arrays(content)
    try:
      seeds = tuple(int(seed) for seed in arrays.pop("seeds"))
      value_SE, weight_E = {}, {}
      for name, array in arrays.items():
        kind, length, *names, part = name.split("/")
        if kind == "value":
          value_SE[int(length), "/".join(names), part] = array
        else:
          weight_E[int(length), part] = array
    except (KeyError, TypeError) as error:
      raise ValueError(f"it has no {error}") from error
    scores = cls(seeds, value_SE, weight_E)
    scores._check()
    return scores

  def _check(self) -> None:
    """Raises ValueError unless the arrays have the shapes that the file promises."""
    for (length, measure, part), value_SE in self.value_SE.items():
      weight_E = self.weight_E.get((length, part), np.zeros(()))
      if value_SE.shape != (len(self.seeds), *weight_E.shape) or value_SE.ndim != 2:
        raise ValueError(f"{measure} at length {length} has shape {value_SE.shape}")


def write(folder: Path, scores: ExampleScores) -> None:
  """Replaces the file in a run's folder."""
  replace_file(folder / FILE, scores.content())


def read(folder: Path) -> ExampleScores | None:
  """Returns the scores in a run's folder; None: an older run has none.

  A damaged file counts as none, and a line says so.
  """
  path = folder / FILE
  try:
    return ExampleScores.parse(untrusted.content(path, MOST_BYTES))
  except FileNotFoundError:
    return None
  except (ValueError, OSError) as error:
    warn(f"{path} is not readable ({error}); run the sweep again, which makes it again")
    return None


def _arrays(content: bytes) -> dict[str, np.ndarray]:
  """Returns the arrays of an archive that may be somebody else's."""
  try:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
      if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
        raise ValueError(f"its arrays have more than {MOST_BYTES:,} bytes")
      return {
        member.filename.removesuffix(".npy"): _array(archive.read(member))
        for member in archive.infolist()
      }
  except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
    raise ValueError(str(error) or "it is cut short") from error


def _array(content: bytes) -> np.ndarray:
  """Returns the numbers of a .npy file, whose header does not decide the memory."""
  file = io.BytesIO(content)
  version = np.lib.format.read_magic(file)
  if version != (1, 0):
    raise ValueError(f"arrays of version {version} are not read")
  shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
  if fortran or dtype not in (np.dtype("<f4"), np.dtype("<f8"), np.dtype("<i8")):
    raise ValueError(f"arrays of {dtype} are not read")
  numbers = np.frombuffer(file.read(), dtype)
  if any(size < 0 for size in shape) or numbers.size != np.prod(shape, dtype=object):
    raise ValueError(f"an array of shape {shape} has {numbers.size} numbers")
  return numbers.reshape(shape)
