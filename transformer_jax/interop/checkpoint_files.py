"""config.json and safetensors files of a HuggingFace checkpoint.

https://github.com/huggingface/safetensors; pickled weights are never read. The folder
is untrusted: kinds of files, and the amount read, are limited.
"""

import json
import math
import os
import pathlib
import re
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from transformer_jax import untrusted

CONFIG, WEIGHTS = "config.json", "model.safetensors"
INDEX = "model.safetensors.index.json"  # of weights in several files
DTYPES = ("F64", "F32", "F16", "BF16")
# Limits of a file's header, which lists its tensors and is read first.
HEADER_BYTES, MOST_TENSORS = 8 * 2**20, 20_000
WHOLE = {"BOOL"} | {f"{kind}{bits}" for kind in "UI" for bits in (8, 16, 32, 64)}

Config = dict[str, Any]
Tensors = dict[str, np.ndarray]


def read(folder: str | os.PathLike) -> tuple[Config, Tensors]:
  """Returns the content of config.json and all float tensors, in float32."""
  folder = pathlib.Path(folder)
  config = _json(folder / CONFIG)
  if (folder / INDEX).exists():
    names = _parts(folder / INDEX)
  else:
    names = [WEIGHTS]
  tensors: Tensors = {}
  for name in names:
    tensors |= _tensors(folder / name)
  return config, tensors


def write(folder: str | os.PathLike, config: Config, tensors: Tensors) -> None:
  """Writes config.json and model.safetensors, each of them atomically."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  tensors = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
  data = safetensors.numpy.save(tensors, metadata={"format": "pt"})
  text = json.dumps(config, indent=2, sort_keys=True) + "\n"
  for name, content in ((WEIGHTS, data), (CONFIG, text.encode())):
    partial = folder / f"{name}.partial"
    partial.write_bytes(content)
    partial.replace(folder / name)
  (folder / INDEX).unlink(missing_ok=True)  # of previous weights


def _parts(path):
  """Returns the names of the files that an index lists."""
  where = _json(path).get("weight_map")
  if not isinstance(where, dict) or not where:
    raise ValueError(f"{path} lists no files under weight_map; copy it again")
  for name in where.values():
    if not (isinstance(name, str) and re.fullmatch(r"[\w.+-]+\.safetensors", name)):
      raise ValueError(
        f"{path} lists {name!r:.80}, which is no name of a safetensors file in that"
        " folder; copy it again"
      )
  return sorted({*where.values()})


def _json(path):
  try:
    found = untrusted.parsed(untrusted.content(path, untrusted.JSON_BYTES), True)
  except FileNotFoundError as error:
    raise ValueError(
      f"{path} is missing; give a folder with {CONFIG} and {WEIGHTS}"
    ) from error
  except OSError as error:
    raise ValueError(
      f"cannot read {path}: {error.strerror}; give a folder with {CONFIG} and {WEIGHTS}"
    ) from error
  except ValueError as error:
    raise ValueError(f"{path} is not JSON ({error}); copy it again") from error
  if not isinstance(found, dict):
    raise ValueError(f"{path} holds no words with values; copy it again")
  return found


# Tensors that share memory are refused by safetensors, hence the clones.
CONVERT = (
  'python -c "import torch, safetensors.torch as s; s.save_file({n: x.clone() for n, x'
  " in torch.load('pytorch_model.bin', weights_only=True).items()},"
  " 'model.safetensors', {'format': 'pt'})\""
)


def _tensors(path):
  """Returns the float tensors of one file; integers are masks and positions."""
  try:
    _check_header(path)
    with safetensors.safe_open(path, "numpy") as file:
      return {name: x for name, x in _read(path, file)}
  except FileNotFoundError as error:
    raise ValueError(
      f"{path} is missing; weights are read from safetensors only. With PyTorch,"
      f" pytorch_model.bin becomes it so: {CONVERT}"
    ) from error
  except OSError as error:
    why = error.strerror or error
    raise ValueError(f"cannot read {path}: {why}; copy or download it again") from error
  except safetensors.SafetensorError as error:
    raise ValueError(
      f"{path} is damaged or cut short ({error}); copy or download it again"
    ) from error


def _check_header(path):
  """Raises ValueError if a tensor would need more memory than the file can hold."""
  left = untrusted.size(path) - 8
  with open(path, "rb") as file:
    size = int.from_bytes(file.read(8), "little")
    if size > left:
      raise ValueError(
        f"{path} is damaged or cut short (a list of tensors of {size} bytes in"
        f" {max(left, 0)}); copy or download it again"
      )
    tensors = file.read(min(size, HEADER_BYTES)).count(b'"dtype"')
  if size > HEADER_BYTES or tensors > MOST_TENSORS:
    raise ValueError(
      f"{path} lists its tensors in {size:,} bytes; {HEADER_BYTES:,} and"
      f" {MOST_TENSORS:,} tensors are read at most"
    )


def _read(path, file):
  """Yields (name, float32 array) of an open file."""
  for name in file.keys():
    part = file.get_slice(name)
    if part.get_dtype() not in {*DTYPES} | WHOLE:
      raise ValueError(
        f"{path}: {name} is of type {part.get_dtype()}, which is not read here; convert"
        f" the weights to one of {', '.join(DTYPES)}"
      )
    if math.prod(part.get_shape()) == 0:
      raise ValueError(
        f"{path}: {name} is of shape {part.get_shape()} and holds nothing; copy or"
        " download it again"
      )
    if part.get_dtype() in DTYPES:
      yield name, file.get_tensor(name).astype(np.float32, copy=False)


def joined(tensors: Tensors, new: str, parts: tuple[str, ...]) -> Tensors:
  """Returns tensors, those whose names end in `parts` as one, which ends in `new`."""
  starts = [n.removesuffix(parts[0]) for n in tensors if n.endswith(parts[0])]
  for start in starts:
    names = [start + part for part in parts]
    alike = {tensors[n].shape[1:] for n in names if n in tensors and tensors[n].ndim}
    if all(name in tensors for name in names) and len(alike) == 1:
      whole = np.concatenate([tensors[name] for name in names])
      tensors = {n: x for n, x in tensors.items() if n not in names}
      tensors = tensors | {start + new: whole}
  return tensors
