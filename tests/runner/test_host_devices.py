"""A process that trains on a CPU gets the devices of its mesh and keeps its memory."""

import subprocess
import sys
import types

import jax
import pytest

from experiments.configs import base
from experiments.runner import core_devices, process
from transformer_jax.mesh_shape import MeshShape

DEVICES = """
import os
from experiments.runner import process
from transformer_jax.mesh_shape import MeshShape
import jax
if count := os.environ.get("JAX_NUM_CPU_DEVICES"):  # read when jax is imported
  jax.config.update("jax_num_cpu_devices", int(count))
process.cores = lambda: 4
process.make_devices({meshes})
print(jax.device_count())
"""


CASES = [
  ([MeshShape()], {}, 1),
  ([MeshShape(), MeshShape(2, 1, 2)], {}, 4),
  ([MeshShape(2), MeshShape(8)], {}, 2),  # eight are more than there are cores
  ([MeshShape(fsdp=2, seed=2)], {}, 4),
  ([MeshShape(-1)], {}, 1),  # all of what is there
  ([MeshShape(2)], {"JAX_NUM_CPU_DEVICES": "3"}, 3),
  ([MeshShape(2)], {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, 3),
]


@pytest.mark.parametrize(("meshes", "flags", "count"), CASES)
def test_jax_is_asked_for_the_devices_of_meshes(monkeypatch, meshes, flags, count):
  asked = []
  update = lambda name, value: asked.append((name, value))
  config = types.SimpleNamespace(
    jax_num_cpu_devices=int(flags.get("JAX_NUM_CPU_DEVICES", -1)), update=update
  )
  monkeypatch.setattr(jax, "config", config)
  monkeypatch.setattr(process, "cores", lambda: 4)
  monkeypatch.setenv("XLA_FLAGS", flags.get("XLA_FLAGS", ""))
  process.make_devices(meshes)
  there = bool(flags) or count == 1
  assert asked == ([] if there else [("jax_num_cpu_devices", count)])


@pytest.mark.parametrize(
  ("meshes", "flags", "count"),
  [pytest.param(*x, marks=() if x[2] > 2 else pytest.mark.slow) for x in CASES],
)
def test_a_cpu_gets_the_devices_that_meshes_ask_for(commands, meshes, flags, count):
  code = DEVICES.format(meshes=meshes)
  said = commands.run(code=code, environment={"XLA_FLAGS": None} | flags)
  assert said.stdout.strip() == str(count), said.stderr


def test_devices_are_left_alone_once_jax_has_started(monkeypatch):
  """JAX refuses to make them then; that is no error of the user."""
  count = jax.device_count()
  monkeypatch.delenv("XLA_FLAGS")
  monkeypatch.setattr(process, "cores", lambda: 4)
  process.make_devices([MeshShape(2)])
  assert jax.device_count() == count


FREED = """
import ctypes
from pathlib import Path
from experiments.runner import process

def resident():
  return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

{first}
for _ in range(3):
  before = resident()
  array = bytearray(2**28)
  del array
print(resident() - before < 0 or resident() < 2**28)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
@pytest.mark.parametrize("keeps", [False, True])
def test_memory_that_was_freed_stays_with_the_process(keeps):
  first = "process.keep_memory()" if keeps else ""
  command = [sys.executable, "-c", FREED.format(first=first)]
  said = subprocess.run(command, capture_output=True, text=True)
  assert said.stdout.strip() == str(not keeps), said.stderr


CORES = [
  ({"seeds": (0, 1, 2, 3)}, 4, "mesh.data=4"),
  ({"evaluate.batch_size": 2, "evaluate.examples": 2}, 4, "a mesh"),
  ({"train.accumulate": 2, "train.batch_size": 4}, 4, "a mesh"),
  ({"mesh.tensor": 2}, 4, "mesh.tensor=2"),  # as it is written
  ({"seeds": (0, 1, 2, 3)}, 1, "a mesh"),
]


@pytest.mark.parametrize(("changes", "cores", "mesh"), CORES)
def test_cores_share_batches_where_they_divide_them(changes, cores, mesh):
  config = base.get_config()
  with config.ignore_type():
    config.update_from_flattened_dict(changes)
  assert str(core_devices.for_cores(config, cores)) == mesh


def test_a_run_computes_on_the_devices_that_its_cores_were_made(monkeypatch):
  config = base.get_config()
  for cores, mesh in ((jax.device_count(), "mesh.data=8"), (2, "a mesh")):
    monkeypatch.setattr(process, "cores", lambda cores=cores: cores)
    assert str(core_devices.here(config)) == mesh
