"""Exports a trained run in HuggingFace's format, where a model family has its parts.

  python -m experiments.export --run=runs/minilm/runs/ID --folder=mine

A run that began with HuggingFace's weights (`train.init_from`) is exported as their
family. Others become `llama` (rope, rmsnorm, swiglu, gqa) or `gpt2` (learned,
layernorm, gelu, biases); for any other model the error lists the differences. The
folder is read back and must give equal logits. A vocabulary in one of HuggingFace's
formats is written as vocab.txt or tokenizer.json, any other in this project's format.
"""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import inference
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
# Options of computation and training, which the model's function does not depend on.
FREE = ("core", "dtype", "scan", "remat", "dropout", "attention_dropout", "part")
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
  nearest: list[str] = []
  for config in _candidates(arch, start):
    differences = list(_differences(arch, interop.architecture(config)))
    if not differences:
      return config
    lines = [f"as {config['model_type']}: {line}" for line in differences]
    nearest = lines if not nearest or len(lines) < len(nearest) else nearest
  raise ConfigError("no family of HuggingFace's has the parts of this model:", *nearest)


def _candidates(arch: Architecture, start: str) -> Iterator[dict[str, Any]]:
  there = Path(start).expanduser() / "config.json"
  if start and there.is_file():
    config = read_object(there)
    if "model_type" in config:
      yield config
  dims, tied = arch.dims, arch.tied
  yield {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    **{"vocab_size": dims.V, "hidden_size": dims.D, "intermediate_size": dims.F},
    **{"num_hidden_layers": arch.decoders or 1, "num_attention_heads": dims.H},
    **{"num_key_value_heads": getattr(arch.attention, "groups", dims.H)},
    **{"head_dim": dims.K, "max_position_embeddings": dims.L},
    **{"rope_theta": getattr(arch.position, "base", 10_000.0)},
    **{
      "rms_norm_eps": getattr(arch.norm, "epsilon", 1e-6),
      "tie_word_embeddings": tied,
    },
  }
  yield {
    **{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
    **{"vocab_size": dims.V, "n_embd": dims.D, "n_inner": dims.F, "n_head": dims.H},
    **{"n_layer": arch.decoders or 1, "n_positions": dims.L},
    **{"layer_norm_epsilon": getattr(arch.norm, "epsilon", 1e-5)},
    **{"activation_function": "gelu_new", "tie_word_embeddings": tied},
  }


def _differences(ours: Architecture, theirs: Architecture) -> Iterator[str]:
  for field in dataclasses.fields(ours):
    here, there = getattr(ours, field.name), getattr(theirs, field.name)
    if field.name == "position":
      here, there = _sized(here, ours.dims.L), _sized(there, theirs.dims.L)
    if field.name in ("dims", "decoder_dims"):
      there = there and dataclasses.replace(there, L=ours.dims.L)  # positions limit it
    if field.name not in FREE and here != there:
      yield f"{field.name} is {here}, where theirs is {there}"


def _sized(position: Any, L: int) -> Any:
  """Returns an encoding whose table has the size that None stands for."""
  unsized = getattr(position, "max_positions", 0) is None
  return dataclasses.replace(position, max_positions=L) if unsized else position


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
