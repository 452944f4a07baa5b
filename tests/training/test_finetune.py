"""Fine-tuning: outputs of classes, starts from other runs."""

import json

import jax
import numpy as np
import pytest
from classifying import BERT, config, first_state, own_state, refusal

from experiments.configs import minilm as example
from experiments.runner import train
from experiments.runner.build import build
from experiments.runner.pretrained import read_pretrained
from experiments.setup.validate import flatten
from transformer_jax.models import Architecture
from transformer_jax.models.param_tree import flat
from transformer_jax.training.json_files import write_json


def test_an_output_of_classes_has_a_row_for_each(texts):
  built = build(config(texts, model__head="linear(bias=True)"))
  model, trainer = built.trainer.model, built.trainer
  arrays, _ = built.task.load()
  state = jax.jit(trainer.init)(0)
  assert state.params["output_DV"].shape == (16, 2)
  assert state.params["head"]["shift_V"].shape == (2,)
  batch = trainer.batch(arrays, state)
  read = {"params": state.params}, *batch.reads
  loss = lambda: trainer.loss(state.params, batch, state)
  both = jax.jit(lambda: (model.apply(*read), loss()))
  logits_BLV, (loss, metrics) = jax.device_get(both())
  assert logits_BLV.shape == (16, 12, 2)
  losses, right = [], []
  for row in range(16):
    (place,) = np.flatnonzero(batch.weight_BL[row])
    x_V, label = logits_BLV[row, place].astype(np.float64), batch.target_BL[row, place]
    losses.append(np.log(np.exp(x_V).sum()) - x_V[label])
    right.append(x_V.argmax() == label)
  np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
  np.testing.assert_allclose(metrics["accuracy"], np.mean(right))


def test_classes_and_tied_weights_do_not_go_together():
  arch = build(config("none.tsv")).trainer.model.arch
  assert arch.outputs == 2 and not arch.tied
  fields = {name: getattr(arch, name) for name in ("dims", "position", "encoders")}
  assert "no tokens whose embedding" in refusal(
    lambda: Architecture(**fields, classes=2), ValueError
  )


@pytest.fixture(scope="module")
def trained(texts, tmp_path_factory):
  """Trains an encoder for a minute's share; returns its folder and its result."""
  folder = tmp_path_factory.mktemp("sweep") / "runs" / "first"
  folder.mkdir(parents=True)
  chosen = config(texts, fields=", tokenizer='word(size=64)'")
  result = train.run(chosen, folder, "first", stop=False)
  write_json(folder / "config.json", flatten(chosen))
  return folder, result


def accuracy(result):
  return [x["value"] for x in result["scores"] if x["part"] == "mean"]


def test_an_encoder_learns_to_classify(trained):
  folder, result = trained
  assert min(accuracy(result)) > 0.9
  assert result["data"]["guess"]["accuracy"] < 0.7 and "start" not in result
  assert json.loads((folder / "labels.json").read_text()) == ["bad", "good"]


@pytest.mark.parametrize("runs", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_starts_where_another_ended(texts, trained, tmp_path, runs):
  there, _ = trained
  kept = f", tokenizer=\"kept('{there}')\""
  again = tmp_path / "runs" / "again"
  again.mkdir(parents=True)
  more = {"train__steps": 1, "train__steps_per_dispatch": 1, "seeds": (7,)}
  more |= {"train__optimizer": "adamw(lr=1e-9)", "train__init_from": str(there)}
  more |= {"train__checkpoint_every": 1}
  chosen = config(texts, fields=kept, model__position="t5", **more)
  built = build(chosen)
  read = read_pretrained(str(there), built, again)
  said = read.facts["start"]
  if runs:
    assert train.run(chosen, again, "again", stop=False)["start"] == said
  # The table of positions is left, and the output is new since classes may be others.
  assert said["left_out"] == ["encoder/position/table_LD", "output_DV"]
  assert said["new"] == ["encoder/position/table_HN", "output_DV"]
  assert said["position"]["there"].startswith("Learned(max_positions=32")
  assert said["position"]["here"].startswith("T5(")
  assert said["parameters"] == sum(x.size for x in read.arrays.values())
  state = read.into(first_state(built)).init()
  fresh = flat(own_state(built).params)
  for path, x in flat(state.params).items():
    other = fresh[path] if path in said["new"] else read.arrays[path][None]
    np.testing.assert_array_equal(x, other, err_msg=path)


def test_words_must_mean_what_they_meant(bert, texts, trained, tmp_path):
  folder, _ = bert
  spec = ", tokenizer='char(size=97)'"
  built = build(config(texts, BERT, spec, train__init_from=str(folder)))
  built.task.keep(tmp_path / "run", built.task.load().fitted)
  said = refusal(lambda: read_pretrained(str(folder), built, tmp_path / "run"))
  assert f"tokenizer=\"wordpiece('{folder}/vocab.txt')\"" in said
  said = refusal(lambda: read_pretrained(str(trained[0]), built, tmp_path / "run"))
  assert f"tokenizer=\"kept('{trained[0]}')\"" in said


def test_the_example_says_what_minilm_is():
  """The sizes are those of the model's card; its weights are no part of the tests."""
  chosen, plan = example.get_config(), example.sweep()
  model = chosen.model
  sizes = model.width, model.layers, model.heads, model.feedforward
  assert sizes == (384, 6, 12, 1536)
  labels = [change.label for change in plan.runs]
  assert labels[0] == "learned(512)" and "rope" in labels
