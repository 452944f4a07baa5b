"""Gives every test eight simulated devices on the CPU.

The variables must be set before jax is first imported; subprocesses inherit them.
"""

import importlib.metadata
import os
from pathlib import Path

# A GPU or TPU of the machine must not change what the tests see.
os.environ["JAX_PLATFORMS"] = "cpu"

# jaxlib 0.12 has no other emitters, and aborts at an unknown flag.
FUSION_EMITTERS = (
  ["--xla_cpu_use_fusion_emitters=false"]
  if importlib.metadata.version("jaxlib").startswith("0.10.")
  else []
)

# One thread per operation: several workers share the cores of one machine. Compiling is
# what these tests cost: code that runs slower is had four times sooner.
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_cpu_multi_thread_eigen=false",
    "--xla_backend_optimization_level=0",
    *FUSION_EMITTERS,
    "--xla_cpu_parallel_codegen_split_count=1",
  ]
).strip()
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

# Each simulated device waits for the others in a thread of XLA's pool, which has one
# thread per core: with fewer than devices x steps in flight, jax 0.10 hangs for good.
os.environ["NPROC"] = "16"

# Tokenized text is kept nowhere, unless a test names a folder.
os.environ["TRANSFORMER_JAX_CACHE"] = ""

# Figures are drawn into files; no test may open a window.
os.environ["MPLBACKEND"] = "agg"

# Whoever names a folder for compiled programs keeps those of tests too: most compile in
# less than the second from which JAX keeps them.
if "JAX_COMPILATION_CACHE_DIR" in os.environ:
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import gc  # noqa: E402

import cheaper_programs  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
from fork_server import commands  # noqa: E402, F401, a fixture
from shared_programs import _runs_share_programs  # noqa: E402, F401, a fixture

# The contracts are tests in the package: pytest says what their asserts compared.
pytest.register_assert_rewrite("experiments.contract")


cheaper_programs.share_one_context()
cheaper_programs.hash_programs_of_runs_alone()

# Tracing makes many objects and few cycles: hundreds of collections find next to none.
gc.set_threshold(100_000, 50, 100)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
  """Marks the tests of slow_tests.txt; an id that is no test any more is an error."""
  lines = Path(__file__).with_name("slow_tests.txt").read_text().splitlines()
  long = {line for line in lines if line and not line.startswith("#")}
  whole = {item.nodeid.partition("::")[0] for item in items}
  idle = long - {item.nodeid for item in items}
  idle = [id for id in idle if id.partition("::")[0] in whole]
  if idle and not any("::" in word for word in config.args):  # files as a whole
    raise pytest.UsageError(f"tests/slow_tests.txt names no test: {sorted(idle)[0]}")
  for item in items:
    if item.nodeid in long:
      item.add_marker(pytest.mark.slow)


def pytest_collection_finish(session):
  """Keeps what imports made out of garbage collections, which walk all of it."""
  gc.collect()
  gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _programs_of_other_modules_are_forgotten():
  """Frees compiled programs: a process may map only so much, and XLA then crashes."""
  yield
  cheaper_programs.forget_context()
  if _are_many():
    jax.clear_caches()
    gc.collect()


MAPS, SIZES = Path("/proc/self/maps"), Path("/proc/self/statm")


def _are_many() -> bool:
  """Returns whether programs take much of Linux's limit or of a laptop's memory."""
  if not MAPS.exists():
    return True
  resident = int(SIZES.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
  # Of 65,530 maps that a process may have.
  return resident > 3 << 29 or MAPS.read_bytes().count(b"\n") > 8_000
