"""HuggingFace checkpoints, in and out: one table of tensor names per model family.

loaded = interop.load("gpt2")
logits_BLV = Transformer(loaded.arch).apply({"params": loaded.params}, token_BL)
interop.save("mine", loaded.config, loaded.params)
"""

import dataclasses
import importlib
import os
import pkgutil
from typing import Any

from transformer_jax.attention.cores import cores
from transformer_jax.interop import checkpoint_files, size_limits
from transformer_jax.interop.adapters import refuse_adapter, refuse_parts
from transformer_jax.interop.checkpoint_files import Config, Tensors
from transformer_jax.interop.hf_family import HFFamily, families
from transformer_jax.models import Architecture
from transformer_jax.models.param_tree import flat, nested
from transformer_jax.spec import registered_only

for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Loaded", "architecture", "families", "load", "save", "tensors"]


@dataclasses.dataclass(frozen=True)
class Loaded:
  """Loaded checkpoint: its config, architecture and parameters.

  config   of the file, with the class and the weight tying of its tensors
  arch     the same model here
  params   float32 arrays, nested by our names

  >>> import tempfile
  >>> import numpy as np
  >>> config = {"model_type": "gpt2", "n_layer": 1, "n_embd": 4, "n_head": 2}
  >>> config |= {"vocab_size": 5, "n_positions": 8}
  >>> names = families["gpt2"]().names(architecture(config), config)
  >>> params = {path: np.ones(shape, "float32") for path, shape in names.shapes.items()}
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   save(folder, config, nested(params))
  ...   loaded = load(folder)
  >>> loaded.arch.dims.D, loaded.params["embedding_VD"].shape
  (4, (5, 4))
  >>> loaded.config["architectures"]
  ['GPT2ForCausalLM']
  """

  config: Config
  arch: Architecture
  params: dict[str, Any]


def load(folder: str | os.PathLike, core: str = "auto") -> Loaded:
  """Returns the model of a folder with config.json and safetensors files.

  core: name or spec of the attention core
  Raises ValueError for an unsupported family, for damaged files, or with one list of
  all tensors that are missing, unknown or of another shape.
  """
  refuse_adapter(folder)
  config, found = checkpoint_files.read(folder)
  size_limits.check(config, found)
  family = _family(config)
  size_limits.check(family.missing(config), found, "config.json is silent, so that")
  found = family.today(found)
  refuse_parts(found)
  with size_limits.expected_kinds():
    config = family.settle(config, found)
    arch = architecture(config, core)
    names = family.names(arch, config)
  found = family.full(found, names)
  family.check(found, names)
  return Loaded(config, arch, nested(names.ours(found)))


def save(folder: str | os.PathLike, config: Config, params: dict[str, Any]) -> None:
  """Writes config.json and the parameters, under the names of the config's family."""
  released = _family(config).saved(tensors(config, params))
  checkpoint_files.write(folder, config, released)


@registered_only("config.json")
def architecture(config: Config, core: str = "auto") -> Architecture:
  """Returns the architecture of a config.json. Raises ValueError."""
  size_limits.check(config)
  with size_limits.expected_kinds():
    return _family(config).architecture(config, cores.build(core))


def tensors(config: Config, params: dict[str, Any]) -> Tensors:
  """Returns parameters, or their gradients, under HuggingFace's tensor names."""
  names = _family(config).names(architecture(config), config)
  arrays = flat(params)
  wrong = [
    f"{path} is {getattr(arrays.get(path), 'shape', 'missing')}, not {shape}"
    for path, shape in names.shapes.items()
    if getattr(arrays.get(path), "shape", None) != shape
  ] + [f"{path} is unknown" for path in arrays.keys() - names.shapes.keys()]
  if wrong:
    raise ValueError(
      "the parameters are not of the model that the config describes:\n  "
      + "\n  ".join(wrong)
    )
  return names.theirs(arrays)


def _family(config: Config) -> HFFamily:
  kind = config.get("model_type")
  if not isinstance(kind, str) or kind not in families:
    raise ValueError(
      f"config.json is of model_type {kind!r}, whose weights are not read here; those"
      f" of {', '.join(families)} are"
    )
  if config.get("quantization_config"):
    raise ValueError(
      "config.json says that the weights are quantized (quantization_config); convert"
      " them to float16, bfloat16 or float32 first"
    )
  return families[kind]()
