"""TensorBoard names runs by group and label, and has their scores and configs."""

import fake_sweep
import pytest
from ml_collections import ConfigDict

from experiments.configs import base
from experiments.runner import tensorboard
from experiments.setup.runs import Run
from transformer_jax.training import events
from transformer_jax.training.json_files import read_json
from transformer_jax.training.metrics_log import MetricLog


@pytest.fixture
def run(tmp_path):
  """A finished run whose id says nothing."""
  means = {"none": (3.0, 3.5)}
  content = {"text": ("bits_per_byte", means)}
  fake_sweep.write_sweep(tmp_path, content, seeds=(0, 2), lengths=(64, 128))
  label = "rope(base=5e5) + a/b"
  return Run("text-00", label, "long text", ConfigDict(base.get_config()), {})


def test_the_scores_of_each_seed_are_scalars_by_length(run, tmp_path):
  path = tmp_path / "runs" / run.id
  result = read_json(path / "result.json")
  tensorboard.write_scores(path, run, result)
  tensorboard.write_scores(path, run, result)  # again: not twice
  for seed in (0, 2):
    found = events.scalars(path / "tensorboard" / f"seed{seed}" / "scores")
    part = {"mean": "", "last_quarter": "_last_quarter"}
    want = {
      (score["length"], f"scores/bits_per_byte{part[score['part']]}"): score["value"]
      for score in result["scores"]
      if score["seed"] == seed
    }
    got = {(n, tag): value for n, tags in found.items() for tag, value in tags.items()}
    assert {key: got[key] for key in want} == pytest.approx(want, rel=1e-6)
    (file,) = (path / "tensorboard" / f"seed{seed}" / "scores").iterdir()
    content = file.read_bytes()
    for words in (b"| model.position | `'rope'` |", b"hparams", b"long text"):
      assert words in content


def test_a_run_goes_by_its_group_and_label(run, tmp_path):
  with MetricLog(tmp_path / "runs" / run.id) as record:
    record.write(1, 0, loss=2.0)
  tensorboard.link(tmp_path, run)
  tensorboard.link(tmp_path, run)
  name = tmp_path / "tensorboard" / "long_text" / "rope(base=5e5)_+_a_b"
  assert events.scalars(name / "seed0")[1]["loss"] == 2.0
  assert [*name.parent.iterdir()] == [name]


def test_a_folder_without_links_ends_no_run(run, tmp_path):
  (tmp_path / "tensorboard").write_text("a file is in the way")
  tensorboard.link(tmp_path, run)
  path = tmp_path / "runs" / run.id
  (path / "tensorboard").write_text("here too")
  tensorboard.write_scores(path, run, read_json(path / "result.json"))
  assert (tmp_path / "tensorboard").read_text() == "a file is in the way"
  assert (path / "tensorboard").read_text() == "here too"
