"""The contract that a task inherits by being registered, as one of a user's has it."""

import dataclasses

import pytest
from test_probe_tasks import SPECS

from experiments.contract.task import *  # noqa: F403, the tests themselves
from transformer_jax.data.base import TaskData, tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.tasks.algorithmic.copy import Copy
from transformer_jax.data.tokenizers.base import load

QUICK = "addition", "pairs(copy)"


@pytest.fixture(
  scope="module",
  params=[
    pytest.param(spec, marks=() if spec in QUICK else pytest.mark.slow)
    for spec in SPECS
  ],
)
def task(request):
  return tasks.build(request.param)


@dataclasses.dataclass(frozen=True)
class Own(Copy):
  """A user's task: `result` is what its load returns."""

  result: tuple = ((), {"files": 1})

  def load(self):
    return self.result


def test_a_pair_of_arrays_and_facts_is_enough():
  data = TaskData.of(Own())
  assert tuple(data) == ((), {"files": 1}) and data.fitted is None
  assert TaskData.of(Own(result=TaskData((), {}, "fitted"))).fitted == "fitted"
  with pytest.raises(DataError, match=r"Own.load returns a tuple; return TaskData\("):
    TaskData.of(Own(result=((), {}, 3)))


def test_keep_saves_what_its_own_load_fitted(tmp_path):
  path = tmp_path / "text.txt"
  task = tasks.build(
    f"tokens({str(path)!r}, window=2, scored=1, tokenizer='char(size=9)')"
  )
  path.write_text("abab\n" * 60)
  first = task.load()
  path.write_text("cdcd\n" * 60)
  assert task.load().fitted.fingerprint != first.fitted.fingerprint
  task.keep(tmp_path / "run", first.fitted)
  assert load(tmp_path / "run" / "tokenizer") == first.fitted
  with pytest.raises(DataError, match="end Tokens.load with return TaskData"):
    task.keep(tmp_path / "other", None)
