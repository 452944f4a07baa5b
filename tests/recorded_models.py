"""Small random models of HuggingFace: configs and logits in `third_party/transformers`.

`fuzz.py` there recorded them; weights are made from their names, here as there.
"""

import functools
import json
import pathlib
import re
import zlib

import numpy as np
from safetensors.numpy import save_file

from transformer_jax import interop
from transformer_jax.models import Transformer
from transformer_jax.numpy_interpreter import evaluate

FOLDER = pathlib.Path(__file__).parent.parent / "third_party" / "transformers"
TOKENS, LENGTH = 17, 7  # as in fuzz.py
# Names that transformers writes, and releases do not have; weights depend on the name.
WRITTEN = {
  "gpt_neox": (r"lm_head\.weight", "embed_out.weight"),
  "kimi_linear": (r"\.mlp\.", ".block_sparse_moe."),  # of dense layers, too
}
NEAR = 2e-5  # of the largest number; float32 noise of both sides is about 1e-6


def cases(name):
  """Returns {case: its config and tensors}, and {case: its logits}."""
  with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
    logits = dict(file)
  return json.loads((FOLDER / f"{name}.json").read_text("utf-8")), logits


def fill(name, shape):
  """Returns the weights of a name; the same function as that of fuzz.py."""
  rng = np.random.RandomState(zlib.crc32(name.encode()))
  if len(shape) == 1 and name.endswith("weight"):
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)
  if "bias" in name and "relative" not in name:
    return (0.3 * rng.standard_normal(shape)).astype(np.float32)
  wide = 0.7 if len(shape) < 2 or shape[0] <= TOKENS else 1.3 * shape[-1] ** -0.5
  return (wide * rng.standard_normal(shape)).astype(np.float32)


def write(folder, config, shapes):
  """Writes a folder with weights of those shapes; returns the weights."""
  folder.mkdir(exist_ok=True)
  weights = {name: fill(name, shape) for name, shape in shapes.items()}
  (folder / "config.json").write_text(json.dumps(config))
  save_file(weights, folder / "model.safetensors")
  return weights


def shapes(config):
  """Returns the shapes of all tensors of a config, or raises ValueError."""
  arch = interop.architecture(config, "dense")
  family = interop.families[config["model_type"]]()
  expected = family.names(arch, config).expected()
  zeros = {n: np.broadcast_to(np.float32(0), shape) for n, shape in expected.items()}
  expected = {name: x.shape for name, x in family.saved(zeros).items()}
  names = WRITTEN.get(config["model_type"], ("$^", ""))
  return {re.sub(*names, name): shape for name, shape in expected.items()}


def outputs(loaded, ending=""):
  """Returns what fuzz.py recorded of a model: its logits, or states."""
  arch = loaded.arch
  bare = ending.endswith("Model") and not ending.endswith(("LMHeadModel", "MTModel"))
  method = "states" if bare else "__call__"
  if loaded.config["model_type"] == "vit":
    size = np.broadcast_to(loaded.config["image_size"], 2)
    x = np.random.RandomState(1).standard_normal((2, 3, *size)).astype(np.float32)
  else:
    x = np.random.RandomState(1).randint(4, TOKENS, (2, LENGTH))
  read = (x[::-1], None, x) if arch.encoders and arch.decoders else (x,)
  apply = functools.partial(Transformer(arch).apply, method=method)
  found = evaluate(apply, {"params": loaded.params}, *read)
  if ending.endswith(("ForSequenceClassification", "ForImageClassification")):
    return np.asarray(found[:, -1 if arch.decoders else 0])
  return np.asarray(found)


def error(found, expected):
  """Returns the largest difference, of the largest number."""
  return np.max(np.abs(found - expected)) / np.max(np.abs(expected))
