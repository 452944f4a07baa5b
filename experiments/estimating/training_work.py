"""What a run's training computes, counted from its programs before optimization."""

import dataclasses

from ml_collections import ConfigDict

from experiments.setup.validate import flatten
from transformer_jax import remat
from transformer_jax.mesh_shape import MeshShape

# Costs import all libraries: the function that needs them does.


@dataclasses.dataclass(frozen=True)
class TrainingWork:
  """One run's training, counted and not compiled.

  parameters   of one seed
  flops        of one step of all seeds, by the model's own operations
  executed     the same with what is computed again in the backward pass
  tokens       of one step of all seeds, sources included
  steps        of the whole training
  devices      of the mesh
  in_slice     devices of the slice: others are idle

  >>> sizes = {"steps": 1, "seeds": 3, "devices": 4, "in_slice": 16}
  >>> TrainingWork(parameters=7, flops=1e9, executed=1e9, tokens=64, **sizes).idle
  12
  """

  parameters: int
  flops: float
  executed: float
  tokens: int
  steps: int
  seeds: int
  devices: int
  in_slice: int

  @property
  def idle(self) -> int:
    """Returns the devices of the slice that the mesh leaves out."""
    return self.in_slice - self.devices


def counted(config: ConfigDict, devices: int) -> TrainingWork:
  """Returns what a run computes.

  devices   of the slice
  """
  from experiments.runner import cost
  from experiments.runner.build import build

  experiment = build(config)
  arrays = experiment.task.abstract()
  seeds = len(experiment.seeds)
  tokens = cost.tokens_per_step(experiment.trainer, arrays) * seeds
  once = cost.flops_per_token(experiment, arrays)
  executed = once
  if config.model.remat != remat.NONE:
    executed = cost.flops_per_token(experiment, arrays, recomputed=True)
  return TrainingWork(
    parameters=cost.sizes(experiment.trainer.shapes.params)[0],
    flops=once * tokens,
    executed=executed * tokens,
    tokens=tokens,
    steps=experiment.budget.steps,
    seeds=seeds,
    devices=MeshShape.of(flatten(config)).filled(devices).least,
    in_slice=devices,
  )
