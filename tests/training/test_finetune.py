"""Fine-tuning: outputs of classes, starts from weights of others and of runs."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments import similarity
from experiments.configs import base
from experiments.configs import minilm as example
from experiments.runner import dry_run, train
from experiments.runner.build import build
from experiments.runner.pretrained import read_pretrained
from experiments.setup import command_line, runs
from experiments.setup.validate import ConfigError, flatten, resolve
from transformer_jax import interop
from transformer_jax.data.files import DataError
from transformer_jax.data.tokenizers import tokenizers
from transformer_jax.models import Architecture, Transformer
from transformer_jax.models.param_tree import flat, one_by_one
from transformer_jax.positions import coords
from transformer_jax.training.json_files import write_json
from transformer_jax.training.loop import Program

FOLDER = pathlib.Path(__file__).parents[2] / "third_party"
CONFIG = json.loads((FOLDER / "transformers" / "configs.json").read_text())["bert_mlm"]
TINY = {
  "seeds": (0, 1), "model.kind": "encoder", "model.width": 16, "model.layers": 1,
  "model.heads": 2, "model.feedforward": 32, "model.position": "learned(32)",
  "model.core": "dense", "train.length": 12, "train.batch_size": 16, "train.steps": 60,
  "train.steps_per_dispatch": 60, "train.checkpoint_every": 60,
  "train.optimizer": "adamw(lr=1e-2)", "train.schedule": "constant",
  "evaluate.lengths": (1,), "evaluate.examples": 16, "evaluate.batch_size": 16,
}  # fmt: skip
# What the recorded BERT is, and a task over its 97 tokens.
BERT = TINY | {
  "model.width": 32, "model.layers": 2, "model.heads": 4, "model.feedforward": 48,
  "model.position": "learned(48)", "model.attention": "multihead(bias=True)",
  "model.norm_placement": "post", "model.norm": "layernorm(epsilon=1e-12)",
  "model.activation": "gelu(approximate=False)", "model.feedforward_bias": True,
  "model.embedding": "tokens(power=0, types=2, norm='layernorm(epsilon=1e-12)')",
}  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
  """Texts that end well or badly, which their last word says."""
  rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("texts")
  words = "the a day road house long short and went saw".split()
  rows = []
  for n in range(200):
    said = " ".join(rng.choice(words, 1 + n % 8))
    rows.append(f"{said} {('well', 'badly')[n % 2]}\t{('good', 'bad')[n % 2]}\n")
  (folder / "all.tsv").write_text("".join(rows))
  return folder / "all.tsv"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
  """The recorded BERT in a folder, as HuggingFace writes it, with a vocabulary."""
  folder = tmp_path_factory.mktemp("bert")
  with np.load(FOLDER / "transformers" / "whole_bert_mlm.npz") as file:
    there = dict(file)
  weights = {n[8:]: x for n, x in there.items() if n.startswith("weights/")}
  (folder / "config.json").write_text(json.dumps(CONFIG))
  save_file(weights, folder / "model.safetensors")
  pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "well", "badly", "the"]
  pieces += [f"##{chr(n)}" for n in range(97, 123)]
  pieces += [f"[unused{n}]" for n in range(97 - len(pieces))]
  (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
  return folder, there


def config(texts, changes=TINY, fields="", **more):
  task = f"classification({str(texts)!r}, classes=2{fields})"
  flat = {key.replace("__", "."): value for key, value in more.items()}
  return resolve(base.get_config(), {"task": task, **changes, **flat})


def refusal(action, kind=ConfigError):
  with pytest.raises(kind) as caught:
    action()
  return str(caught.value)


def first_state(built):
  """Returns what trains nothing: a program whose first state is the model's own."""
  return Program(None, lambda: own_state(built), None, 0.0, 0)


def own_state(built):
  """Returns what seeds start from by themselves, compiled quickly."""
  seed_S = jnp.array(built.seeds, jnp.uint32)
  return jax.jit(jax.vmap(built.trainer.init))(seed_S)


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


def test_words_must_mean_what_they_meant(bert, texts, trained, tmp_path):
  folder, _ = bert
  spec = ", tokenizer='char(size=97)'"
  built = build(config(texts, BERT, spec, train__init_from=str(folder)))
  built.task.keep(tmp_path / "run", built.task.load().fitted)
  said = refusal(lambda: read_pretrained(str(folder), built, tmp_path / "run"))
  assert f"tokenizer=\"wordpiece('{folder}/vocab.txt')\"" in said
  said = refusal(lambda: read_pretrained(str(trained[0]), built, tmp_path / "run"))
  assert f"tokenizer=\"kept('{trained[0]}')\"" in said


def test_similar_sentences_are_near(bert):
  folder, _ = bert
  loaded = interop.load(folder, core="dense")
  # Padding changes nothing, and a sentence is as near to itself as can be.
  texts = ["the well", "the badly well the", "the well"]
  both = similarity.similarities(folder, texts)
  np.testing.assert_allclose(np.diag(both), 1, atol=1e-6)
  np.testing.assert_allclose(both[0, 2], 1, atol=1e-6)
  one = similarity.similarities(folder, texts[:1] + texts[:1])
  np.testing.assert_allclose(one[0, 1], 1, atol=1e-6)
  tokenizer = tokenizers.build(f"wordpiece('{folder}/vocab.txt')").train()
  model = Transformer(loaded.arch)
  weights = {"params": jax.tree.map(jnp.asarray, loaded.params)}
  mean = []
  for text in texts[:2]:
    token_1L = np.array([[2, *tokenizer.encode(text), 3]])
    encode = lambda row: model.apply(weights, row, method="encode")[0]
    x_1LD = jax.jit(encode)(token_1L)
    v_D = np.asarray(x_1LD)[0].astype(np.float64).mean(axis=0)
    mean.append(v_D / np.sqrt((v_D**2).sum()))
  np.testing.assert_allclose(both[0, 1], mean[0] @ mean[1], atol=1e-5)
  with pytest.raises(ValueError, match="longer than the model's 48"):
    similarity.similarities(folder, ["the " * 60])


RECORDED = json.loads((FOLDER / "tokenizers" / "wordpiece.json").read_text())


@pytest.mark.parametrize("lower", [True, False])
def test_words_are_cut_as_recorded(tmp_path, lower):
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join(RECORDED["vocab"]), encoding="utf-8")
  tokenizer = tokenizers.build(f"wordpiece({str(path)!r}, lower={lower})").train()
  wanted = RECORDED["lower" if lower else "cased"]
  assert len(wanted) == len(RECORDED["texts"]) > 15
  for text, pieces in zip(RECORDED["texts"], wanted, strict=True):
    found = [tokenizer.pieces[n] for n in tokenizer.encode(text)]
    assert found == pieces, text
  assert tokenizer.pieces[tokenizer.start] == "[CLS]"
  assert tokenizer.pieces[tokenizer.end] == "[SEP]"
  tokenizer.save(tmp_path / "run")
  path.unlink()
  kept = tokenizers.build(f"kept({str(tmp_path)!r})")
  with pytest.raises(DataError, match="cannot read the vocabulary"):
    kept.train()
  (tmp_path / "run").rename(tmp_path / "tokenizer")
  kept = tokenizers.build(f"kept({str(tmp_path)!r})")
  assert kept.vocabulary == len(RECORDED["vocab"]) and kept.start == tokenizer.start
  assert kept.train(["no matter"]).fingerprint == tokenizer.fingerprint


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path):
  build_ = lambda: tokenizers.build(f"wordpiece({str(tmp_path / 'v')!r})").train().start
  assert "cannot read" in refusal(build_, DataError)
  (tmp_path / "v").write_text("[CLS]\na\na\n")
  assert "1 lines repeat others" in refusal(build_, DataError)
  (tmp_path / "v").write_text("a\nb\n")
  assert "has no [CLS]" in refusal(build_, DataError)
  empty = tokenizers.build("wordpiece")
  assert "name a vocabulary" in refusal(lambda: empty.vocabulary, DataError)


def test_the_example_says_what_minilm_is():
  """The sizes are those of the model's card; its weights are no part of the tests."""
  chosen, plan = example.get_config(), example.sweep()
  model = chosen.model
  sizes = model.width, model.layers, model.heads, model.feedforward
  assert sizes == (384, 6, 12, 1536)
  labels = [change.label for change in plan.runs]
  assert labels[0] == "learned(512)" and "rope" in labels
