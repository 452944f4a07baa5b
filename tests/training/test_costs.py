"""What a run costs is the same with its data and without."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.configs import base
from experiments.runner.build import build
from experiments.runner.cost import flops_per_token
from experiments.runner.train import describe
from experiments.setup.validate import resolve
from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.language.translation import FEW
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.models.transformer import Transformer

SMALL = {"model.width": 8, "model.heads": 2, "model.feedforward": 8, "model.layers": 1}
SMALL |= {"train.batch_size": 2, "train.length": 8, "evaluate.lengths": (1,)}
SMALL |= {"evaluate.examples": 2, "evaluate.batch_size": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Texts, labelled texts, pairs and pictures, all of them small."""
  folder = tmp_path_factory.mktemp("data")
  words = [f"{a}{b} {b}{a} {a}{a}" for a in "abcdefg" for b in "hijklmnop"]
  for n in range(12):
    (folder / f"{n}.txt").write_text("\n".join(words) * 2)
  labelled, pairs = folder / "labelled", folder / "pairs"
  labelled.mkdir()
  pairs.mkdir()
  for split in ("train", "test"):
    lines = (f"{word}\t{'ab'[n % 2]}" for n, word in enumerate(words))
    (labelled / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    many = [f"{a} {b}" for a in words for b in words][:FEW]
    (pairs / f"{split}.en").write_text("\n".join(many) + "\n")
    (pairs / f"{split}.de").write_text("\n".join(many[::-1]) + "\n")
  return folder


TASKS = {
  "text": ("text('{0}/*.txt', window=16, scored=4)", {}),
  "tokens": ("tokens('{0}/*.txt', window=16, scored=4, tokenizer='byte')", {}),
  "masked": (
    "masked('{0}/*.txt', window=16, scored=4, tokenizer='byte')",
    {"model.kind": "encoder"},
  ),
  "classification": (
    "classification('{0}/labelled', tokenizer='byte', classes=2)",
    {"model.kind": "encoder"},
  ),
  "translation": (
    "translation('{0}/pairs', tokenizer='byte')",
    {"model.kind": "encoder_decoder", "train.length": 24},
  ),
}


def configured(name, folder):
  task, more = TASKS[name]
  return resolve(base.get_config(), SMALL | more | {"task": task.format(folder)})


@pytest.mark.parametrize("name", TASKS)
def test_shapes_without_data_are_those_of_the_data(name, folder):
  task = tasks.build(configured(name, folder).task)
  arrays, _ = task.load()
  shapes = task.abstract()
  same = lambda x, y: (np.ndim(x), np.dtype(x.dtype)) == (len(y.shape), y.dtype)
  assert jax.tree.all(
    jax.tree.map(same, jax.tree.map(jax.numpy.asarray, arrays), shapes)
  )


@pytest.mark.parametrize(
  "name",
  [n if n == "translation" else pytest.param(n, marks=pytest.mark.slow) for n in TASKS],
)
def test_costs_without_data_are_those_with_data(name, folder):
  config = configured(name, folder)
  experiment = build(config)
  arrays, _ = experiment.task.load()
  found = describe(config)
  assert found["flops_per_token"] == flops_per_token(experiment, arrays)
  assert "peak_bytes" not in found
  # Two moments for each parameter, and the optimizer's counts.
  seeds, numbers = len(config.seeds), 3 * found["parameters"]
  assert 0 <= found["state_bytes"] - 4 * seeds * numbers <= 64 * seeds


def test_a_dry_run_traces_a_model_three_times(monkeypatch):
  traced, read = [], Transformer.read
  monkeypatch.setattr(
    Transformer, "read", lambda self, *args: traced.append(0) or read(self, *args)
  )
  config = resolve(base.get_config(), SMALL | {"evaluate.lengths": (1, 4)})
  describe(config)
  assert len(traced) == 3  # its parameters, a training step, the longest texts


def test_a_dry_run_scores_as_a_run_where_a_class_is_a_user_s(monkeypatch):
  checked = []
  check = lambda self, params, arrays, lengths: checked.append(lengths)
  monkeypatch.setattr(Evaluator, "check", check)
  own = {"model.position": "tests.user.own.my_spiral:Spiral"}
  describe(resolve(base.get_config(), SMALL | own))
  assert checked == [(8,)]


def test_every_task_that_loads_something_says_its_shapes():
  for name in tasks:
    loads = "load" in {n for cls in tasks[name].__mro__[:-2] for n in vars(cls)}
    says = "abstract" in {n for cls in tasks[name].__mro__[:-2] for n in vars(cls)}
    assert loads == says or not dataclasses.is_dataclass(tasks[name]), name
