"""The automatic choice of a core, and what a run's record says of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import base
from experiments.runner import build, cost
from experiments.setup.validate import ConfigError, resolve
from transformer_jax.attention import KeyedDropout, Variant, attentions
from transformer_jax.attention.cores import auto, cores
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import PositionalEncoding, bind, coords, positions
from transformer_jax.training import sharding

NONE = PositionalEncoding()


def chosen(encoding=NONE, variant="multihead", drop=False, L=1024):
  core, refused = auto.choose(encoding, attentions.build(variant), drop, L)
  return cores.name_of(core), refused


def test_the_fastest_that_serves_is_chosen_and_the_others_say_why_not():
  assert chosen() == ("blockwise", {})
  name, refused = chosen(positions.build("cope"))
  assert name == "dense" and "cope looks at whole rows" in refused["blockwise"]
  name, refused = chosen(variant="entmax + window(8)")
  assert name == "dense" and "entmax + window looks at" in refused["blockwise"]
  name, refused = chosen(drop=True)
  assert name == "dense" and "blockwise does not drop weights" in refused["blockwise"]
  name, refused = chosen(L=1)
  assert name == "dense" and refused == {"blockwise": "1 queries do not fill a tile"}
  assert chosen(variant="performer") == ("linear", {})


@pytest.mark.parametrize(
  ("device", "kernel"), [("tpu", "pallas_tpu"), ("gpu", "cudnn")]
)
def test_kernels_come_first_on_their_device(device, kernel, monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: device)
  assert chosen() == (
    kernel,
    {},
  )  # subject to its check: tests/attention/test_self_check
  assert chosen(positions.build("cope"))[0] == "dense"
  assert chosen(drop=True)[0] == "dense" and chosen(L=1)[0] == "dense"


def test_tokens_that_are_split_over_devices_go_round_a_ring():
  with jax.set_mesh(sharding.make_mesh(sequence=8)):
    assert chosen() == ("ring", {})
    assert chosen(positions.build("cope"))[0] == "dense"
  with jax.set_mesh(sharding.make_mesh(data=8)):
    assert chosen()[0] == "blockwise"


@pytest.mark.parametrize("L", [pytest.param(1, marks=pytest.mark.slow), 127, 128])
def test_auto_gives_what_the_chosen_core_gives(L):
  x_BLHK = jax.random.normal(jax.random.key(0), (1, L, 2, 8))
  at, position = coords.consecutive(1, L), bind(NONE, {}, None)
  attend = lambda core, x: cores.build(core)(x, x, x, at, at, position)
  run = lambda core: evaluate(functools.partial(attend, core), x_BLHK)
  np.testing.assert_array_equal(run("auto"), run("dense" if L < 128 else "blockwise"))


def architecture(**model):
  config = resolve(base.get_config(), {f"model.{key}": v for key, v in model.items()})
  return build.build(config).trainer.model.arch


def test_the_record_names_cores_of_all_layers_and_lengths():
  used = lambda lengths=(64, 512), **model: cost.cores_used(
    architecture(**model), lengths
  )
  short = {"blockwise": "64 queries do not fill a tile"}
  assert used() == ("auto: blockwise, dense", short)
  assert used(lengths=(128, 512)) == ("auto: blockwise", {})
  assert used(core="dense") == ("dense", {})
  used = functools.partial(used, lengths=(128, 512))
  names, refused = used(position="every(2, cope, rope)")
  assert names == "auto: blockwise, dense" and "cope" in refused["blockwise"]
  names, _ = used(attention="alternate(window(8), entmax)")
  assert names == "auto: blockwise, dense"


@pytest.mark.parametrize(
  ("model", "says"),
  [
    ({"core": "blockwise", "position": "cope"}, "blockwise: cope looks at whole rows"),
    ({"core": "blockwise", "attention": "entmax"}, "entmax looks at whole rows"),
    ({"core": "ring", "attention_dropout": 0.1}, "ring does not drop weights"),
    ({"attention": "gqa(3)"}, "3 groups of keys do not divide 4 heads"),
    ({"attention": "alternate(multihead, gqa(3))"}, "3 groups of keys do not divide"),
    ({"attention": "stick_breaking", "kind": "encoder"}, "use it in a decoder"),
  ],
)
def test_a_named_core_that_cannot_serve_is_an_error_before_anything_runs(model, says):
  task = {"task": "blanks(copy)"} if model.get("kind") == "encoder" else {}
  overrides = {f"model.{key}": value for key, value in model.items()} | task
  with pytest.raises(ConfigError, match=says):
    build.build(resolve(base.get_config(), overrides))


def test_dropped_weights_are_scaled_up_and_only_dense_drops_them():
  x_BLHK = jax.random.normal(jax.random.key(0), (1, 64, 2, 8))
  ones, at = jnp.ones_like(x_BLHK), coords.consecutive(1, 64).bidirectional()
  position, dropout = bind(NONE, {}, None), KeyedDropout(jax.random.key(1), 0.25)
  run = lambda core: cores.build(core)(
    x_BLHK, x_BLHK, ones, at, at, position, dropout=dropout
  )
  out = run("dense")
  np.testing.assert_array_equal(run("auto"), out)
  assert out.std() > 0.02, "nothing was dropped"
  # The mean of 128 rows: what is kept is divided by the chance to be kept.
  np.testing.assert_allclose(out[..., 0].mean(), 1.0, atol=0.05)
  for name in sorted({*cores} - {"dense", "auto"}):
    assert cores.build(name).refusal(NONE, Variant(), True), name


def test_the_counted_operations_do_not_depend_on_the_type_of_numbers():
  """On CPUs bfloat16 gets its transposes by products, which no model asked for."""
  config = base.get_config()
  config.model.update(width=32, heads=2, layers=1, feedforward=64)
  config.train.update(batch_size=2, length=16)
  config.task = "copy"
  counted = []
  for config.model.dtype in ("float32", "bfloat16"):
    experiment = build.build(config)
    arrays = experiment.trainer.task.load()[0]
    counted.append(cost.flops_per_token(experiment, arrays))
  assert counted[0] == counted[1] > 0
