"""Data parallelism by `jax.pmap`, equal to the mesh path.

JAX has pmap in maintenance mode, so training uses `sharding.py` unless a config says
`mesh.pmap=True`. Each device computes its examples of a batch, and sums of gradients
are sent by `psum`; parameters are whole on every device.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Lowered

from transformer_jax.batch_part import DevicePart
from transformer_jax.data.base import Batch
from transformer_jax.training.step import State, Trainer

AXIS = "data"  # of the devices that share a batch


def on_each_device(trainer: Trainer) -> Trainer:
  """Returns the trainer of one device, which sums over all of them.

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
  arch = dataclasses.replace(trainer.model.arch, part=DevicePart(AXIS))
  return dataclasses.replace(trainer, axis=AXIS, model=trainer.model.clone(arch=arch))


def lower_steps(
  trainer: Trainer,
  arrays: Any,
  state: State,
  windows: Sequence[Any],
  mesh: Mesh,
  count: int,
) -> Lowered:
  """Returns the program of one dispatch, of (places, arrays, state, windows).

  The places are those of the devices, `places(mesh)`. All else, the results too, is
  whole on every device: each draws the whole batch and takes its own examples.

  trainer   the pure step
  arrays    the task's data, or their shapes
  state     shapes of the state, stacked over seeds
  windows   shapes of the windows of a text on the host, of whole batches
  mesh      its devices share the batch
  count     steps per dispatch
  """
  local = dataclasses.replace(on_each_device(trainer), constrain=_own_examples)

  def one_seed(arrays: Any, state: State, windows: Any) -> Any:
    return local.steps(arrays, state, count, windows)

  def on_device(place: jax.Array, arrays: Any, state: State, windows: Any) -> Any:
    return jax.vmap(one_seed, (None, 0, 0))(arrays, state, windows)

  whole = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in windows]
  return jax.pmap(
    on_device,
    axis_name=AXIS,
    in_axes=(0, None, None, None),
    out_axes=None,
    donate_argnums=2,
    devices=[*mesh.devices.flat],
  ).lower(places(mesh), arrays, state, tuple(whole))


def places(mesh: Mesh) -> jax.Array:
  """Returns the number of each device: pmap wants an argument that differs."""
  return jnp.arange(mesh.size)


def placed(run: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
  """Returns a compiled dispatch as a function of (arrays, state, windows).

  run   the compiled result of `lower_steps`
  """
  everywhere = NamedSharding(mesh, PartitionSpec())

  def call(arrays: Any, state: State, windows: Sequence[jax.Array]) -> Any:
    # Windows are read by the rows of a mesh, and pmap takes them whole.
    return run(places(mesh), arrays, state, jax.device_put(windows, everywhere))

  return call


def _own_examples(batch: Batch) -> Batch:
  """Returns the examples of this device; coordinates that all share stay."""
  B, part = batch.input_BL.shape[0], DevicePart(AXIS)
  if B % part.count:
    raise ValueError(_uneven(B, part.count))
  return jax.tree.map(lambda x: part.take(x) if x.shape[0] == B else x, batch)


def _uneven(B: int, count: int) -> str:
  return f"a batch of {B} rows does not divide over {count} devices"


def pmap_step(
  trainer: Trainer, devices: list[jax.Device]
) -> Callable[[State, Batch], tuple[State, Any]]:
  """Returns `step(state, batch) -> (state, metrics)` over a list of devices.

  The state has a leading axis of devices (`replicate`); the batch does not: its rows
  are split over the devices and must divide by their number.

  Raises ValueError for a trainer that accumulates gradients, or a norm of the batch.
  """
  n = len(devices)
  step = jax.pmap(on_each_device(trainer).step, axis_name=AXIS, devices=devices)

  def run(state: State, batch: Batch) -> tuple[State, Any]:
    B = batch.input_BL.shape[0]
    if B % n:
      raise ValueError(_uneven(B, n))

    def fold(x: jax.Array) -> jax.Array:
      x = x if x.shape[0] == B else x.repeat(B, axis=0)
      return x.reshape(n, B // n, *x.shape[1:])

    return step(state, jax.tree.map(fold, batch))

  return run


def replicate(state: State, devices: list[jax.Device]) -> State:
  """Returns the state once per device, with a leading axis of devices."""
  return jax.tree.map(lambda x: jnp.stack([x] * len(devices)), state)
