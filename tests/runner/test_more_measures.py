"""A measure of one's own that a finished run gets, or whose file is edited."""

import importlib
import sys

import pytest
from fake_runs import FACTS
from test_more_seeds import TINY, copied, few, result_of, run_of  # noqa: F401, fixtures

from experiments.runner import history, run_folder, seed_blocks, train, user_code
from experiments.runner.run_folder import Outcome
from experiments.setup.validate import resolve
from transformer_jax.training import dispatch
from transformer_jax.training.json_files import read_json

SPREAD = """
import dataclasses
import jax.numpy as jnp
from transformer_jax.evaluation.measures import Measure

@dataclasses.dataclass(frozen=True)
class Spread(Measure):
  def score(self, outputs):
    return 1.0 * outputs.mean(jnp.std(outputs.logits_BLV, axis=-1))
"""


@pytest.fixture
def spread(tmp_path, monkeypatch):
  """Writes the file of the measure anew, as it is read by another process."""
  monkeypatch.syspath_prepend(tmp_path)

  def write(text=SPREAD):
    (tmp_path / "spread_of_test.py").write_text(text)
    sys.modules.pop("spread_of_test", None)
    importlib.invalidate_caches()
    user_code._content.cache_clear()

  write()
  yield write
  sys.modules.pop("spread_of_test", None)


def do(workdir, run):
  """Trains and scores as a sweep does; returns the outcome."""

  def one(folder):
    user_code.check(folder, run.config)
    config = resolve(run.config, {"seeds": seed_blocks.of_config(folder)})
    return train.run(config, folder, "a run", stop=False)

  facts = FACTS | {"seeds_apart": True} | user_code.facts(run.config)
  return run_folder.perform(run, workdir, one, facts)


def measured(workdir, run):
  """Returns {(seed, length): value} of the measure."""
  scores = result_of(workdir, run)["scores"]
  mine = [x for x in scores if x["measure"] == "spread" and x["part"] == "mean"]
  return {(score["seed"], score["length"]): score["value"] for score in mine}


def test_a_measure_is_added_edited_and_dropped_without_training(
  copied,  # noqa: F811
  spread,
  monkeypatch,
):
  own = {"evaluate__measures": ("accuracy", "spread_of_test:Spread()")}
  plain, run = run_of(seeds=(0, 1)), run_of(seeds=(0, 1), **own)
  folder = run_folder.folder(copied, run)
  before = result_of(copied, plain)
  monkeypatch.setattr(dispatch, "compile_steps", None)  # nothing trains
  assert do(copied, run) == Outcome("finished")
  result, once = result_of(copied, run), measured(copied, run)
  assert {*once} == {(seed, n) for seed in (0, 1) for n in (4, 8)}
  accuracy = [x for x in result["scores"] if x["measure"] == "accuracy"]
  assert accuracy == [x for x in before["scores"] if x["measure"] == "accuracy"]
  assert result["scoring_code"] == ["spread_of_test.py"] == [*result["own_code"]]
  assert read_json(folder / "inputs.json")["own code"] == {}
  assert do(copied, run).note.startswith("finished before")
  spread(SPREAD.replace("1.0", "2.0"))
  assert not history.finished(folder, user_code.facts(run.config), run.config)
  assert do(copied, run) == Outcome("finished")
  assert measured(copied, run) == {at: 2 * value for at, value in once.items()}
  assert "2.0" in (folder / "own_code" / "spread_of_test.py").read_text()
  assert do(copied, plain) == Outcome("finished")
  assert result_of(copied, plain)["scores"] == before["scores"]
  assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_file_that_training_reads_too_trains_again():
  code = {"own_code": {"fade.py": "b", "spread.py": "b"}, "scoring_code": ["spread.py"]}
  then = {"fade.py": "b", "spread.py": "a"}
  assert history.same_code({"own_code": then}, code)
  assert not history.same_code({"own_code": then | {"fade.py": "a"}}, code)
  # Of a measure that is dropped.
  done = {"own_code": then, "scoring_code": ["spread.py"]}
  assert history.same_code(done, {"own_code": {"fade.py": "b"}})


def test_a_measure_for_a_run_without_checkpoints_is_refused(copied, spread):  # noqa: F811
  run = run_of(seeds=(0, 1), evaluate__measures=("spread_of_test:Spread()",))
  facts = user_code.facts(run.config)
  done = {"own_code": {"spread_of_test.py": "0"}}
  folder = run_folder.folder(copied, run)
  lacks = history.lacking(folder, run.config, done, facts)
  assert lacks.endswith("scores by spread_of_test.py of now")
  (folder / "checkpoints").rename(folder / "gone")
  says = history.refusal(folder, lacks, done, facts)
  assert "scores by spread_of_test.py of now, and has no checkpoint: copy its" in says
