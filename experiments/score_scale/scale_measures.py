"""Measures of the scale of attention scores, by width of heads: models and runs."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.reporting import comparisons
from experiments.reporting.findings import Findings
from experiments.runner import train
from experiments.runner.build import Experiment, build
from experiments.runner.saved_run import of_run
from experiments.setup.validate import ConfigError, resolve
from transformer_jax.analysis import scale_statistics
from transformer_jax.attention import attentions
from transformer_jax.attention.variants.scale import Scale
from transformer_jax.training import sharding

EXAMPLES = 16


@dataclasses.dataclass(frozen=True, eq=False)
class ScaleCurves:
  """Measures of one scale of the scores.

  label      of the scale
  power      scores are divided by d^power
  widths     of heads, d
  model      {measure: [seeds, widths]} of models before training
  gaussian   {measure: [seeds, widths]} of standard normal queries and keys
  trained    {width: scores of the seeds} of the finished runs
  measure    of those scores

  >>> curves = ScaleCurves("1/d", 1.0, [4], {}, {}, {4: [3.5, 3.6]}, "bits per byte")
  >>> curves.derived
  [0.25]
  """

  label: str
  power: float
  widths: Sequence[int]
  model: dict[str, np.ndarray]
  gaussian: dict[str, np.ndarray]
  trained: dict[int, list[float]]
  measure: str

  @property
  def derived(self) -> list[float]:
    """Variance of the scores at each width, by the derivation."""
    return [scale_statistics.derived_variance(d, self.power) for d in self.widths]


def measured(workdir: Path, widths: Sequence[int], seeds: int) -> list[ScaleCurves]:
  """Returns the measures of each scale of a sweep; raises ConfigError.

  widths   of heads, in models that are not trained
  seeds    number of first parameters
  """
  findings = comparisons.find(workdir)
  group = findings.sweep.groups[0]
  trained = _trained(findings, workdir)
  curves = []
  for run in findings.sweep.of(group):
    config, _ = of_run(_started(workdir, run.id))
    power = _power(config)
    scores, measure = trained.get(run.label, ({}, ""))
    curves.append(
      ScaleCurves(
        label=run.label,
        power=power,
        widths=widths,
        model=_stacked(_of_models(config, widths, seeds)),
        gaussian=_stacked(_of_gaussians(power, widths, seeds)),
        trained=scores,
        measure=measure,
      )
    )
  return curves


def _of_models(config: ConfigDict, widths: Sequence[int], seeds: int) -> Iterator[Any]:
  """Yields the measures of all seeds at each width."""
  arrays = train.load(build(config).task)[0]
  for width in widths:
    experiment = build(resolve(config, {"model.head_width": width}))
    of_seed = functools.partial(_of_model, experiment, arrays)
    with jax.set_mesh(sharding.make_mesh()):
      yield jax.jit(jax.vmap(of_seed))(jnp.arange(seeds, dtype=jnp.uint32))


def _of_model(experiment: Experiment, arrays: Any, seed: jax.Array) -> Any:
  """Returns the measures of first parameters, on texts of the training split."""
  trainer, task = experiment.trainer, experiment.task
  batch = task.batch(arrays, jax.random.key(seed), EXAMPLES, trainer.length)
  return scale_statistics.of_model(trainer, trainer.init(seed), batch)


def _of_gaussians(power: float, widths: Sequence[int], seeds: int) -> Iterator[Any]:
  """Yields the measures of all seeds at each width."""
  for width in widths:
    one = functools.partial(scale_statistics.of_gaussian, width=width, power=power)
    yield jax.jit(jax.vmap(lambda seed, one=one: one(jax.random.key(seed))))(
      jnp.arange(seeds)
    )


def _stacked(found: Iterator[Any]) -> dict[str, np.ndarray]:
  """Returns {measure: [seeds, widths]}."""
  by_width = [vars(each) for each in found]
  return {name: np.stack([x[name] for x in by_width], axis=1) for name in by_width[0]}


def _trained(
  findings: Findings, workdir: Path
) -> dict[str, tuple[dict[int, list[float]], str]]:
  """Returns {label: ({width: scores of the seeds}, their measure)}."""
  found: dict[str, tuple[dict[int, list[float]], str]] = {}
  for group in findings.sweep.groups:
    cells = findings.main(group) if findings.lengths(group) else []
    for run in findings.sweep.of(group) if cells else ():
      values = run.values(cells[0].length, cells[0].measure, cells[0].part)
      if values:
        model = of_run(workdir / "runs" / run.id)[0].model
        width = model.head_width or model.width // model.heads
        scores, _ = found.setdefault(run.label, ({}, cells[0].measure))
        scores[width] = list(values.values())
  return found


def _started(workdir: Path, run: str) -> Path:
  """Returns the folder of a run; raises ConfigError where it has not started."""
  folder = workdir / "runs" / run
  if not (folder / "config.json").exists():
    raise ConfigError(f"{folder} has not started: run its sweep first")
  return folder


def _power(config: ConfigDict) -> float:
  """Returns the power of d in the scale of a run; raises ConfigError."""
  variant = attentions.build(config.model.attention)
  if not isinstance(variant, Scale):
    raise ConfigError(
      f"model.attention={config.model.attention}: score_scale compares runs with"
      " model.attention='scale(0.5)', 'scale(0)' and the like; name such a sweep"
    )
  return float(variant.power)
