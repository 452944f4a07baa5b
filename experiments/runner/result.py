"""Content of result.json: scores by seed, undefined lengths, parameters and FLOPs."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from experiments.runner.build import Experiment
from experiments.runner.cost import cores_used, flops_per_token, sizes
from transformer_jax.evaluation.measures import Measure
from transformer_jax.evaluation.splits import split_of
from transformer_jax.models.feedforward import active_parameters
from transformer_jax.models.param_tree import flat
from transformer_jax.training.auxiliary.auxiliary_probe import reads_weights
from transformer_jax.training.loop import FitResult


def result_of(
  experiment: Experiment, fitted: FitResult, scores: list[dict], written: dict
) -> dict:
  """Returns the scores by seed; a diverged seed has none.

  scores    those of the measures, by seed index
  written   those of generated texts, {} without any
  """
  seeds = experiment.seeds
  common = {"length": experiment.trainer.length, "part": "mean"}
  all_scores = [
    {"seed": n, "measure": name, "value": value, **common}
    | ({"reason": written["no_score"]} if value is None else {})
    for n, values in enumerate(written.get("scores", ()))
    for name, value in values.items()
  ] + scores
  lost = {seeds[place]: step for place, step in fitted.diverged.items()}
  reasons = {seeds[place]: fitted.reason(place) for place in fitted.diverged}
  causes = {str(seeds[place]): cause for place, cause in fitted.causes.items()}
  named = [score | {"seed": seeds[score["seed"]]} for score in all_scores]

  def without_diverged(score: dict) -> dict:
    reason = reasons.get(score["seed"])
    return score | ({"value": None, "reason": reason} if reason else {})

  return {
    "seeds": list(seeds),
    "measures": [
      *({"name": m, "better": x} for m, x in written.get("better", {}).items()),
      *(_recorded(name, x) for name, x in experiment.evaluator.named.items()),
    ],
    "chance": _chance(experiment),
    "train_length": experiment.trainer.length,
    "length_name": experiment.task.length_name,
    "lengths": list(experiment.lengths),
    "split": split_of(experiment.evaluator),
    "scores": [without_diverged(score) for score in named],
    "undefined": _undefined(experiment, named, lost),
    "diverged": {str(seed): step for seed, step in lost.items()},
    **({"diverged_by": causes} if causes else {}),
    **({"written": written} if written else {}),
  }


def _recorded(name: str, measure: Measure) -> dict[str, Any]:
  bounds = {} if measure.bounds == (None, None) else {"bounds": list(measure.bounds)}
  return {"name": name, "better": measure.better, **bounds}


def _chance(experiment: Experiment) -> dict[str, dict[str, float]]:
  """Returns {measure: {length: score of guessing}}, where the task knows it."""
  found: dict[str, dict[str, float]] = {}
  for name in experiment.evaluator.named:
    for length in experiment.lengths:
      value = experiment.task.chance(name, length)
      if value is not None:
        found.setdefault(name, {})[str(length)] = float(value)
  return found


def _undefined(
  experiment: Experiment, scores: list[dict], lost: Mapping[int, int]
) -> dict[str, str]:
  """Returns {length: reason} of the lengths without a score, in some or all seeds.

  lost   {seed: step of divergence}
  """
  undefined = {}
  for length in experiment.lengths:
    here = [s for s in scores if s["length"] == length and s["seed"] not in lost]
    scored = {s["seed"] for s in here if s["value"] is not None}
    reasons = {s["seed"]: s.get("reason", "") for s in here if s["seed"] not in scored}
    if always := experiment.evaluator.undefined(length):
      undefined[str(length)] = always
    elif reasons:
      same = len({*reasons.values()}) == 1 and not scored
      parts = [f"seed {seed}: {reason}" for seed, reason in reasons.items()]
      undefined[str(length)] = "; ".join([*reasons.values()][:1] if same else parts)
  return undefined


def cost_of(experiment: Experiment, arrays: Any, mesh: Mesh) -> dict[str, Any]:
  """Returns parameters and FLOPs of one seed, and the attention cores of its model."""
  parameters, positional = sizes(experiment.trainer.shapes.eval_params)
  arch = experiment.trainer.model.arch
  with jax.set_mesh(mesh):
    used, refused = cores_used(arch, _tokens(experiment))
  if names := reads_weights(experiment.trainer.terms):
    used += f" (training: dense, whose weights {', '.join(names)} reads)"
  active = active_parameters(arch, flat(experiment.trainer.shapes.params))
  return {
    "parameters": parameters,
    "position_parameters": positional,
    **({"active_parameters": active} if active < parameters else {}),
    "flops_per_token": flops_per_token(experiment, arrays),
    "core": used,
    "core_refusals": refused,
  }


def state_bytes(experiment: Experiment) -> int:
  """Returns the bytes of parameters, their average and moments, of all seeds."""
  state = experiment.trainer.shapes
  leaves = jax.tree.leaves((state.params, state.moments, state.ema_params))
  return len(experiment.seeds) * sum(x.size * x.dtype.itemsize for x in leaves)


def _tokens(experiment: Experiment) -> tuple[int, ...]:
  """Returns the numbers of tokens of trained and scored texts, growing."""
  task, length = experiment.task, experiment.trainer.length
  return tuple(sorted({task.tokens(n) for n in (length, *experiment.lengths)}))
