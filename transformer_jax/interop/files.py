"""config.json and safetensors in a folder, as HuggingFace lays them out.

https://github.com/huggingface/safetensors; pickled weights are never read.
"""

import json
import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

CONFIG, WEIGHTS = "config.json", "model.safetensors"
INDEX = "model.safetensors.index.json"  # of weights in several files
DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}
WHOLE = {"BOOL"} | {f"{kind}{bits}" for kind in "UI" for bits in (8, 16, 32, 64)}

Config = dict[str, Any]
Tensors = dict[str, np.ndarray]


def read(folder: str | os.PathLike) -> tuple[Config, Tensors]:
  """Returns what config.json says and all float tensors, in float32."""
  folder = pathlib.Path(folder)
  config = _json(folder / CONFIG)
  if (folder / INDEX).exists():
    names = _parts(folder / INDEX)
  else:
    names = [WEIGHTS]
  tensors = {}
  for name in names:
    tensors |= _tensors(folder / name)
  return config, tensors


def write(folder: str | os.PathLike, config: Config, tensors: Tensors) -> None:
  """Writes config.json and model.safetensors; each appears whole or not at all."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  tensors = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
  data = safetensors.numpy.save(tensors, metadata={"format": "pt"})
  text = json.dumps(config, indent=2, sort_keys=True) + "\n"
  for name, content in ((WEIGHTS, data), (CONFIG, text.encode())):
    partial = folder / f"{name}.partial"
    partial.write_bytes(content)
    partial.replace(folder / name)
  (folder / INDEX).unlink(missing_ok=True)  # of weights that were there before


def _parts(path):
  """Returns the names of the files that an index lists."""
  where = _json(path).get("weight_map")
  if not isinstance(where, dict) or not where:
    raise ValueError(f"{path} lists no files under weight_map; copy it again")
  return sorted({*where.values()})


def _json(path):
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    raise ValueError(
      f"{path} is missing; give a folder with {CONFIG} and {WEIGHTS}"
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
  """Returns the float tensors of one file; whole numbers are masks and positions."""
  try:
    found = safetensors.deserialize(path.read_bytes())
  except FileNotFoundError as error:
    raise ValueError(
      f"{path} is missing; weights are read from safetensors only. With PyTorch,"
      f" pytorch_model.bin becomes it so: {CONVERT}"
    ) from error
  except safetensors.SafetensorError as error:
    raise ValueError(
      f"{path} is damaged or cut short ({error}); copy or download it again"
    ) from error
  for name, x in found:
    if x["dtype"] not in DTYPES.keys() | WHOLE:
      raise ValueError(
        f"{path}: {name} is of type {x['dtype']}, which is not read here; convert the"
        f" weights to one of {', '.join(DTYPES)}"
      )
  read = lambda x: np.frombuffer(x["data"], DTYPES[x["dtype"]]).reshape(x["shape"])
  return {name: read(x).astype(np.float32) for name, x in found if x["dtype"] in DTYPES}
