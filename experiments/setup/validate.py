"""Validation of configs: flat keys, typed overrides, checks before compilation."""

import copy
import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.setup.former_values import today
from experiments.setup.model_kinds import KINDS
from experiments.setup.registries import registries, specs
from transformer_jax import remat
from transformer_jax.mesh_shape import ROWS, MeshShape
from transformer_jax.spec import LARGEST_SEED, nearest


class ConfigError(ValueError):
  r"""One or more invalid values; each line says what to write instead.

  >>> from experiments.configs import base
  >>> try:
  ...   validate(resolve(base.get_config(), {"model.width": 65}), devices=1)
  ... except ConfigError as error:
  ...   print(str(error).replace(": ", ":\n"))
  model.width=65 is not a multiple of model.heads=4:
  write model.width=64 or 68, or change model.heads
  """

  exit_code = 2  # of a command that it ends

  def __init__(self, *problems: str):
    self.problems = problems
    super().__init__("\n  ".join(problems if len(problems) == 1 else ("", *problems)))


def flatten(config: ConfigDict) -> dict[str, Any]:
  """Returns `{"model.position": "rope", ...}`, sorted by key."""
  flat: dict[str, Any] = {}
  for key in config:
    value = config[key]
    if isinstance(value, ConfigDict):
      flat |= {f"{key}.{below}": leaf for below, leaf in flatten(value).items()}
    else:
      flat[key] = value
  return flat


def seed_range(value: Any) -> Any:
  """Returns the tuple that a range of seeds means, any other value unchanged.

  >>> seed_range("0..3"), seed_range((5, 7))
  ((0, 1, 2, 3), (5, 7))

  Raises ConfigError for a range without seeds, or with more than MOST_SEEDS.
  """
  match = re.fullmatch(r"(\d{1,10})\.\.(\d{1,10})", str(value).strip())
  if not match or not isinstance(value, str):
    return value
  first, last = map(int, match.groups())
  if not 0 <= last - first < MOST_SEEDS:
    raise ConfigError(
      f"seeds={value}: write the first and the last seed, as in seeds='0..9'"
      f" ({MOST_SEEDS} at most)"
    )
  return tuple(range(first, last + 1))


def resolve(base: ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
  """Returns a copy of `base` with flat keys replaced; raises ConfigError."""
  config, flat = copy.deepcopy(base), flatten(base)
  if "seeds" in overrides:
    overrides = {**overrides, "seeds": seed_range(overrides["seeds"])}
  overrides = {key: today(key, value) for key, value in overrides.items()}
  problems = [problem for item in overrides.items() for problem in _misfit(flat, *item)]
  if problems:
    raise ConfigError(*problems)
  config.update_from_flattened_dict(overrides)
  return config


# Former names of keys.
RENAMED = {
  "train.rows": "train.batch_size",
  "train.keep": "train.keep_checkpoints",
  "train.start": "train.init_from",
  "evaluate.rows": "evaluate.examples",
  "evaluate.rows_per_step": "evaluate.batch_size",
  "model.placement": "model.norm_placement",
}


def unknown_key(key: str, keys: Iterable[str]) -> str:
  """Returns a message on a key that does not exist, with the nearest one."""
  below = [known for known in keys if known.startswith(f"{key}.")]
  if below:
    return f"{key} is a group of keys: set one of {', '.join(below)}"
  if key in RENAMED:
    return f"{key} is called {RENAMED[key]}"
  near = offer(key, spellings(keys))
  return f"unknown key {key}.{near} experiments/configs/base.py lists them all."


def spellings(keys: Iterable[str]) -> dict[str, str]:
  """Returns {spelling: key}: each key by its full name and by its last part."""
  return {known.rpartition(".")[2]: known for known in keys} | {k: k for k in keys}


def offer(name: str, meant: Mapping[str, str]) -> str:
  """Returns `" Did you mean 'model.position'?"` for `positon`, or "".

  name    the misspelled word
  meant   {spelling: the name to offer}
  """
  close = difflib.get_close_matches(name, meant, n=1, cutoff=0.5)
  return f" Did you mean '{meant[close[0]]}'?" if close else ""


def _misfit(flat: Mapping[str, Any], key: str, value: Any) -> Iterator[str]:
  """Yields the reason against a value, if there is one."""
  if key not in flat:
    yield unknown_key(key, flat)
  elif not _fits(value, flat[key]):
    yield f"{key}={value!r}: {wanted(flat[key])}"


def _fits(value: Any, like: Any) -> bool:
  if isinstance(like, (tuple, list)):
    parts = like[:1] * len(value) if isinstance(value, (tuple, list)) else ()
    return isinstance(value, (tuple, list)) and all(map(_fits, value, parts))
  if isinstance(like, float) and isinstance(value, int):
    return not isinstance(value, bool)
  return type(value) is type(like)


def wanted(like: Any) -> str:
  """Returns the type of value that a key takes, with the default as the example."""
  kinds = {bool: "true or false", int: "a whole number", float: "a number"}
  kinds |= {str: "text", tuple: "a tuple", list: "a list"}
  return f"write {kinds[type(like)]}, as in {like!r}"


CHOICES = {
  "model.kind": tuple(KINDS),
  "model.dtype": ("float32", "bfloat16"),
  "model.remat": remat.POLICIES,
  "evaluate.split": ("", "validation", "test"),
  "train.text": ("auto", "resident", "streamed"),
}
AT_LEAST_ONE = (
  *("model.width", "model.layers", "model.heads"),
  *("train.length", "train.batch_size", "train.steps", "train.steps_per_dispatch"),
  *("train.checkpoint_every", "train.keep_checkpoints", "train.accumulate"),
  *("evaluate.examples", "evaluate.batch_size"),
  *("evaluate.texts_per_step", "evaluate.beam"),
)
NOT_NEGATIVE = (
  *("train.clip", "model.head_width", "model.feedforward"),
  *("evaluate.texts", "evaluate.rollouts"),
)
PROBABILITIES = (
  *("model.dropout", "model.attention_dropout", "train.label_smoothing"),
  "train.ema",
)
SPLIT = {"model.width": "D", "model.heads": "H", "model.feedforward": "F"}  # by a mesh
MOST_SEEDS = 1000
MOST_LAYERS = 1000  # each is traced: far more would be a hang, not a model


def validate(
  config: ConfigDict, devices: int | None = None, trained: bool = False
) -> None:
  """Checks every value before anything compiles; raises ConfigError with all problems.

  devices   number of devices here; None: do not check the mesh against it
  trained   the run has finished: files that only its training needs may be gone
  """
  flat = flatten(config)
  problems = [*_ranges(flat)]
  # Sizes are divided only once they are known to be sizes.
  problems += [] if problems else [*_divisions(flat), *mesh_problems(flat, devices)]
  problems += [*_choices(flat), *_specs(flat, trained)]
  problems += [] if trained else _start(flat)
  if problems:
    raise ConfigError(*problems)


def _ranges(flat: Mapping[str, Any]) -> Iterator[str]:
  for key, value in flat.items():
    if isinstance(value, float) and not math.isfinite(value):
      yield f"{key}={value}: write a finite number"
  for key in AT_LEAST_ONE:
    if flat[key] < 1:
      yield f"{key}={flat[key]}: write 1 or more"
  if flat["model.layers"] > MOST_LAYERS:
    yield f"model.layers={flat['model.layers']}: write {MOST_LAYERS} or less"
  for key in PROBABILITIES:
    if not 0 <= flat[key] < 1:
      yield f"{key}={flat[key]}: write a number from 0 to below 1"
  for key in NOT_NEGATIVE:
    if not flat[key] >= 0:
      yield f"{key}={flat[key]}: write 0 or more"
  yield from _target_returns(flat["evaluate.target_returns"])
  seeds, lengths = flat["seeds"], flat["evaluate.lengths"]
  if not seeds or len({*seeds}) < len(seeds) or min(seeds) < 0:
    yield f"seeds={seeds}: write different numbers, 0 or more, as in 0..2 or (0, 1, 2)"
  elif max(seeds) > LARGEST_SEED:
    yield f"seeds={seeds}: a seed has 32 bits; write numbers up to {LARGEST_SEED}"
  if not lengths or list(lengths) != sorted({*lengths}) or lengths[0] < 1:
    yield f"evaluate.lengths={lengths}: write growing multiples, as in (1, 2, 4)"


def _target_returns(targets: Any) -> Iterator[str]:
  numbers = all(isinstance(x, (int, float)) and math.isfinite(x) for x in targets)
  if not numbers or [*targets] != sorted({*targets}):
    yield (
      f"evaluate.target_returns={targets}: write growing numbers, as in (100.0, 500.0)"
    )


def _divisions(flat: Mapping[str, Any]) -> Iterator[str]:
  pairs = [
    ("train.steps", "train.steps_per_dispatch"),
    ("train.checkpoint_every", "train.steps_per_dispatch"),
    ("evaluate.examples", "evaluate.batch_size"),
  ]
  pairs += [] if flat["model.head_width"] else [("model.width", "model.heads")]
  for whole, part in pairs:
    yield from _uneven(whole, flat[whole], part, flat[part])


def mesh_problems(flat: Mapping[str, Any], devices: int | None) -> Iterator[str]:
  """Yields a sentence for each reason against the mesh of a flat config.

  devices   number of devices here; None: unknown
  """
  shape = MeshShape.of(flat)
  problems = [*shape.problems(devices)]
  yield from problems
  if problems:
    return
  shape = shape.filled(devices or 1)
  for key, letter in SPLIT.items():
    axis, parts = shape.parts(letter)
    yield from _uneven(key, flat[key], f"mesh.{axis}", parts)
  split = [axis for axis in ROWS if shape.sizes[axis] > 1]
  rows = " x ".join(f"mesh.{axis}" for axis in split or ROWS[:1])
  accumulate = flat["train.accumulate"]
  if shape.pmap and accumulate > 1:
    yield (
      f"mesh.pmap=True takes whole batches, and train.accumulate={accumulate} computes"
      " parts of them: write train.accumulate=1, or mesh.pmap=False"
    )
  named = [*(("train.accumulate",) if accumulate > 1 else ()), rows]
  size = flat["train.batch_size"]
  yield from _uneven(
    "train.batch_size", size, " x ".join(named), accumulate * shape.rows
  )
  size = flat["evaluate.batch_size"]
  yield from _uneven("evaluate.batch_size", size, rows, shape.rows)
  count = len(flat["seeds"])
  if count % shape.seed:
    yield (
      f"mesh.seed={shape.seed} does not divide the {count} seeds: write a multiple of"
      f" {shape.seed} seeds, or change mesh.seed"
    )


def _uneven(whole: str, size: int, part: str, by: int) -> Iterator[str]:
  if size % by:
    below, above = size // by * by, -(-size // by) * by
    near = f"{below} or {above}" if below else f"{above}"
    yield (
      f"{whole}={size} is not a multiple of {part}={by}:"
      f" write {whole}={near}, or change {part}"
    )


def _choices(flat: Mapping[str, Any]) -> Iterator[str]:
  for key, choices in CHOICES.items():
    if flat[key] not in choices:
      near = nearest(flat[key], choices)
      names = ", ".join(filter(None, choices))
      yield f"{key}={flat[key]!r}:{near} Write one of {names}."


def _start(flat: Mapping[str, Any]) -> Iterator[str]:
  folder = flat["train.init_from"]
  if folder and not (Path(folder).expanduser() / "config.json").is_file():
    yield (
      f"train.init_from={folder}: no config.json there; name a folder that has one"
      " and model.safetensors, or that of a run (runs/*/runs/ID)"
    )


def _specs(flat: Mapping[str, Any], trained: bool) -> Iterator[str]:
  for key, registry in registries().items():
    try:
      for spec in specs(flat[key]):
        if not isinstance(spec, str):
          raise TypeError(f"{spec!r} is no text; write ('accuracy',)")
        built = registry.build(spec)
    except (ValueError, TypeError) as error:
      yield f"{key}={flat[key]!r}: {error}"
      continue
    if key == "train.schedule" and not trained:
      yield from _warmup(flat, built)


def _warmup(flat: Mapping[str, Any], schedule: Any) -> Iterator[str]:
  """Yields a problem where warm-up outlasts training; user schedules may have none."""
  warmup, steps = getattr(schedule, "warmup", 0), flat["train.steps"]
  if warmup > steps:
    name = flat["train.schedule"].partition("(")[0]
    yield (
      f"train.schedule={flat['train.schedule']!r} warms up for {warmup} steps and"
      f" train.steps is {steps}: write {name}(warmup={steps // 10}), or more steps"
    )
