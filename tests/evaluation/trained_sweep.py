"""A tiny sweep that was really trained: once for all files of tests that read it."""

import pytest
from fake_runs import BASE

from experiments.runner import run_folder, train
from experiments.setup import runs
from experiments.setup.plan import Chain, Grid, Group, Plan
from transformer_jax.training.json_files import write_json

TINY = {
  **{"model.width": 16, "model.heads": 2, "model.layers": 1, "model.feedforward": 16},
  **{"train.steps": 2, "train.steps_per_dispatch": 2, "train.batch_size": 4},
  **{"train.checkpoint_every": 2, "train.keep_checkpoints": 1, "seeds": (0, 1)},
  **{"evaluate.examples": 4, "evaluate.batch_size": 4, "evaluate.lengths": (1, 4)},
}
TEXT = {"task": "text('corpus', window=64, scored=8)", "train.length": 16}
COPY = {"task": "copy(symbols=4)", "train.length": 4}
PLAN = Plan(
  "Why?",
  Chain(
    Group("text", Grid({"model.position": ("rope",)}), TEXT | {"train.ema": 0.9}),
    Group("copy", Grid({"model.position": ("none",)}), COPY),
  ),
  "none",
)


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
  """A folder with a finished sweep of a text and of an algorithmic task, to read."""
  here = tmp_path_factory.mktemp("here")
  workdir = here / "runs" / "quickstart"
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(here)
    (here / "corpus").write_text(" ".join(f"def f{n}(): {n * n}" for n in range(300)))
    todo = runs.expand(PLAN, BASE, TINY)
    named = [{"id": x.id, "label": x.label, "group": x.group} for x in todo]
    write_json(workdir / "sweep.json", {"runs": named, "baseline": "none"})
    for each in todo:

      def one(folder, config=each.config):
        return train.run(config, folder, "tiny", stop=False)

      assert run_folder.perform(each, workdir, one, {}).state == "finished"
  return workdir
