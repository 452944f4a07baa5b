"""Compiled programs that the runs of all tests of a process share.

A sweep keeps its programs below its own folder. Tests have many sweeps, of the same
tiny models, which XLA would compile again for each of them.
"""

import jax
import pytest

from experiments.runner import compile_cache
from experiments.runner.compile_cache import ProgramCache

ALONE = compile_cache._file_cache
SECONDS = "jax_persistent_cache_min_compile_time_secs"


class SharedPrograms(ProgramCache):
  """Programs of a folder, and those of all runs that it lacks."""

  def __init__(self, folder, every):
    super().__init__(folder)
    self._every = ProgramCache(every)

  def get(self, key):
    value = super().get(key)
    if value is None and (value := self._every.get(key)) is not None:
      super().put(key, value)
    return value

  def put(self, key, value):
    super().put(key, value)
    self._every.put(key, value)


@pytest.fixture(scope="session", autouse=True)
def _runs_share_programs(tmp_path_factory):
  every, seconds = tmp_path_factory.mktemp("programs"), getattr(jax.config, SECONDS)
  shared = lambda path: (SharedPrograms(path, every), path)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(compile_cache, "_file_cache", shared)
    jax.config.update(SECONDS, 0.05)  # tiny models compile in less than a second
    yield
  jax.config.update(SECONDS, seconds)
