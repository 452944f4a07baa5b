"""A run as a folder of HuggingFace's: the same logits, or what no family has."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
import random_parameters
from test_interop import saved

from experiments import export
from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import ConfigError, flatten, resolve
from transformer_jax import interop
from transformer_jax.data.tokenizers import tokenizers
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.json_files import read_json, write_json

SMALL = {"model.width": 16, "model.heads": 2, "model.layers": 2, "seeds": (3, 4)}
SMALL |= {
  "model.feedforward": 24,
  "train.length": 8,
  "model.embedding": "tokens(power=0)",
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
