"""Initialization from pretrained parameters: HuggingFace's, or a run's.

Devlin et al., 2019, section 4, https://arxiv.org/abs/1810.04805: the output layer is
newly initialized, and all parameters are trained. Where `model.position` differs from
the checkpoint's encoding, its parameters are newly initialized too.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xxhash

from experiments.runner.build import Experiment
from experiments.runner.saved_run import of_run
from experiments.runner.seed_blocks import blocks
from experiments.setup.validate import ConfigError
from transformer_jax import global_arrays, interop
from transformer_jax.axes import Dims
from transformer_jax.data import files, tokenizers
from transformer_jax.models import Architecture
from transformer_jax.models.param_tree import flat, nested, one_by_one, stacked
from transformer_jax.training.checkpoint import CheckpointError, Keeper
from transformer_jax.training.dispatch import Program
from transformer_jax.training.json_files import read_object
from transformer_jax.training.step import State

# Parts that must equal those of the checkpoint: they give its parameters their meaning.
SAME = (
  *("encoders", "decoders", "attention", "norm", "activation", "norm_placement"),
  *("embedding", "feedforward_bias", "feedforward_kind", "convolution"),
)
SIZES = {"D": "width", "H": "heads", "K": "head_width", "F": "feedforward"}
OUTPUT = ("tied", "head")  # these too, unless the task has classes

HostArrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """Pretrained parameters of every seed; all others are newly initialized.

  arrays   {path: parameter}
  facts    entries of the run's result

  >>> facts = {"start": {"folder": "gpt2", "parameters": 8}}
  >>> given = Pretrained({"embedding_VD": np.zeros((4, 2))}, facts)
  >>> list(given.arrays), given.facts["start"]["folder"]
  (['embedding_VD'], 'gpt2')
  """

  arrays: HostArrays = dataclasses.field(default_factory=dict)
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)

  def into(self, program: Program) -> Program:
    """Returns the program with these parameters in its initial state."""
    return dataclasses.replace(program, init=lambda: self._put(program.init()))

  def _put(self, state: State) -> State:
    def place(path, x):
      whole = np.broadcast_to(self.arrays[path], x.shape) if path in self.arrays else x
      return global_arrays.put(whole.astype(x.dtype), x.sharding)

    def placed(params):
      return nested({path: place(path, x) for path, x in flat(params).items()})

    return state.map_params(placed)


def read_pretrained(source: str, experiment: Experiment, folder: Path) -> Pretrained:
  """Returns a run's pretrained parameters; raises ConfigError with all mismatches.

  source   a folder of HuggingFace's (config.json and safetensors) or of a run; "": none
  folder   of the new run, with its vocabulary
  """
  if not source:
    return Pretrained()
  there = Path(source).expanduser()
  _check_vocabulary(there, folder)
  theirs, arrays = _load(there)
  ours, classes = experiment.trainer.model.arch, bool(experiment.task.classes)
  weights = checksum(arrays)
  problems = [*_differences(ours, theirs, classes)]
  if problems:
    raise ConfigError(f"train.init_from={source} is of another model:", *problems)
  arrays = stacked(arrays) if ours.scan else arrays
  shapes = {n: x.shape for n, x in flat(experiment.trainer.shapes.eval_params).items()}
  swapped = type(ours.position) is not type(theirs.position)

  def new(path: str) -> bool:
    return swapped and _of_encoding(path) or classes and _of_output(path)

  problems = [*_mismatches(shapes, arrays, new)]
  if problems:
    raise ConfigError(f"train.init_from={source} does not fit:", *problems)
  taken = {path: arrays[path] for path in shapes if path in arrays and not new(path)}
  facts = {
    "folder": str(source),
    "weights": weights,
    "fingerprint": _fingerprint(taken),
    "parameters": sum(x.size for x in taken.values()),
    "new": sorted(shapes.keys() - taken.keys()),
    "left_out": sorted(arrays.keys() - taken.keys()),
  }
  if ours.position != theirs.position:
    facts["position"] = {"there": str(theirs.position), "here": str(ours.position)}
  return Pretrained(taken, {"start": facts})


def _load(folder: Path) -> tuple[Architecture, HostArrays]:
  """Returns a model and {path: parameter}, with its layers unstacked."""
  try:
    config = read_object(folder / "config.json")
  except (FileNotFoundError, NotADirectoryError) as error:
    raise ConfigError(
      f"train.init_from={folder}: no config.json there; name a folder that has one"
      " and model.safetensors, or that of a run (runs/*/runs/ID)"
    ) from error
  if "task" in config:
    return _run(folder)
  loaded = interop.load(folder)
  return loaded.arch, flat(loaded.params)


def _run(folder: Path) -> tuple[Architecture, HostArrays]:
  """Returns the model of a run's first seed."""
  _, experiment = of_run(folder)
  first_block, *_ = blocks(folder, experiment.seeds)
  trainer = experiment.trainer
  abstract = trainer.shapes_of(len(first_block.seeds))
  there = first_block.checkpoints
  if not any(path.name.isdigit() for path in there.glob("*")):
    raise ConfigError(
      f"train.init_from={folder}: that run has no checkpoint; finish it"
    )
  with Keeper(there) as keeper:
    try:
      state, _ = keeper.read(keeper.steps()[-1], abstract)
    except CheckpointError as error:
      raise ConfigError(f"train.init_from={folder}: {error}") from error
  first = jax.tree.map(lambda x: np.asarray(x[0]), state.eval_params)
  return trainer.model.arch, one_by_one(flat(first))


def _check_vocabulary(there: Path, folder: Path) -> None:
  """Raises ConfigError unless both vocabularies give tokens the same meaning.

  there    folder of the pretrained model
  folder   of the new run
  """
  if not (folder / "tokenizer").exists():
    return
  mine = tokenizers.load(folder / "tokenizer")
  if (there / "tokenizer").exists():
    same = tokenizers.load(there / "tokenizer").fingerprint == mine.fingerprint
    spec = f"kept('{there}')"
  elif (there / "vocab.txt").exists():
    same = mine.pieces == tuple(files.lines(there / "vocab.txt"))
    spec = f"wordpiece('{there / 'vocab.txt'}')"
  elif (there / "tokenizer.json").is_file():
    same = tokenizers.huggingface.same_words(there, mine)
    spec = f"huggingface('{there / 'tokenizer.json'}')"
  else:
    return
  if not same:
    raise ConfigError(
      f"train.init_from={there}: its vocabulary is not the task's, so tokens would"
      f' mean other words; write tokenizer="{spec}" in the task'
    )


def _differences(
  ours: Architecture, theirs: Architecture, classes: bool
) -> Iterable[str]:
  """Yields the parts that differ; classes: the task has classes, and a new output."""
  for name in SAME + (() if classes else OUTPUT):
    here, there = getattr(ours, name), getattr(theirs, name)
    if here != there:
      yield f"{name}: {there} there, {here} here"
  yield from _sizes("", ours.dims, theirs.dims)
  if ours.decoder_dims or theirs.decoder_dims:
    yield from _sizes("decoder's ", ours.of_decoder.dims, theirs.of_decoder.dims)


def _sizes(whose: str, ours: Dims, theirs: Dims) -> Iterable[str]:
  """Yields the sizes that differ."""
  for letter, name in SIZES.items():
    here, there = getattr(ours, letter), getattr(theirs, letter)
    if here != there:
      yield f"{whose}{name}: {there} there, {here} here"


def _mismatches(
  shapes: Mapping[str, tuple[int, ...]], arrays: HostArrays, new: Callable[[str], bool]
) -> Iterable[str]:
  """Yields the parameters that one side lacks or has in another shape.

  shapes   {path: shape} of the new model
  arrays   {path: parameter} of the pretrained one
  new      whether the parameter of a path is newly initialized
  """
  for path in sorted(shapes.keys() | arrays.keys()):
    if new(path):
      continue
    if path not in arrays:
      yield f"{path} is missing there"
    elif path not in shapes:
      yield f"{path} is unknown here"
    elif arrays[path].shape != shapes[path]:
      yield f"{path} is {arrays[path].shape} there, {shapes[path]} here"


def _of_encoding(path: str) -> bool:
  return "position" in path.split("/")


def _of_output(path: str) -> bool:
  return path.split("/")[0] in ("output_DV", "head")


def checksum(arrays: HostArrays) -> str:
  """Returns a fast fingerprint of parameters, given by path."""
  digest = xxhash.xxh3_128()
  for path in sorted(arrays):
    digest.update(path.encode())
    digest.update(np.ascontiguousarray(arrays[path]).data)
  return digest.hexdigest()


def _fingerprint(arrays: HostArrays) -> str:
  """Returns the SHA-256 of the parameters, in the order of their names."""
  digest = hashlib.sha256()
  for path in sorted(arrays):
    digest.update(path.encode())
    digest.update(np.ascontiguousarray(arrays[path]).data)
  return digest.hexdigest()
