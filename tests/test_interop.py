"""Recorded models of HuggingFace, read by `interop`, give the recorded numbers.

The numbers lie in `third_party/transformers`; `ORIGIN.md` there says how they were
made. Weights are large random numbers: leaving out any detail moves logits by 0.5 or
more. Gradients are compared under the recorded names, so each name is checked too.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import numpy_models
import pytest
from relatives import as_distilbert, as_gptj, as_qwen2
from replay import cross_entropy, under
from safetensors.numpy import load_file, save_file

from transformer_jax import interop
from transformer_jax.evaluation.decode import greedy
from transformer_jax.models import Transformer
from transformer_jax.positions import coords, positions

FOLDER = pathlib.Path(__file__).parent.parent / "third_party" / "transformers"
CONFIGS = json.loads((FOLDER / "configs.json").read_text())
ENCODERS = ("bert_mlm", "roberta_mlm", "vit")
READERS = ("t5_v10", "t5_v11", "marian")
DECODERS = ("gpt2", "llama", "mistral", "gemma2", "gpt_neo_local", "gpt_neox", "opt")
DECODERS += ("bloom", "falcon_mqa", "falcon_gqa_new")
NEAR = 1e-5  # of the largest number; float32 noise of both sides is about 1e-6


def recorded(case):
  """Returns config, weights, inputs and outputs."""
  with np.load(FOLDER / f"whole_{case}.npz", allow_pickle=False) as file:
    there = dict(file)
  return CONFIGS[case], under(there, "weights/"), there


@pytest.fixture
def folder(tmp_path):
  """Writes a recorded model as HuggingFace does."""

  def write(case, **changes):
    config, weights, _ = recorded(case)
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    save_file(weights, tmp_path / "model.safetensors")
    return tmp_path

  return write


def quick(function):
  """Compiles in half the time; each program runs once."""
  return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def near(found, expected, what):
  # Biases of keys change no softmax: their gradients are noise of about 1e-8.
  error = np.max(np.abs(found - expected)) / max(np.max(np.abs(expected)), 0.01)
  assert error < NEAR, f"{what} is off by {error:.1e} of its largest number"


def texts(there):
  """Returns what a model reads: tokens, where they are, and the same of a source."""
  if "pixel_values" in there:
    return (there["pixel_values"],)
  at = coords.padded(there["attention_mask"])
  if "decoder_input_ids" in there:
    return there["decoder_input_ids"], None, there["input_ids"], at
  kinds = {"type_BL": there["token_type_ids"]} if "token_type_ids" in there else {}
  return there["input_ids"], at.replace(data=kinds)


def targets(there, shifted):
  """Returns labels, and which logits predict one that counts."""
  label_BL = there["labels"]
  if shifted:
    label_BL = np.pad(label_BL[:, 1:], ((0, 0), (0, 1)), constant_values=-100)
  return label_BL, label_BL != -100


def check_pass(loaded, there, shifted):
  """Compares logits, loss and the gradients of all weights."""
  model = Transformer(loaded.arch)

  def loss(params):
    logits_BLV = model.apply({"params": params}, *texts(there))
    if "pixel_values" in there:  # the class is read at the first place
      logits_BLV = logits_BLV[:, 0]
    return cross_entropy(logits_BLV, *targets(there, shifted)), logits_BLV

  run = quick(jax.value_and_grad(loss, has_aux=True))
  (value, logits_BLV), gradient = jax.device_get(run(loaded.params))
  masks = [there[name] for name in ("decoder_mask", "attention_mask") if name in there]
  real_BL1 = masks[0][..., None] if masks else 1
  near(logits_BLV * real_BL1, there["logits"], "logits")
  near(value, there["loss"], "loss")
  found = interop.tensors(loaded.config, gradient)
  for what, expected in under(there, "grad/").items():
    near(found[what], expected, f"gradient of {what}")
  norms = under(there, "grad_norm/")
  # Marian's bias of the logits is not trained there.
  assert found.keys() - norms.keys() <= {"final_logits_bias"}
  for what, expected in norms.items():
    near(np.linalg.norm(found[what]), expected, f"gradient of {what}")


def check_decoding(loaded, there):
  """Compares greedy tokens, after prompts with padding on the left or of a source."""
  model = Transformer(loaded.arch)
  steps = there["greedy_tokens"].shape[1]

  def run(params):
    if "prompt_ids" in there:
      at = coords.padded(there["prompt_mask"])
      return greedy(model, params, there["prompt_ids"], steps, at)
    source, at = there["input_ids"], coords.padded(there["attention_mask"])
    memory = model.apply({"params": params}, source, at, method="encode")
    first = jnp.full((len(source), 1), loaded.config["decoder_start_token_id"])
    return greedy(model, params, first, steps, memory=memory)

  np.testing.assert_array_equal(quick(run)(loaded.params), there["greedy_tokens"])


@pytest.mark.parametrize("case", [*DECODERS, *ENCODERS, *READERS])
def test_a_model_of_others_gives_its_numbers_here(folder, case):
  there = recorded(case)[2]
  loaded = interop.load(folder(case), core="dense")
  check_pass(loaded, there, shifted=case in DECODERS)
  if case not in ENCODERS:
    check_decoding(loaded, there)


@pytest.mark.parametrize("case", [*DECODERS, *ENCODERS, *READERS])
def test_a_round_trip_changes_no_bit(folder, tmp_path, case):
  config, weights, _ = recorded(case)
  loaded = interop.load(folder(case))
  interop.save(tmp_path / "again", loaded.config, loaded.params)
  again = interop.load(tmp_path / "again")
  assert again.config == loaded.config == config
  assert again.arch == loaded.arch
  jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)
  saved = load_file(tmp_path / "again" / "model.safetensors")
  # What has no row in our tables: Marian's sinusoids, which are made anew.
  assert {
    n for n in weights.keys() - saved.keys() if "embed_positions" not in n
  } == set()
  assert saved.keys() <= weights.keys()
  for name, x in saved.items():
    np.testing.assert_array_equal(x, weights[name])


def test_a_bare_model_has_names_without_prefix_and_no_head(tmp_path):
  config, weights, _ = recorded("bert_mlm")
  config = config | {"architectures": ["BertModel"]}
  body = {n.removeprefix("bert."): w for n, w in weights.items() if "cls." not in n}
  pooler = {"pooler.dense.weight": np.ones((32, 32), np.float32)}
  numbers = {"embeddings.position_ids": np.arange(48)}
  write(tmp_path, config, body | pooler | numbers)
  params = interop.load(tmp_path).params
  assert "head" not in params
  np.testing.assert_array_equal(
    params["embedding_VD"], weights["bert.embeddings.word_embeddings.weight"]
  )


def write(folder, config, weights):
  folder.mkdir(exist_ok=True)
  (folder / "config.json").write_text(json.dumps(config))
  save_file(weights, folder / "model.safetensors")


def test_weights_in_several_files_and_in_halves_are_read_as_float32(tmp_path):
  config, weights, _ = recorded("gpt2")
  half = {n: w.astype(jnp.bfloat16) for n, w in weights.items()}
  (tmp_path / "config.json").write_text(json.dumps(config))
  names = sorted(half)
  for k, part in enumerate((names[:9], names[9:])):
    save_file({n: half[n] for n in part}, tmp_path / f"part{k}.safetensors")
  where = {n: f"part{int(n in names[9:])}.safetensors" for n in names}
  index = tmp_path / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": where}))
  found = interop.load(tmp_path).params["embedding_VD"]
  expected = half["transformer.wte.weight"].astype(np.float32)
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, expected)


def test_repeated_tensors_are_accepted_where_they_repeat(tmp_path):
  config, weights, _ = recorded("gpt2")
  table = weights["transformer.wte.weight"]
  write(tmp_path, config, weights | {"lm_head.weight": table})
  interop.load(tmp_path)
  write(tmp_path, config, weights | {"lm_head.weight": table + 1})
  with pytest.raises(ValueError, match="lm_head.weight should repeat transformer.wte"):
    interop.load(tmp_path)


def test_all_tensors_that_do_not_fit_are_one_list(tmp_path):
  config, weights, _ = recorded("gpt2")
  del weights["transformer.ln_f.bias"]
  weights["transformer.wpe.weight"] = np.zeros((7, 32), np.float32)
  weights["transformer.h.0.adapter.weight"] = np.zeros(3, np.float32)
  write(tmp_path, config, weights)
  with pytest.raises(ValueError) as error:
    interop.load(tmp_path)
  assert str(error.value).splitlines()[1:] == [
    "  missing transformer.ln_f.bias",
    "  unknown transformer.h.0.adapter.weight",
    "  transformer.wpe.weight is [7, 32], and config.json makes it [48, 32]",
  ]


def test_files_that_cannot_be_read_are_said_in_one_sentence(folder):
  path = folder("gpt2") / "model.safetensors"
  whole = path.read_bytes()
  for end in (len(whole) - 5, 100, 4, 0):
    path.write_bytes(whole[:end])
    with pytest.raises(ValueError, match="is damaged or cut short"):
      interop.load(path.parent)
  path.unlink()
  with pytest.raises(ValueError, match="weights are read from safetensors only"):
    interop.load(path.parent)
  (path.parent / "config.json").write_text("{")
  with pytest.raises(ValueError, match="is not JSON"):
    interop.load(path.parent)
  (path.parent / "config.json").unlink()
  with pytest.raises(ValueError, match="config.json is missing"):
    interop.load(path.parent)


@pytest.mark.parametrize(
  "case, changes, message",
  [
    ("gpt2", {"model_type": "gptneox"}, "Did you mean 'gpt_neox'"),
    ("gpt2", {"model_type": None}, "Choose from"),
    ("gpt2", {"activation_function": "mish"}, "activation_function='mish'"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights=False"),
    ("llama", {"rope_parameters": {"rope_type": "cubic"}}, "rope_type='cubic'"),
    ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before=False"),
  ],
)
def test_what_is_not_served_is_refused(folder, case, changes, message):
  with pytest.raises(ValueError, match=message):
    interop.load(folder(case, **changes))


def test_parameters_of_another_model_are_not_saved(folder, tmp_path):
  loaded = interop.load(folder("gpt2"))
  config = loaded.config | {"n_layer": 3, "n_positions": 50}
  with pytest.raises(ValueError, match=r"(?s)layer_2/.* is missing.*table_LD is \(48"):
    interop.save(tmp_path / "other", config, loaded.params)
  assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
  "case, rewrite",
  [
    ("llama", as_qwen2),
    ("falcon_mqa", as_gptj),
    ("roberta_mlm", as_distilbert),
  ],
)
def test_a_model_written_as_its_relative_keeps_its_numbers(tmp_path, case, rewrite):
  """Families without recorded numbers: another model that computes the same."""
  config, weights, there = recorded(case)
  write(tmp_path, *rewrite(config, weights))
  loaded = interop.load(tmp_path, core="dense")
  run = quick(lambda params: Transformer(loaded.arch).apply(params, *texts(there)))
  logits_BLV = run({"params": loaded.params})
  real_BL1 = there["attention_mask"][..., None]
  near(logits_BLV * real_BL1, there["logits"], "logits")


def test_scalings_of_rope_are_read_in_both_styles():
  old = {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 500.0}
  new = {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}
  yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
  llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
  llama3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
  config = {n: x for n, x in CONFIGS["llama"].items() if n != "rope_parameters"}
  for words, spec in (
    (old, "rope_linear(factor=4.0, base=500.0)"),
    ({"rope_parameters": new}, "rope_linear(factor=4.0, base=500.0)"),
    ({"rope_parameters": yarn}, "rope_yarn(factor=4.0, original=32)"),
    ({"rope_scaling": llama3}, "rope_llama3(base=1e4, factor=8.0, original=32)"),
  ):
    found = interop.architecture(config | words).position
    assert found == positions.build(spec)


def test_older_names_of_vit_are_read(tmp_path):
  config, weights, _ = recorded("vit")
  old = {"o_proj": "output.dense"}
  old |= {f"{n[0]}_proj": f"attention.{n}" for n in ("query", "key", "value")}
  attention = {f"attention.{n}": f"attention.{m}" for n, m in old.items()}
  old = attention | {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
  older = {}
  for name, x in weights.items():
    for new, before in old.items():
      name = name.replace(f".{new}.", f".{before}.")
    older[name.replace("vit.layers.", "vit.encoder.layer.")] = x
  assert "vit.encoder.layer.1.attention.attention.query.bias" in older
  write(tmp_path, config, older)
  params = interop.load(tmp_path).params
  write(tmp_path, config, weights)
  expected = interop.load(tmp_path).params
  jax.tree.map(np.testing.assert_array_equal, params, expected)


MPT = dict(model_type="mpt", vocab_size=97, d_model=32, n_heads=4, n_layers=2)
MPT |= dict(max_seq_len=48, tie_word_embeddings=True, attn_config={"alibi": True})
BART = dict(CONFIGS["marian"], model_type="bart", activation_function="gelu")
BART |= dict(scale_embedding=False)


@pytest.mark.parametrize("config", [MPT, BART], ids=["mpt", "bart"])
def test_a_model_equals_its_code_in_numpy(tmp_path, config):
  names = shapes_of(config)
  rng = np.random.default_rng(0)
  random = lambda shape: rng.normal(size=shape).astype(np.float32) / 4
  weights = {name: random(shape) for name, shape in names.items()}
  write(tmp_path, config, weights)
  arch = interop.load(tmp_path, core="dense").arch
  token_L, source_M = rng.integers(0, 97, size=11), rng.integers(0, 97, size=9)
  texts = (token_L,) if config is MPT else (token_L, source_M)
  expected = getattr(numpy_models, config["model_type"])(weights, 4, *texts)
  model, params = Transformer(arch), interop.load(tmp_path).params
  read = texts[0][None], *(x for t in texts[1:] for x in (None, t[None]))
  found = quick(lambda params: model.apply({"params": params}, *read))(params)
  near(found[0], expected, "logits")


def shapes_of(config):
  """Returns the shapes of the tensors that a config asks for."""
  arch = interop.architecture(config)
  return interop.families[config["model_type"]]().names(arch, config).expected()


def test_a_loss_of_products_sees_a_bias_and_refuses_a_cap(folder):
  loaded = interop.load(folder("bert_mlm"), core="dense")
  model, read = Transformer(loaded.arch), np.arange(6)[None]
  call = lambda params, how: model.apply({"params": params}, read, method=how)
  both = quick(lambda params: (call(params, "__call__"), call(params, "hidden")))
  logits_BLV, (x_BLD, output_VD) = both(loaded.params)
  near(x_BLD @ output_VD.T, logits_BLV, "logits")
  loaded = interop.load(folder("gemma2"), core="dense")
  with pytest.raises(ValueError, match="caps its logits"):
    Transformer(loaded.arch).apply({"params": loaded.params}, read, method="hidden")
