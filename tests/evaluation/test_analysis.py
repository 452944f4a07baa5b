"""Finished runs and sweeps, opened from Python."""

import json
import pathlib
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments import generate, load_run, load_sweep
from experiments.reporting import by_seed
from experiments.reporting.load import ReportError
from experiments.runner import train
from experiments.setup.validate import ConfigError
from transformer_jax.spec import SpecError
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.json_files import write_json

NOTEBOOK = pathlib.Path(__file__).parents[2] / "docs/howto/look_into_a_run.ipynb"


@pytest.fixture
def here(workdir, monkeypatch):
  monkeypatch.chdir(workdir.parents[1])


@pytest.fixture(scope="module")
def text(workdir):
  return load_sweep(workdir).trained("rope")


@pytest.fixture(scope="module")
def copy(workdir):
  return load_sweep(workdir).trained("none", group="copy")


def equal(a, b):
  return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def test_parameters_are_those_that_were_scored(text):
  abstract = jax.eval_shape(jax.vmap(text.experiment.trainer.init), jnp.arange(2))
  with Keeper(text.folder / "checkpoints") as keeper:
    state, _ = keeper.restore(abstract)
  for n, seed in enumerate(text.seeds):
    average = jax.tree.map(lambda x, n=n: x[n], state.ema_params)
    assert equal(text.params[seed], average)
  assert not equal(state.params, state.ema_params) and text.seeds == (0, 1)


@pytest.mark.parametrize("name", ["text", "copy"])
def test_a_run_is_scored_again_to_the_same_bits(name, request, here):
  run = request.getfixturevalue(name)
  assert run.scores == json.loads((run.folder / "result.json").read_text())["scores"]
  assert run.score() == run.scores


def test_scores_of_single_examples_are_kept(text, copy):
  for run in (text, copy):
    examples = run.example_scores
    assert examples.seeds == run.seeds
    for row in run.scores:
      value_SE = examples.value_SE[row["length"], row["measure"], row["part"]]
      mean = value_SE[run.seeds.index(row["seed"])].mean()
      np.testing.assert_allclose(mean, row["value"], rtol=1e-6)
  # One draw of examples for all seeds, the same at every length.
  targets = [text.result["targets"][str(length)]["examples"] for length in (16, 64)]
  assert targets == [4, 4]


def test_other_lengths_are_scored(copy, here):
  scores = copy.score(lengths=(2,))
  assert {score["length"] for score in scores} == {2}
  assert {score["seed"] for score in scores} == {0, 1}
  assert all(0 <= score["value"] <= 1 for score in scores)


def test_a_text_is_continued_as_by_the_command(text):
  found = text.generate(["def ", "a"], seed=1, steps=4)
  assert found == generate.load(text.folder, seed=1)(["def ", "a"], 4)


def test_an_algorithmic_run_answers_with_symbols(copy):
  prompt, answer = copy.task.problem(4)
  ours = [1, *(4 + symbol for symbol in prompt), 2]  # start, prompt, separator
  apply, params = jax.jit(copy.model.apply), {"params": copy.params[1]}
  for n in range(len(ours), len(ours) + len(answer)):
    token_BL = jnp.array([ours + [0] * (10 - n)])
    ours.append(int(apply(params, token_BL)[0, n - 1].argmax()))
  written = ours[len(prompt) + 2 :]
  written = written[: written.index(3)] if 3 in written else written
  assert copy.generate([prompt], seed=1) == [[token - 4 for token in written]]


def test_weights_and_states_are_those_of_the_papers_formula(copy):
  token_BL = jnp.array([[1, 4, 5, 6, 2, 4]])
  w = copy.params[0]["decoder"]["layer_0"]
  states = copy.hidden_states(token_BL)
  assert list(states) == ["decoder/embedding", "decoder/layer_0", "decoder/output"]
  x_BLD = 16**0.5 * copy.params[0]["embedding_VD"][token_BL]
  np.testing.assert_allclose(states["decoder/embedding"], x_BLD, rtol=1e-6)
  x_BLD = x_BLD / np.sqrt((x_BLD**2).mean(-1, keepdims=True) + 1e-6)
  x_BLD = x_BLD * w["attention_norm"]["gain_D"]
  q_BLHK = np.einsum("bld,dhk->blhk", x_BLD, w["attention"]["query_DHK"])
  k_BMHK = np.einsum("bld,dhk->blhk", x_BLD, w["attention"]["key_DHK"])
  s_BHLM = np.einsum("blhk,bmhk->bhlm", q_BLHK, k_BMHK) / np.sqrt(q_BLHK.shape[-1])
  e_BHLM = np.exp(s_BHLM) * np.tril(np.ones((6, 6)))
  wanted = e_BHLM / e_BHLM.sum(-1, keepdims=True)
  found = copy.attention_weights(token_BL)["decoder/layer_0/attention"]
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_batch_has_targets_and_its_states_give_the_logits(text, here):
  batch, params = text.batch(examples=3, length=16), {"params": text.params[1]}
  assert (
    batch.input_BL.shape == (3, 16) and batch.weight_BL.sum(axis=1).tolist() == [8] * 3
  )
  last = text.hidden_states(batch, seed=1)["decoder/output"]
  logits_BLV = text.model.apply(params, last, method="logits")
  wanted = text.model.apply(params, *batch.reads)
  np.testing.assert_allclose(logits_BLV, wanted, rtol=1e-4, atol=1e-5)


def test_the_cells_of_the_notebook_run(workdir, here, monkeypatch, capsys):
  frames = types.SimpleNamespace(DataFrame=Frame)
  monkeypatch.setitem(sys.modules, "pandas", frames)
  plt.switch_backend("Agg")
  names = {}
  for cell in json.loads(NOTEBOOK.read_text())["cells"]:
    if cell["cell_type"] == "code":
      exec(compile("".join(cell["source"]), NOTEBOOK, "exec"), names)
  plt.close("all")
  assert [*names["states"]] == [
    *("decoder/embedding", "decoder/layer_0", "decoder/output")
  ]
  w_BHLM = names["w_BHLM"]
  np.testing.assert_allclose(w_BHLM.sum(axis=-1), 1, rtol=1e-5)
  drawn = [np.asarray(ax.images[0].get_array()) for ax in names["axes"] if ax.images]
  np.testing.assert_array_equal(drawn, w_BHLM[0])
  assert names["logits_BLV"].shape == (4, 32, 256)
  assert names["best"]["model.position"] == "rope"
  assert "right " + str(names["answer"]) in capsys.readouterr().out


class Frame:
  """Stands for a DataFrame, which is made of records and names of columns."""

  def __init__(self, records, columns):
    assert all([*record] == columns for record in records) and len(records) == 20
    self.part = np.array([record["part"] for record in records])
    self.group = np.array([record["group"] for record in records])

  def __getitem__(self, chosen):
    assert chosen.sum() == 4
    return self

  def pivot_table(self, values, index, columns):
    assert {values, index, *columns} <= {*by_seed.COLUMNS}


def test_without_pandas_one_error_says_what_to_install(workdir, monkeypatch):
  monkeypatch.setitem(sys.modules, "pandas", None)
  with pytest.raises(ImportError, match=r"pip install -e \.\[pandas\]"):
    load_sweep(workdir).frame()


def test_records_have_the_values_of_configs(workdir):
  records = load_sweep(workdir).records("model.position", "train.ema")
  places = {(r["group"], r["model.position"], r["train.ema"]) for r in records}
  assert places == {("text", "rope", 0.9), ("copy", "none", 0.0)}
  with pytest.raises(ReportError, match="has a key model.positon. Did you mean"):
    load_sweep(workdir).records("model.positon")


def refusal(call, kind=ConfigError):
  with pytest.raises(kind) as caught:
    call()
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_what_cannot_be_opened_is_one_sentence(workdir, text, copy, tmp_path):
  assert "is a sweep: write load_sweep" in refusal(lambda: load_run(workdir))
  assert "is no run: it has no config.json" in refusal(lambda: load_run(tmp_path))
  assert "no sweep.json in" in refusal(lambda: load_sweep(tmp_path), ReportError)
  shutil.copytree(copy.folder, tmp_path / "moved")
  shutil.rmtree(tmp_path / "moved" / "checkpoints")
  assert "has no checkpoint" in refusal(lambda: load_run(tmp_path / "moved"))
  status = {"state": "interrupted", "step": 1}
  write_json(tmp_path / "moved" / "status.json", status)
  found = refusal(lambda: load_run(tmp_path / "moved"))
  assert "is not finished (interrupted): run its sweep again" in found
  sweep = load_sweep(workdir)
  assert "no run is called 'rop' here. Did you mean 'rope'?" in refusal(
    lambda: sweep.trained("rop")
  )
  assert "has the seeds 0, 1" in refusal(lambda: text.generate(["a"], seed=7))
  assert "write lengths of the task" in refusal(lambda: text.score(lengths=(0,)))
  assert "write module:Class" in refusal(
    lambda: load_run(copy.folder, allow=["Spiral"]), SpecError
  )


def test_other_data_are_said(text, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "corpus").write_text(" ".join(str(n) for n in range(900)))
  train.load.cache_clear()
  load_run(text.folder).score(lengths=(16,))
  train.load.cache_clear()
  assert "have changed since it was trained" in capsys.readouterr().err
