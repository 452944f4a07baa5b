"""Exports a trained run in HuggingFace's format, where a model family has its parts.

  python -m experiments.export --run=runs/minilm/runs/ID --folder=mine

A run that began with HuggingFace's weights (`train.init_from`) is exported as their
family. Others become `llama` (rope, rmsnorm, swiglu, gqa), `gpt2` (learned, layernorm,
gelu, biases) or another family whose parts they have: the hybrids, Llama 4, Gemma 3n,
DeepSeek, nanochat and others. For any other model the error lists the differences from
the nearest one. The folder is read back and must give equal logits. A vocabulary in one
of HuggingFace's formats is written as vocab.txt or tokenizer.json, any other in this
project's format.
"""

import dataclasses
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import exported_parts, inference
from experiments.runner.process import check_platform
from experiments.setup.flag_errors import OF_SWEEP
from experiments.setup.validate import ConfigError
from transformer_jax import command, interop
from transformer_jax.data.base import Task
from transformer_jax.models import Architecture, Transformer
from transformer_jax.models.param_tree import flat, nested, one_by_one
from transformer_jax.spec import trust
from transformer_jax.training.checkpoint import CheckpointError
from transformer_jax.training.json_files import FileError, read_object

FLAGS = flags.FLAGS
FIRST = "llama", "gpt2"  # of several families that have the parts
# Else the families' own, which may be outside of the vocabulary.
NO_TOKENS = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
NEAR = 1e-4  # of the largest logit; the same products in float32


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run", None, "Folder of a run: the one with config.json.")
  flags.DEFINE_string("folder", None, "Folder to write; it must not exist.")
  flags.DEFINE_integer("average", 1, "Number of newest checkpoints to average.")
  flags.DEFINE_integer("step", None, "Step of the checkpoint; default: the newest.")
  flags.DEFINE_integer("seed", 0, "Index of the run's seed, from 0.")
  flags.DEFINE_list("allow", [], inference.ALLOW)


def main(argv: list[str]) -> None:
  check_platform()
  if argv[1:]:
    raise ConfigError(f"'{argv[1]}' is not a flag; write --folder={argv[1]}")
  command.require(FLAGS, run="runs/minilm/runs/ID", folder="mine")
  trust(FLAGS.allow)
  folder = Path(FLAGS.folder).expanduser()
  try:
    summary = export(
      Path(FLAGS.run).expanduser(), folder, FLAGS.seed, FLAGS.average, FLAGS.step
    )
  except (CheckpointError, FileError, OSError, ValueError) as error:
    raise ConfigError(str(error)) from error
  print(f"wrote {folder}: {summary}")


def export(
  run: Path, folder: Path, seed: int = 0, last: int = 1, step: int | None = None
) -> str:
  """Writes a run's model and vocabulary; returns their family and format in words.

  run      folder of the run
  folder   to write; it must not exist
  seed     index of the run's seed, from 0
  last     number of newest checkpoints to average
  step     of the newest of them; None: the newest on disk

  Raises ConfigError where no family has the model's parts.
  """
  if folder.exists():
    raise ConfigError(f"{folder} is there already; name a new --folder")
  trained = inference.load(run, Task, "a task", seed, last, step)
  arch = trained.experiment.trainer.model.arch
  params = nested(one_by_one(flat(jax.device_get(trained.params))))
  config = fitting(arch, trained.config.train.init_from)
  try:
    interop.save(folder, config, params)
    _check_logits(folder, arch, params)
    vocabulary = _write_vocabulary(run / "tokenizer", folder)
  except BaseException:
    shutil.rmtree(folder, ignore_errors=True)  # no incomplete folder stays
    raise
  return f"a model of the family {config['model_type']}, {vocabulary}"


def fitting(arch: Architecture, start: str = "") -> dict[str, Any]:
  """Returns the config.json of a model with these parts; raises ConfigError.

  start   the folder of HuggingFace's that training began with, or ""
  """
  nearest, least = [], math.inf
  for config in _candidates(arch, start):
    try:
      theirs = interop.architecture(config)
    except ValueError:  # the family has no such sizes
      continue
    differences = list(exported_parts.differences(arch, theirs))
    if not differences:
      return config
    distance = sum(share for _, share in differences)
    if distance < least:
      nearest = [f"as {config['model_type']}: {line}" for line, _ in differences]
      least = distance
  raise ConfigError("no family of HuggingFace's has the parts of this model:", *nearest)


def _candidates(arch: Architecture, start: str) -> Iterator[dict[str, Any]]:
  """Yields configs of models like this one: of its start, then of each family."""
  there = Path(start).expanduser() / "config.json"
  if start and there.is_file():
    config = read_object(there)
    if "model_type" in config:
      yield config
  for name in sorted(interop.families, key=lambda name: (name not in FIRST, name)):
    family = interop.families[name]()
    if family.describes and arch.decoders:
      named = family.class_name + family.outputs[0].endings[0]
      classes = {"model_type": name, "architectures": [named], **NO_TOKENS}
      yield classes | family.described(arch)


def _check_logits(folder: Path, arch: Architecture, params: Any) -> None:
  """Raises ConfigError unless the written model gives the run's logits."""
  loaded = interop.load(folder, core="dense")
  random, shape = np.random.default_rng(0), arch.embedding.example.shape
  if arch.embedding.table:
    inputs = random.integers(0, arch.dims.V, (1, min(arch.dims.L, 16)))
  else:  # an image
    inputs = random.standard_normal(shape).astype(np.float32)
  source = (inputs, None) if arch.encoders and arch.decoders else ()
  plain = dataclasses.replace(arch, core=loaded.arch.core, dtype="float32", scan=False)

  def logits(arch: Architecture, params: Any) -> np.ndarray:
    apply = jax.jit(Transformer(arch).apply)
    return np.asarray(apply({"params": params}, inputs, None, *source))

  expected, actual = logits(plain, params), logits(loaded.arch, loaded.params)
  if not np.abs(actual - expected).max() <= NEAR * max(1.0, np.abs(expected).max()):
    raise ConfigError("the written model gives other logits; nothing was written")


def _write_vocabulary(source: Path, folder: Path) -> str:
  """Copies the run's vocabulary in the form that HuggingFace reads, if it has one."""
  if not source.is_dir():
    return "whose tokens are bytes or symbols of its task"
  tokenizer = inference.tokenizers.load(source)
  if tokenizer.name == "wordpiece":
    text = "".join(f"{piece}\n" for piece in tokenizer.pieces)
    (folder / "vocab.txt").write_text(text, encoding="utf-8")
    return "with vocab.txt"
  if (source / "tokenizer.json").is_file() and tokenizer.name == "huggingface":
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    return "with tokenizer.json"
  shutil.copytree(source, folder / "tokenizer")
  return f"its vocabulary of kind {tokenizer.name} in tokenizer/, for this project only"


if __name__ == "__main__":
  define()
  command.run(main, (ConfigError,), other_flags=OF_SWEEP)
