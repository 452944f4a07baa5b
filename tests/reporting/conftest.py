"""A finished quickstart with its report."""

import pytest
from fake_sweep import QUICKSTART, write_sweep
from undrawn import undrawn  # noqa: F401, a fixture

from experiments.reporting.page import write_report


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
  """A finished quickstart with its report, shared by the tests that only read it."""
  workdir = write_sweep(tmp_path_factory.mktemp("quick"), QUICKSTART)
  write_report(workdir)
  return workdir
