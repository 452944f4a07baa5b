"""Parameters split over the axis fsdp: bytes of a device, and what devices send."""

import functools
import re

import jax
import pytest

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import resolve
from transformer_jax.training import dispatch, sharding

SMALL = {
  "task": "copy(symbols=12)",  # and four more tokens
  "train.length": 6,
  "train.batch_size": 16,
  "model.width": 64,
  "model.heads": 2,
  "model.feedforward": 128,
  "model.layers": 2,
}


@functools.cache
def compiled(**mesh):
  """Returns the program of one step on a mesh, compiled and not run."""
  trainer = build(resolve(base.get_config(), SMALL)).trainer
  lowered, _ = dispatch.lower_steps(trainer, 1, (), sharding.make_mesh(**mesh), 1)
  return lowered.compile()


def test_bytes_of_a_device_fall_with_fsdp():
  """Vectors and counters alone are whole on every device."""
  shapes = build(resolve(base.get_config(), SMALL)).trainer.shapes
  sizes = [x.size for x in jax.tree.leaves(shapes.params)]
  matrices = 3 * 4 * sum(n for n in sizes if n > 64)  # parameters and two moments
  memory = {n: compiled(fsdp=n, data=8 // n).memory_analysis() for n in (1, 2, 8)}
  rest = memory[1].argument_size_in_bytes - matrices
  assert 0 < rest < matrices / 16
  for n, of_device in memory.items():
    assert of_device.argument_size_in_bytes == matrices // n + rest
    assert of_device.output_size_in_bytes < matrices // n + 2 * rest


@pytest.mark.parametrize(
  "mesh", [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=str
)
def test_devices_send_parameters_and_no_states(mesh, capfd):
  """The states of a layer stay where their texts are."""
  text = compiled(**mesh).as_text()
  assert "all-gather" in text and "all-to-all" not in text
  assert "full rematerialization" not in capfd.readouterr().err
  B, L, D = 16, 14, 64
  for size in re.findall(r"= f32\[([\d,]*)\]\S* all-gather\(", text):
    axes = [int(n) for n in size.split(",") if n != "1"]
    assert axes != [B, L, D], size


def test_a_width_that_does_not_divide_is_refused():
  trainer = build(resolve(base.get_config(), SMALL | {"model.width": 60})).trainer
  with pytest.raises(ValueError, match="mesh.fsdp=8 does not divide the axis of 60"):
    dispatch.abstract_state(trainer, 1, sharding.make_mesh(fsdp=8))
