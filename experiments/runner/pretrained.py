"""Starts a run from parameters that were trained before: of others, or of a run.

Devlin et al., 2019, section 4, https://arxiv.org/abs/1810.04805: the output is new, and
everything is trained on. An encoding that is not the one of the parameters is new too.
"""

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xxhash

from experiments.inference import of_run
from experiments.runner.build import Experiment
from experiments.setup.validate import ConfigError
from transformer_jax import interop
from transformer_jax.axes import Dims
from transformer_jax.data import files, tokenizers
from transformer_jax.models import Architecture
from transformer_jax.models.param_tree import flat, nested, one_by_one, stacked
from transformer_jax.training.checkpoint import CheckpointError, Keeper
from transformer_jax.training.json_files import read_object
from transformer_jax.training.loop import Program
from transformer_jax.training.step import State

# What parameters mean depends on these: they must be as they were.
SAME = ("encoders", "decoders", "attention", "norm", "activation", "norm_placement")
SAME += ("embedding", "feedforward_bias")
SIZES = {"D": "width", "H": "heads", "K": "head_width", "F": "feedforward"}
OUTPUT = ("tied", "head")  # as they were too, unless the task has classes of its own

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Start:
  """Parameters by path that every seed starts from; the others start by themselves.

  facts   what the record of the run says of it
  """

  arrays: Arrays = dataclasses.field(default_factory=dict)
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)

  def into(self, program: Program) -> Program:
    """Returns the program with a first state that has these parameters."""
    return dataclasses.replace(program, init=lambda: self._put(program.init()))

  def _put(self, state: State) -> State:
    def place(path, x):
      whole = np.broadcast_to(self.arrays[path], x.shape) if path in self.arrays else x
      return jax.device_put(whole.astype(x.dtype), x.sharding)

    def placed(params):
      return nested({path: place(path, x) for path, x in flat(params).items()})

    return state.map_params(placed)


def read(source: str, experiment: Experiment, folder: Path) -> Start:
  """Returns what a run starts from; raises ConfigError with all that does not fit.

  source   a folder of HuggingFace's (config.json and safetensors) or of a run; "": none
  folder   of the run that starts, with its vocabulary
  """
  if not source:
    return Start()
  there = Path(source).expanduser()
  _check_vocabulary(there, folder)
  theirs, found = _load(there)
  ours, own = experiment.trainer.model.arch, bool(experiment.task.classes)
  weights = checksum(found)
  problems = [*_differences(ours, theirs, own)]
  if problems:
    raise ConfigError(f"train.init_from={source} is of another model:", *problems)
  found = stacked(found) if ours.scan else found
  shapes = {n: x.shape for n, x in flat(experiment.trainer.shapes.params).items()}
  swapped = type(ours.position) is not type(theirs.position)
  free = lambda path: swapped and _of_encoding(path) or own and _of_output(path)
  problems = [*_misfits(shapes, found, free)]
  if problems:
    raise ConfigError(f"train.init_from={source} does not fit:", *problems)
  taken = {path: found[path] for path in shapes if path in found and not free(path)}
  facts = {
    "folder": str(source),
    "weights": weights,
    "fingerprint": _fingerprint(taken),
    "parameters": sum(x.size for x in taken.values()),
    "new": sorted(shapes.keys() - taken.keys()),
    "left_out": sorted(found.keys() - taken.keys()),
  }
  if ours.position != theirs.position:
    facts["position"] = {"there": str(theirs.position), "here": str(ours.position)}
  return Start(taken, {"start": facts})


def _load(folder: Path) -> tuple[Architecture, Arrays]:
  """Returns a model and its parameters by path, one layer after another."""
  try:
    said = read_object(folder / "config.json")
  except (FileNotFoundError, NotADirectoryError) as error:
    raise ConfigError(
      f"train.init_from={folder}: no config.json there; name a folder that has one"
      " and model.safetensors, or that of a run (runs/*/runs/ID)"
    ) from error
  if "task" in said:
    return _run(folder)
  loaded = interop.load(folder)
  return loaded.arch, flat(loaded.params)


def _run(folder: Path) -> tuple[Architecture, Arrays]:
  """Returns the model of a run's first seed."""
  _, experiment = of_run(folder)
  trainer, seed_S = experiment.trainer, jnp.array(experiment.seeds, jnp.uint32)
  abstract = jax.eval_shape(jax.vmap(trainer.init), seed_S)
  there = folder / "checkpoints"
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
  """Raises ConfigError where tokens would mean other words than there."""
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


def _differences(ours: Architecture, theirs: Architecture, own: bool) -> Iterable[str]:
  """Yields what is not as it was. own: the task has classes of its own."""
  for name in SAME + (() if own else OUTPUT):
    here, there = getattr(ours, name), getattr(theirs, name)
    if here != there:
      yield f"{name}: {there} there, {here} here"
  yield from _sizes("", ours.dims, theirs.dims)
  if ours.decoder_dims or theirs.decoder_dims:
    yield from _sizes("decoder's ", ours.of_decoder.dims, theirs.of_decoder.dims)


def _sizes(whose: str, ours: Dims, theirs: Dims) -> Iterable[str]:
  """Yields the sizes that are not as they were."""
  for letter, name in SIZES.items():
    here, there = getattr(ours, letter), getattr(theirs, letter)
    if here != there:
      yield f"{whose}{name}: {there} there, {here} here"


def _misfits(shapes: dict, found: Arrays, free: Any) -> Iterable[str]:
  """Yields the parameters that one side lacks or has in another shape."""
  for path in sorted(shapes.keys() | found.keys()):
    if free(path):
      continue
    if path not in found:
      yield f"{path} is missing there"
    elif path not in shapes:
      yield f"{path} is unknown here"
    elif found[path].shape != shapes[path]:
      yield f"{path} is {found[path].shape} there, {shapes[path]} here"


def _of_encoding(path: str) -> bool:
  return "position" in path.split("/")


def _of_output(path: str) -> bool:
  return path.split("/")[0] in ("output_DV", "head")


def checksum(arrays: Arrays) -> str:
  """Returns a fast fingerprint of all parameters that a folder holds."""
  digest = xxhash.xxh3_128()
  for path in sorted(arrays):
    digest.update(path.encode())
    digest.update(np.ascontiguousarray(arrays[path]))
  return digest.hexdigest()


def _fingerprint(arrays: Arrays) -> str:
  """Returns the SHA-256 of the parameters, in the order of their names."""
  digest = hashlib.sha256()
  for path in sorted(arrays):
    digest.update(path.encode())
    digest.update(np.ascontiguousarray(arrays[path]))
  return digest.hexdigest()
