"""This process: its CPU devices, its cores, and memory settings of the C library."""

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterable, Iterator, Sequence

from experiments.setup.validate import ConfigError

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


def keep_memory() -> None:
  """Lets the C library keep freed memory for the next step.

  A step's arrays are otherwise handed back and fetched again page by page: an eighth
  of a step on two cores. Does nothing where the library is not glibc.
  """
  with contextlib.suppress(AttributeError, OSError, TypeError):
    mallopt = ctypes.CDLL(None).mallopt
    for option, value in KEEP.items():
      mallopt(option, value)


@contextlib.contextmanager
def rare_collection(objects: int = 500_000) -> Iterator[None]:
  """Collects garbage only after so many new objects, about 100 MiB.

  Traces consist of many small objects that stay. Collecting after every 700 of them, as
  Python does, takes a fifth of the time of tracing.
  """
  usual = gc.get_threshold()
  gc.set_threshold(objects, *usual[1:])
  try:
    yield
  finally:
    gc.set_threshold(*usual)


def cores() -> int:
  """Returns the number of cores that this process may use."""
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:  # only Linux has it
    return os.cpu_count() or 1


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


def make_devices(meshes: Iterable[Sequence[int]]) -> None:
  """Splits a CPU into as many devices as the meshes need, at most one for each core.

  meshes   (data, tensor, sequence) of each run; data -1 takes the devices there are

  Does nothing on an accelerator, where the environment sets the number of devices, and
  after JAX has started.
  """
  import jax

  number = jax.config.jax_num_cpu_devices  # type: ignore[attr-defined]
  if number > 0 or "device_count" in os.environ.get("XLA_FLAGS", ""):
    return
  wanted = (max(1, data) * tensor * sequence for data, tensor, sequence in meshes)
  fitting = [n for n in wanted if n <= cores()]
  if max(fitting, default=1) > 1:
    with contextlib.suppress(RuntimeError):  # JAX has started
      jax.config.update("jax_num_cpu_devices", max(fitting))
