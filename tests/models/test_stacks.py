"""An encoder and a decoder whose heads and feed-forward layers have other sizes."""

import dataclasses

import jax
import numpy as np
import pytest
import random_parameters
from test_interop import CONFIGS

from experiments import export
from experiments.configs import base
from experiments.runner import pretrained
from experiments.runner.build import build
from experiments.setup.validate import ConfigError, resolve
from transformer_jax import interop
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, Transformer, empty_cache, families
from transformer_jax.models.param_tree import flat
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords, positions

ENCODER = Dims(V=16, D=16, H=4, F=24, L=6)
DECODER = dataclasses.replace(ENCODER, H=2, K=8, F=20)
TOKEN_BL = jax.random.randint(jax.random.key(0), (2, 6), 0, 16)
# The recorded Marian of two sizes, as keys of a config over its 97 tokens.
MARIAN = {
  "task": "pairs(copy(symbols=93))", "model.kind": "encoder_decoder",
  "model.family": "transformer(decoder_heads=2, decoder_feedforward=40)",
  "model.width": 32, "model.heads": 4, "model.feedforward": 24, "model.layers": 2,
  "model.position": "sinusoidal(interleaved=False)", "model.norm_placement": "post",
  "model.attention": "multihead(bias=True)", "model.norm": "layernorm",
  "model.feedforward_bias": True, "model.embedding": "tokens(power=0)",
  "model.head": "linear(bias=True)", "model.core": "dense",
  "model.activation": "gelu(approximate=False)", "train.length": 6,
}  # fmt: skip


def make(position="t5", **changes):
  sizes = dict(encoders=1, decoders=1, decoder_dims=DECODER) | changes
  return Architecture(ENCODER, positions.build(position), cores.build("dense"), **sizes)


def configured(**changes):
  more = {key.replace("__", "."): value for key, value in changes.items()}
  return resolve(base.get_config(), MARIAN | more)


def test_each_stack_has_parameters_of_its_sizes():
  model = Transformer(make())
  read = TOKEN_BL, None, TOKEN_BL
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *read))["params"]
  found = {path: x.shape for path, x in flat(shapes).items()}
  for side, dims in (("encoder", ENCODER), ("decoder", DECODER)):
    assert found[f"{side}/position/table_HN"][0] == dims.H
    assert found[f"{side}/layer_0/attention/query_DHK"] == (16, dims.H, dims.K)
    assert found[f"{side}/layer_0/feedforward/in_DF"] == (16, dims.F)
  assert found["decoder/layer_0/cross/key_DHK"] == (16, 2, 8)


def test_a_decoder_of_other_sizes_decodes_on_its_cache():
  model, at = Transformer(make(decoders=2)), coords.consecutive(1, 6)
  read = TOKEN_BL, None, TOKEN_BL
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(1), *read))
  params = random_parameters.normal(shapes, 0.25)
  cache = empty_cache(model.arch, 2, 6)
  assert cache[0].kept["key"].shape[1::2] == (2, 8)

  def whole(params):
    memory = model.apply(params, TOKEN_BL, method="encode")
    return memory, model.apply(params, *read)

  @jax.jit
  def decode(params, one, here, memory, cache):
    return model.apply(params, one, here, memory, cache, method="decode")

  (memory, want), written = evaluate(whole, params), []
  for n in range(6):
    here = jax.tree.map(lambda x, n=n: x[:, n : n + 1], at)
    logits, cache = decode(params, TOKEN_BL[:, n : n + 1], here, memory, cache)
    written.append(logits)
  np.testing.assert_allclose(np.concatenate(written, axis=1), want, atol=1e-5)


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    (dict(encoders=0), "a model of one stack has one set of sizes"),
    (dict(decoders=0), "a model of one stack has one set of sizes"),
    (
      dict(decoder_dims=dataclasses.replace(DECODER, D=32)),
      "the decoder's D is 32 and the encoder's 16",
    ),
  ],
)
def test_sizes_that_stacks_must_share_are_named(changes, says):
  with pytest.raises(ValueError, match=says):
    make(**changes)


def test_a_family_of_models_has_the_sizes_of_the_decoder():
  arch = make(decoder_dims=None)
  of = lambda spec: families.build(f"transformer({spec})")(arch).arch.decoder_dims
  assert of("") is None
  assert of("decoder_heads=2, decoder_feedforward=20") == DECODER
  assert of("decoder_feedforward=20") == dataclasses.replace(ENCODER, F=20)
  assert of("decoder_heads=2, decoder_head_width=6").K == 6
  with pytest.raises(ValueError, match="decoder_heads is -1; write 0 or more"):
    of("decoder_heads=-1")


def test_a_config_of_other_sizes_is_checked_before_anything_compiles():
  assert build(configured()).trainer.model.arch.decoder_dims.H == 2
  wrong = "transformer(decoder_heads=3)"
  with pytest.raises(ValueError, match="width 32 does not divide into 3 heads"):
    build(configured(model__family=wrong))
  with pytest.raises(ConfigError, match="4 groups of keys do not divide 2 heads"):
    build(configured(model__attention="gqa(4)"))
  with pytest.raises(ConfigError, match="feedforward=6 is not a multiple of mesh.tens"):
    build(
      configured(model__family="transformer(decoder_feedforward=6)", mesh__tensor=4)
    )
  with pytest.raises(ValueError, match="a model of one stack"):
    build(configured(model__kind="decoder", task="copy(symbols=93)"))


def test_training_starts_from_a_model_of_two_sizes_and_goes_back(tmp_path):
  config = CONFIGS["marian_stacks"] | {"decoder_layers": 2}
  model = Transformer(interop.architecture(config, "dense"))
  read = TOKEN_BL, None, TOKEN_BL
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *read))["params"]
  params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes)
  interop.save(tmp_path, config, params)
  built = build(configured(train__init_from=str(tmp_path)))
  theirs = dataclasses.replace(model.arch.decoder_dims, L=ENCODER.L)
  ours = built.trainer.model.arch.decoder_dims
  assert dataclasses.replace(ours, L=ENCODER.L) == theirs
  found = pretrained.read_pretrained(str(tmp_path), built, tmp_path / "none")
  assert not found.facts["start"]["new"] and not found.facts["start"]["left_out"]
  assert export.fitting(built.trainer.model.arch, str(tmp_path)) == config
  other = build(configured(model__family="transformer(decoder_heads=8)"))
  with pytest.raises(ConfigError) as caught:
    pretrained.read_pretrained(str(tmp_path), other, tmp_path / "none")
  for line in ("heads: 2 there, 8 here", "feedforward: 40 there, 24 here"):
    assert f"decoder's {line}" in str(caught.value)
  with pytest.raises(ConfigError, match="decoder_dims is None, where theirs is Dims"):
    export.fitting(build(configured(model__family="transformer")).trainer.model.arch,
                   str(tmp_path))  # fmt: skip
