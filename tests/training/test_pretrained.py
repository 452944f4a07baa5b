"""Starts from weights of others: what is loaded, what is refused before training."""

import pathlib
import shutil

import jax
import numpy as np
import pytest
from classifying import BERT, config, first_state, refusal

from experiments.runner import dry_run
from experiments.runner.build import build
from experiments.runner.pretrained import read_pretrained
from experiments.setup import command_line, runs
from experiments.setup.validate import flatten
from transformer_jax import interop
from transformer_jax.models import Transformer
from transformer_jax.models.param_tree import flat, one_by_one
from transformer_jax.positions import coords
from transformer_jax.training.json_files import write_json


def dry(texts, bert, capsys, fields="", **more):
  """Returns what a dry run says of a start, and its exit code."""
  chosen = config(texts, BERT, fields, **more)
  run = runs.Run("id", "label", "group", chosen, {})
  where = pathlib.Path("experiments", "configs", "base.py")
  request = command_line.Request(
    where, chosen, {}, None, texts.parent / "unused", True, False
  )
  code = dry_run.describe(request, [run])
  assert not request.workdir.exists()
  return capsys.readouterr().out, code


def test_a_dry_run_says_what_is_loaded(bert, texts, capsys):
  folder, there = bert
  words = f", tokenizer=\"wordpiece('{folder}/vocab.txt')\""
  said, code = dry(texts, bert, capsys, words, train__init_from=str(folder))
  # All but the head of the masked words: its product, shifts, norm and output.
  size = sum(x.size for n, x in there.items() if n.startswith("weights/bert."))
  assert code == 0 and f"starts from {size:,} parameters of {folder} (1 new, " in said


def test_a_dry_run_refuses_what_the_run_refuses(bert, texts, capsys, tmp_path):
  folder, _ = bert
  refused = lambda there, **more: dry(
    texts, bert, capsys, train__init_from=there, **more
  )
  cases = [(tmp_path / "none", "no config.json there; name a folder")]
  cases += [(texts, "no config.json there; name a folder")]
  cases += [(folder, "its vocabulary is not the task's")]
  other, run = tmp_path / "other", tmp_path / "run"
  write_json(other / "config.json", {"model_type": "rwkv"})
  shutil.copy(folder / "model.safetensors", other)
  cases += [(other, "of model_type 'rwkv', whose weights are not read here")]
  write_json(run / "config.json", flatten(config(texts, BERT)))
  cases += [(run, "that run has no checkpoint; finish it")]
  for there, says in cases:
    said, code = refused(str(there))
    assert code == 1 and "  error: " in said and says in said, said
    assert "FLOPs" not in said
  assert not (run / "checkpoints").exists()


def started(bert, texts, fields="", changes=BERT, **more):
  """Returns the experiment and what it starts from."""
  spec = f", tokenizer=\"wordpiece('{bert}/vocab.txt')\"{fields}"
  built = build(config(texts, changes, spec, train__init_from=str(bert), **more))
  return built, read_pretrained(str(bert), built, bert / "nothing kept")


def test_weights_of_others_give_their_numbers_in_a_run(bert, texts):
  folder, there = bert
  built, found = started(folder, texts)
  assert found.facts["start"]["new"] == ["output_DV"]
  left = found.facts["start"]["left_out"]
  assert left and all(path.startswith("head/") for path in left)
  state = found.into(first_state(built)).init()
  assert [*state.params["embedding_VD"].shape] == [2, 97, 32]
  # The head that was left gives the recorded logits of what the run's layers find.
  loaded = interop.load(folder, core="dense")
  params = jax.tree.map(lambda x: x[1], state.params)
  del params["output_DV"]
  at = coords.padded(there["attention_mask"])
  at = at.replace(data={"type_BL": there["token_type_ids"]})
  whole = {"params": params | {"head": loaded.params["head"]}}
  arch = built.trainer.model.arch
  assert arch.embedding == loaded.arch.embedding and arch.norm == loaded.arch.norm
  model = Transformer(loaded.arch)
  logits_BLV = jax.jit(lambda: model.apply(whole, there["input_ids"], at))()
  real_BL1 = there["attention_mask"][..., None]
  np.testing.assert_allclose(logits_BLV * real_BL1, there["logits"], atol=1e-5)


@pytest.mark.parametrize("position", ["none", "sinusoidal", "rope", "t5"])
def test_positions_can_be_swapped(bert, texts, position):
  built, found = started(bert[0], texts, model__position=position)
  said = found.facts["start"]
  assert "encoder/position/table_LD" in said["left_out"]
  assert said["position"]["there"].startswith("Learned(max_positions=48")
  new = ["encoder/position/table_HN"] if position == "t5" else []
  assert said["new"] == [*new, "output_DV"]
  shapes = {n: x.shape for n, x in flat(built.trainer.shapes.params).items()}
  for path, x in found.arrays.items():
    assert shapes[path] == x.shape


def test_a_scan_over_layers_starts_from_layers(bert, texts):
  _, plain = started(bert[0], texts)
  built, found = started(bert[0], texts, model__scan=True)
  assert found.facts["start"]["parameters"] == plain.facts["start"]["parameters"]
  x = found.arrays["encoder/layers/feedforward/in_DF"]
  for n in (0, 1):
    one = plain.arrays[f"encoder/layer_{n}/feedforward/in_DF"]
    np.testing.assert_array_equal(x[n], one)
  again = one_by_one(found.arrays)
  assert again.keys() == plain.arrays.keys()
  assert found.into(first_state(built)).init().params


def test_all_that_does_not_fit_is_one_list(bert, texts):
  folder, _ = bert
  said = refusal(
    lambda: started(folder, texts, model__norm_placement="pre", model__layers=3)
  )
  assert "encoders: 2 there, 3 here" in said and "placement: PostNorm" in said
  said = refusal(lambda: started(folder, texts, model__position="learned(16)"))
  assert "encoder/position/table_LD is (48, 32) there, (16, 32) here" in said
  said = refusal(lambda: started(folder, texts, model__heads=8))
  assert "heads: 4 there, 8 here" in said
  bytes_ = config(texts, BERT, ", tokenizer='byte'", train__init_from=str(folder))
  said = refusal(lambda: read_pretrained(str(folder), build(bytes_), folder / "none"))
  assert "embedding_VD is (97, 32) there, (261, 32) here" in said
  said = refusal(lambda: read_pretrained("nowhere", build(bytes_), folder / "none"))
  assert "no config.json there; name a folder" in said
