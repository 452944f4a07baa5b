"""The contract that a task inherits by being registered, as one of a user's has it."""

import pytest
from test_probe_tasks import SPECS

from experiments.contract.tasks import *  # noqa: F403, the tests themselves
from transformer_jax.data.base import tasks

QUICK = "copy", "addition", "pairs(copy)"


@pytest.fixture(
  scope="module",
  params=[
    pytest.param(spec, marks=() if spec in QUICK else pytest.mark.slow)
    for spec in SPECS
  ],
)
def task(request):
  return tasks.build(request.param)
