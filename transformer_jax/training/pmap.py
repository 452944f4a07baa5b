"""Data parallelism by `jax.pmap`, equal to the mesh path.

JAX has pmap in maintenance mode, so training uses `sharding.py`. This small form is for
users of older code.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.batch_part import DevicePart
from transformer_jax.data.base import Batch
from transformer_jax.training.step import State, Trainer


def pmap_step(trainer: Trainer, devices: list[jax.Device]):
  """Returns `step(state, batch) -> (state, metrics)` over a list of devices.

  The state has a leading axis of devices (`replicate`); the batch does not: its rows
  are split over the devices and must divide by their number.

  Raises ValueError for a trainer that accumulates gradients, or a norm of the batch.
  """
  if trainer.accumulate > 1:
    raise ValueError("pmap takes whole batches; write accumulate=1, or use a mesh")
  if trainer.model.arch.reads_batch:
    raise ValueError(
      "batchnorm reads the whole batch, and a device of pmap has a part of it; use a"
      " mesh, or norm=layernorm"
    )
  # The model too: its random draws for an example must not depend on the device.
  arch = dataclasses.replace(trainer.model.arch, part=DevicePart("data"))
  model = trainer.model.clone(arch=arch)
  local = dataclasses.replace(trainer, axis="data", model=model)
  n = len(devices)
  step = jax.pmap(local.step, axis_name="data", devices=devices)

  def run(state: State, batch: Batch) -> tuple[State, Any]:
    B = batch.input_BL.shape[0]
    if B % n:
      raise ValueError(f"a batch of {B} rows does not divide over {n} devices")

    def fold(x):
      x = x if x.shape[0] == B else x.repeat(B, axis=0)
      return x.reshape(n, B // n, *x.shape[1:])

    return step(state, jax.tree.map(fold, batch))

  return run


def replicate(state: State, devices: list[jax.Device]) -> State:
  """Returns the state once per device, with a leading axis of devices."""
  return jax.tree.map(lambda x: jnp.stack([x] * len(devices)), state)
