"""Numbers depend on the cores that a run computes with, not on the machine's."""

import os

import pytest

from experiments.runner import process
from transformer_jax.mesh_shape import MeshShape

# A product and sums that XLA divides among threads; its result's bits are printed.
COMPUTED = """
import hashlib, os
if {cores}:
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}])
from experiments.runner import process
process.fix_cores({number}, [])
import jax, jax.numpy as jnp, numpy as np
draw = np.random.default_rng(0).normal
x, w = (jnp.asarray(draw(size=n), jnp.float32) for n in ((4000, 100), (100, 1000)))

@jax.jit
def step(x, w):
  y = jnp.tanh(x @ w)
  return (y * jnp.sin(y)).sum(0), (y.T @ x).sum(), y.sum()

bits = b"".join(np.asarray(each).tobytes() for each in step(x, w))
print(process.cores(), hashlib.sha256(bits).hexdigest())
"""
PLAIN = {"XLA_FLAGS": None, "NPROC": None}

needs_two = pytest.mark.skipif(
  not hasattr(os, "sched_setaffinity") or process.available() < 2,
  reason="compares processes that may use one and two cores",
)


def computed(commands, number, cores, **environment):
  code = COMPUTED.format(number=number, cores=cores)
  done = commands.run(code=code, environment=PLAIN | environment)
  assert done.returncode == 0, done.stderr
  used, bits = done.stdout.split()
  return int(used), bits


@needs_two
def test_results_are_those_of_the_chosen_cores_wherever_they_are_computed(commands):
  one, two = (computed(commands, 0, cores) for cores in (1, 2))
  assert one == two and one[0] == 1
  more = [computed(commands, 2, cores) for cores in (1, 2)]
  assert more[0] == more[1] and more[0][0] == 2
  assert more[0][1] != one[1]  # so that the first line says something


def test_xlas_own_variable_is_heard_and_a_flag_wins(monkeypatch):
  monkeypatch.setattr(process, "_started", lambda: False)
  monkeypatch.setenv("NPROC", "6")
  process.fix_cores(0, [MeshShape()])
  assert process.cores() == 6
  process.fix_cores(3, [MeshShape()])
  assert process.cores() == 3


@pytest.mark.parametrize(
  ("meshes", "flags", "cores"),
  [
    ([MeshShape()], "", 1),
    ([MeshShape(), MeshShape(2, 1, 2)], "", 4),  # one core for each device
    ([MeshShape(8)], "", 1),  # which the check of the mesh refuses
    ([MeshShape()], "--xla_force_host_platform_device_count=8", 1),
    ([MeshShape(-1)], "--xla_force_host_platform_device_count=8", 8),
  ],
)
def test_each_device_of_a_mesh_has_a_core(monkeypatch, meshes, flags, cores):
  monkeypatch.setattr(process, "_started", lambda: False)
  monkeypatch.setattr(process, "available", lambda: 4)
  monkeypatch.setenv("NPROC", "1")  # restored afterwards
  monkeypatch.delenv("NPROC")
  monkeypatch.setenv("XLA_FLAGS", flags)
  process.fix_cores(0, meshes)
  assert process.cores() == cores


def test_cores_stay_once_jax_has_started_or_an_accelerator_is_named(monkeypatch):
  import jax

  jax.devices()
  monkeypatch.setenv("NPROC", "16")
  process.fix_cores(1, [MeshShape()])
  assert process.cores() == 16
  monkeypatch.setattr(process, "_started", lambda: False)
  monkeypatch.setenv("JAX_PLATFORMS", "cuda")
  process.fix_cores(1, [MeshShape()])
  assert process.cores() == 16
