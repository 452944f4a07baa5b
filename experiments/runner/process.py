"""This process: its CPU devices, its cores, and memory settings of the C library."""

import contextlib
import ctypes
import os
import re
from collections.abc import Iterable, Sequence

from experiments.setup.validate import ConfigError
from transformer_jax import hosts
from transformer_jax.mesh_shape import MeshShape

# mallopt's options in glibc, and the values that let it keep freed memory.
KEEP = {
  -4: 0,  # M_MMAP_MAX: large arrays come from the heap too
  -1: 2**31 - 1,  # M_TRIM_THRESHOLD: which is not handed back
  -2: 2**26,  # M_TOP_PAD: and grows in large steps
  -8: 1,  # M_ARENA_MAX: one heap for all threads
}
# The same for a process that is to be started, whatever it runs.
NAMES = {-4: "MMAP_MAX_", -1: "TRIM_THRESHOLD_", -2: "TOP_PAD_", -8: "ARENA_MAX"}
KEPT = {f"MALLOC_{NAMES[option]}": str(value) for option, value in KEEP.items()}

THREADS = "NPROC"  # variable of XLA: threads of the pool that a CPU computes with


def keep_memory() -> None:
  """Lets the C library keep freed memory for the next step.

  A step's arrays are otherwise handed back and fetched again page by page: an eighth
  of a step on two cores. Does nothing where the library is not glibc.
  """
  with contextlib.suppress(AttributeError, OSError, TypeError):
    mallopt = ctypes.CDLL(None).mallopt
    for option, value in KEEP.items():
      mallopt(option, value)


def available() -> int:
  """Returns the number of cores that this process may use."""
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:  # only Linux has it
    return os.cpu_count() or 1


def cores() -> int:
  """Returns the number of cores that XLA computes with on a CPU.

  It divides loops and products among as many threads, so this number changes results;
  which and how many cores the machine has changes none.
  """
  threads = os.environ.get(THREADS, "")
  return int(threads) if threads.isdigit() and int(threads) else available()


def fix_cores(number: int, meshes: Sequence[MeshShape]) -> None:
  """Fixes the number of cores that XLA computes with on a CPU.

  number   0: what the environment says in NPROC, else one, or one for each device
  meshes   that of each run

  Does nothing where only an accelerator is used, and after JAX has started.
  """
  platforms = os.environ.get("JAX_PLATFORMS", "")
  if _started() or (platforms and "cpu" not in platforms.split(",")):
    return
  if number or THREADS not in os.environ:
    os.environ[THREADS] = str(number or _devices(meshes))


def _devices(meshes: Sequence[MeshShape]) -> int:
  """Returns the number of CPU devices that the largest mesh takes."""
  if forced := _forced_devices():
    return forced if any(mesh != MeshShape() for mesh in meshes) else 1
  return max((m.least for m in meshes if _share(m) <= available()), default=1)


def _share(mesh: MeshShape) -> int:
  """Returns the devices of a mesh that this one of several processes has."""
  return -(-mesh.least // hosts.count())


def _forced_devices() -> int:
  """Returns the number of CPU devices that the user asked JAX for, 0 for none."""
  import jax

  number = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
  flag = re.search(r"device_count=(\d+)", os.environ.get("XLA_FLAGS", ""))
  return number if number > 0 else int(flag[1]) if flag else 0


def _started() -> bool:
  """Returns whether JAX has made its devices: its thread pool is there then."""
  import jax

  name = "jax_num_cpu_devices"
  value = getattr(jax.config, name)
  try:
    jax.config.update(name, value + 1)
  except RuntimeError:  # a change that JAX refuses then
    return True
  jax.config.update(name, value)
  return False


def check_platform() -> None:
  """Raises ConfigError where JAX cannot start, or would compute in other types."""
  import jax

  # JAX defines its options at run time.
  if jax.config.jax_enable_x64:  # type: ignore[attr-defined]
    raise ConfigError("JAX_ENABLE_X64 is set, but sums here are float32: unset it")
  platforms = os.environ.get("JAX_PLATFORMS", "")
  if not {*platforms.split(",")} - {"", "cpu"}:
    return  # a CPU is there, and its devices are not made yet
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:
    raise ConfigError(
      f"JAX_PLATFORMS={platforms}: JAX finds no such device here; unset it, or install"
      f" this project's extra for it (pip install -e .[cuda] or .[tpu])"
    ) from error


def make_devices(meshes: Iterable[MeshShape]) -> None:
  """Splits a CPU into as many devices as the meshes need, at most one for each core.

  meshes   that of each run; data -1 takes the devices there are

  Does nothing on an accelerator, where the environment sets the number of devices, and
  after JAX has started.
  """
  import jax

  if _forced_devices():
    return
  fitting = [share for share in map(_share, meshes) if share <= cores()]
  if max(fitting, default=1) > 1:
    with contextlib.suppress(RuntimeError):  # JAX has started
      jax.config.update("jax_num_cpu_devices", max(fitting))
