"""Measures of whether the attention of a trained classifier explains its outputs."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.analysis import TrainedRun
from experiments.setup.validate import ConfigError
from transformer_jax.analysis import (
  adversarial,
  divergence,
  example_stream,
  explanation,
  token_importance,
)
from transformer_jax.analysis.adversarial import Search
from transformer_jax.data.base import Batch
from transformer_jax.data.tasks.labelled.base import kept
from transformer_jax.data.tasks.labelled.classification import Classification

TOGETHER = 64  # texts in one program


@dataclasses.dataclass(frozen=True)
class ExplainSettings:
  """Which attention is explained, of how many texts, and how hard it is tried.

  layer          number of the layer; negative: counted from the last one
  texts          of the scored split
  permutations   of the weights of each text
  search         for adversarial weights

  >>> ExplainSettings().search.epsilon
  0.01
  """

  layer: int = -1
  texts: int = 128
  permutations: int = 100
  search: Search = Search()


@dataclasses.dataclass(frozen=True, eq=False)
class ExplanationStudy:
  """What was measured of a run, for each seed and text.

  path             of the layer
  paths            of all layers that attend
  value_SE         {name: seeds by texts}; NaN where there is none
  share_SEM        share of each token in the attention of the model
  adversarial_SEM  the same of the adversarial weights
  token_EM         ids of the tokens
  word_EM          whether a token stands between start and end
  class_SE         number of the predicted class
  labels           names of the classes

  >>> share_SEM, token_EM = np.ones((1, 2, 3)), np.ones((2, 3), int)
  >>> fields = share_SEM, share_SEM, token_EM, token_EM > 0, np.zeros((1, 2), int)
  >>> study = ExplanationStudy("a", ["a"], {"right": np.ones((1, 2))}, *fields, ("b",))
  >>> study.labels[study.class_SE[0, 0]]
  'b'
  """

  path: str
  paths: list[str]
  value_SE: dict[str, np.ndarray]
  share_SEM: np.ndarray
  adversarial_SEM: np.ndarray
  token_EM: np.ndarray
  word_EM: np.ndarray
  class_SE: np.ndarray
  labels: tuple[str, ...]


def study(run: TrainedRun, settings: ExplainSettings) -> ExplanationStudy:
  """Returns the measures of all seeds of a run; raises ConfigError.

  run   of the task `classification`, of single texts
  """
  labels = _labels(run)
  batch = run.batch(settings.texts)
  path, paths = _path(run, batch.texts(0, 2), settings.layer)
  measure = jax.jit(functools.partial(_measure, run.model, path, len(labels), settings))
  seeds = []
  for number, seed in enumerate(run.seeds):
    parts = []
    for n, part in enumerate(example_stream.parts(batch, TOGETHER)):
      key = jax.random.fold_in(jax.random.key(number), n * TOGETHER)
      parts.append(jax.device_get(measure(run.params[seed], part, key)))
    found = {name: np.concatenate([x[name] for x in parts]) for name in parts[0]}
    explanation.check_shares(found["least"], path)
    seeds.append(found)
  found_SE = {name: np.stack([x[name] for x in seeds]) for name in seeds[0]}
  target_E = np.asarray(jnp.max(batch.target_BL * batch.weight_BL.astype(int), axis=1))
  return ExplanationStudy(
    path=path,
    paths=paths,
    value_SE=_values(found_SE, target_E),
    share_SEM=found_SE["share"],
    adversarial_SEM=found_SE["adversarial_share"],
    token_EM=np.asarray(batch.input_BL),
    word_EM=found_SE["word"][0],
    class_SE=found_SE["output"].argmax(-1),
    labels=labels,
  )


def _measure(
  model: Any,
  path: str,
  classes: int,
  settings: ExplainSettings,
  params: Any,
  batch: Batch,
  key: jax.Array,
) -> dict[str, jax.Array]:
  """Returns what is computed on the device of one seed, by name, texts first."""
  of = explanation.explained(model, params, batch, path, classes)
  predict = functools.partial(explanation.predict, model, params, batch, path, classes)
  moved = lambda w_BHLM: explanation.total_variation(of.probability_BV, predict(w_BHLM))
  permute, start = jax.random.split(key)
  each = jax.random.split(permute, settings.permutations)
  permuted_NB = jax.lax.map(lambda key: moved(explanation.permuted(of, key)), each)
  uniform_BHLM = explanation.uniform(of)
  far = adversarial.search(predict, of, start, settings.search)
  other = dataclasses.replace(of, weights_BHLM=far.weights_BHLM)
  return {
    "least": jnp.min(of.weights_BHLM, axis=(1, 2, 3)),
    "output": of.probability_BV,
    "share": of.share_BM,
    "word": of.word_BL,
    "permuted": jnp.median(permuted_NB, axis=0),
    "uniform": moved(uniform_BHLM),
    "uniform_output": predict(uniform_BHLM),
    "uniform_shift": explanation.shift(of, uniform_BHLM),
    "adversarial": far.shift_B,
    "adversarial_moved": moved(far.weights_BHLM),
    "adversarial_share": other.share_BM,
    "gradient": token_importance.gradient_times_input(model, params, batch, classes),
    "leave_one_out": token_importance.leave_one_out(model, params, batch, classes),
  }


def _values(found: dict[str, np.ndarray], target_E: np.ndarray) -> dict[str, Any]:
  """Returns {name: value_SE}, from the arrays of all seeds."""
  copied = ("permuted", "uniform", "uniform_shift", "adversarial", "adversarial_moved")
  values = {name: found[name].astype(np.float64) for name in copied}
  values["found"] = (found["adversarial"] > 0).astype(float)
  values["right"] = (found["output"].argmax(-1) == target_E).astype(float)
  uniform_SE = found["uniform_output"].argmax(-1)
  values["uniform_right"] = (uniform_SE == target_E).astype(float)
  values["largest"] = found["share"].max(-1).astype(np.float64)
  pairs = {
    "gradient": ("share", "gradient"),
    "leave_one_out": ("share", "leave_one_out"),
    "between": ("gradient", "leave_one_out"),
  }
  for name, (one, other) in pairs.items():
    taus = [
      token_importance.kendall(*x)
      for x in zip(found[one], found[other], found["word"], strict=True)
    ]
    values[f"tau_{name}"] = np.stack([tau_E for tau_E, _ in taus])
    p_SE = np.stack([p_E for _, p_E in taus])
    low_SE = np.where(np.isnan(p_SE), np.nan, p_SE < token_importance.SIGNIFICANT)
    values[f"significant_{name}"] = low_SE
  return values | _between_seeds(found)


def _between_seeds(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the mean divergence and distance of each seed from the others; {}: one."""
  S, E, _ = found["share"].shape
  if S < 2:
    return {}
  sums = {"seeds": np.zeros((S, E)), "seeds_moved": np.zeros((S, E))}
  for one, other in itertools.combinations(range(S), 2):
    shares = (found["share"][one], found["share"][other])
    outputs = (found["output"][one], found["output"][other])
    for name, apart_E in (
      ("seeds", divergence.jensen_shannon(*map(jnp.asarray, shares))),
      ("seeds_moved", explanation.total_variation(*map(jnp.asarray, outputs))),
    ):
      sums[name][[one, other]] += np.asarray(apart_E) / (S - 1)
  return sums


def _labels(run: TrainedRun) -> tuple[str, ...]:
  """Returns the names of the classes; raises ConfigError for another task."""
  task = run.task
  if not isinstance(task, Classification) or task.pairs:
    raise ConfigError(
      f"{run.folder}: explain reads runs of the task classification with single texts,"
      f" and its task is {run.config.task}"
    )
  return tuple(kept(run.folder))


def _path(run: TrainedRun, batch: Batch, layer: int) -> tuple[str, list[str]]:
  """Returns the path of a layer, and all; raises ConfigError where it is not there."""
  paths = explanation.layers(run.model, run.params[run.seeds[0]], batch)
  if not paths:
    raise ConfigError(
      f"{run.folder}: its model has no attention ({run.config.model.family}): explain a"
      " Transformer, since a recurrent classifier here only reads its last state"
    )
  if not -len(paths) <= layer < len(paths):
    raise ConfigError(
      f"--layer={layer}: this model has {len(paths)} layers that attend; write 0 to"
      f" {len(paths) - 1}, or -1 for the last one"
    )
  return paths[layer], paths
