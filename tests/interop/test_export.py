"""A run as a folder of HuggingFace's: the same logits, or what no family has."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
import random_parameters
from test_interop import CONFIGS, saved

from experiments import export, exported_parts
from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import ConfigError, flatten, resolve
from transformer_jax import interop
from transformer_jax.axes import Dims
from transformer_jax.data.tokenizers import tokenizers
from transformer_jax.models import Architecture
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.json_files import read_json, write_json

SMALL = {"model.width": 16, "model.heads": 2, "model.layers": 2, "seeds": (3, 4)}
SMALL |= {
  "model.feedforward": 24,
  "train.length": 8,
  "model.embedding": "tokens(power=0)",
}
LFM2 = {
  "model.activation": "swiglu",
  "model.norm": "rmsnorm(epsilon=1e-5)",
  "model.attention": "alternate(gated_conv, gqa(1) + qk_norm(epsilon=1e-5))",
}
LLAMA = {"model.activation": "swiglu", "model.attention": "gqa(1)", "model.scan": True}
GPT2 = {"model.position": "learned", "model.norm": "layernorm", "model.tied": True}
GPT2 |= {"model.attention": "multihead(bias=True)", "model.feedforward_bias": True}
TOKENS = "tokens('corpus', tokenizer='char(size=40)')"


def run(folder, **more):
  """Makes the folder of a run as it starts."""
  config = resolve(base.get_config(), SMALL | {k: v for k, v in more.items()})
  write_json(folder / "config.json", flatten(config))
  if "tokenizer" in config.task:
    tokenizers.build("char(size=40)").train(["abc def"]).save(folder / "tokenizer")
  trainer = build(config).trainer
  seeds = jnp.array([3, 4], jnp.uint32)
  shapes = trainer.shapes_of(len(seeds))
  state = random_parameters.normal(dataclasses.replace(shapes, key=None))
  state = dataclasses.replace(state, key=jax.vmap(jax.random.key)(seeds))
  with Keeper(folder / "checkpoints") as keeper:
    keeper.save(1, state, {"diverged": {}})
  return folder


@pytest.mark.parametrize(
  ("family", "more", "task"),
  [
    ("llama", LLAMA, TOKENS),
    ("lfm2", LFM2, "text('corpus')"),
    pytest.param("gpt2", GPT2, "text('corpus')", marks=pytest.mark.slow),
  ],
)
def test_a_run_goes_to_the_family_that_has_its_parts(family, more, task, tmp_path):
  there, out = run(tmp_path, task=task, **more), tmp_path / "out"
  said = export.export(there, out, seed=1)  # it compares the logits itself
  assert said.startswith(f"a model of the family {family}, ")
  assert read_json(out / "config.json")["model_type"] == family
  assert (out / "tokenizer").is_dir() == (task is TOKENS)
  assert interop.load(out).arch.dims.F == 24
  with pytest.raises(ConfigError, match="is there already"):
    export.export(there, out)


def test_modernbert_is_a_config_and_goes_back(tmp_path):
  """All of its parts are values of keys; nothing is compiled."""
  norm = "layernorm(shift=False)"
  parts = {
    "task": "blanks(copy(symbols=93))", "model.kind": "encoder", "model.width": 32,
    "model.layers": 4, "model.heads": 4, "model.feedforward": 40, "train.length": 8,
    "model.norm": norm, "model.activation": "geglu(approximate=False)",
    "model.norm_placement": "pre(first_norm=False)",
    "model.embedding": f"tokens(power=0, norm='{norm}')",
    "model.attention": "multihead + alternate(window(8), multihead, 3, at=0)",
    "model.position": "by_layer((rope(base=500.0), rope(base=50.0), rope(base=50.0)))",
    "model.head": f"transform(dense_bias=False, norm='{norm}')",
  }  # fmt: skip
  arch = build(resolve(base.get_config(), parts)).trainer.model.arch
  folder = saved(tmp_path, "modernbert")
  assert export.fitting(arch, str(folder)) == read_json(folder / "config.json")


FAMILIES = {
  "nanochat": "nanochat",
  "lfm2": "lfm2",
  "mamba2": "mamba2",
  "qwen3_next": "qwen3_next",
  "kimi_linear": "kimi_linear",
  "olmo_hybrid": "olmo_hybrid",
  "granite_hybrid": "granitemoehybrid",
  "recurrent_gemma": "recurrent_gemma",
  "llama4_text": "llama4_text",
  "gemma3n_text": "gemma3n_text",
  "smollm3": "smollm3",
  "deepseek_v3_experts": "deepseek_v3",
  "deepseek_v32": "deepseek_v32",
  "deepseek_v32_yarn": "deepseek_v32",
  "qwen2_vl_text": "qwen2_vl_text",
  "qwen3_vl_text": "qwen3_vl_text",
}


@pytest.mark.parametrize("case", FAMILIES)
def test_the_parts_of_a_family_are_described_as_its_config(case):
  """Of recorded models; their parts say which family it is. Nothing is compiled."""
  arch = interop.architecture(CONFIGS[case], "dense")
  config = export.fitting(arch)
  assert config["model_type"] == FAMILIES[case]
  assert config["architectures"] == CONFIGS[case]["architectures"]
  assert not list(exported_parts.differences(arch, interop.architecture(config)))


def test_parts_may_be_written_otherwise():
  """Sums in another order, layers as a list, sizes left to the model."""
  dims = Dims(V=61, D=32, H=4, F=48, L=64)
  same = dict(
    position="rope", norm="rmsnorm(epsilon=1e-5)", activation="swiglu", decoders=4,
    embedding="tokens(power=0)",
  )  # fmt: skip
  full = "qk_norm(epsilon=1e-5) + gqa(2)"
  attention = f"by_layer((gated_conv, {full}, gated_conv, {full}))"
  config = export.fitting(Architecture(dims, **same, attention=attention))
  assert config["model_type"] == "lfm2" and config["layer_types"][:2] == [
    "conv",
    "full_attention",
  ]
  other = Architecture(dims, **same, attention=attention.replace("1e-5", "1e-6"))
  with pytest.raises(ConfigError) as caught:
    export.fitting(other)
  assert "as lfm2: attention of layer 1 is" in str(caught.value)


def test_what_is_of_training_alone_does_not_matter():
  arch = interop.architecture(CONFIGS["deepseek_v3_experts"], "dense")
  kinds = tuple(
    dataclasses.replace(kind, balance_rate=0.001) if kind.experts else kind
    for kind in arch.feedforward_kind.kinds
  )
  kind = dataclasses.replace(arch.feedforward_kind, kinds=kinds)
  balanced = dataclasses.replace(arch, feedforward_kind=kind, dropout=0.1)
  assert balanced != arch and export.fitting(balanced) == export.fitting(arch)


def test_other_logits_are_noticed_and_nothing_is_kept(tmp_path, monkeypatch):
  there, out = run(tmp_path, task="text('corpus')", **LLAMA), tmp_path / "out"
  config = export.fitting(build_of(there))
  wrong = config | {"rms_norm_eps": 0.5}
  monkeypatch.setattr(export, "fitting", lambda arch, start: wrong)
  with pytest.raises(ConfigError, match="other logits; nothing was written"):
    export.export(there, out)
  assert not out.exists()


@pytest.mark.parametrize(
  "case", ["vit", pytest.param("t5_v11", marks=pytest.mark.slow)]
)
def test_models_of_images_and_of_two_texts_are_compared(case, tmp_path):
  loaded = interop.load(saved(tmp_path / case, case))
  export._check_logits(tmp_path / case, loaded.arch, loaded.params)
  other = jax.tree.map(lambda x: 1.5 * x, loaded.params)
  with pytest.raises(ConfigError, match="other logits"):
    export._check_logits(tmp_path / case, loaded.arch, other)


def build_of(folder):
  config = resolve(base.get_config(), read_json(folder / "config.json"))
  return build(config).trainer.model.arch


def test_a_model_of_no_family_is_told_what_differs(tmp_path):
  config = resolve(
    base.get_config(), SMALL | {"task": "copy", "model.activation": "gelu"}
  )
  arch = build(config).trainer.model.arch
  with pytest.raises(ConfigError) as caught:
    export.fitting(arch)
  assert "no family of HuggingFace's has the parts of this model" in str(caught.value)
  assert "as llama: activation is Gelu" in str(caught.value)
