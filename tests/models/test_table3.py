"""The Transformer of 2017: its sizes counted by hand, as published, and dry-run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags as absl_flags
from test_models import AT, DIMS, TOKEN_BL, L, decode, logits, make, started
from test_prepare import mocked  # noqa: F401, a fixture

from experiments import sweep
from experiments.configs import base, table3, transformer, wmt14
from experiments.runner import train
from experiments.runner.build import build
from experiments.runner.cost import flops_per_token, sizes
from experiments.setup import flags, runs
from experiments.setup.validate import resolve, validate
from transformer_jax.attention import attentions
from transformer_jax.models import empty_cache

BASE = dict(N=6, d=512, ff=2048, h=8, dk=64, dv=64)
# The columns of the paper's table that give sizes, where they are not those of `base`.
COLUMNS = {
  "A: 1 head": dict(h=1, dk=512, dv=512),
  "A: 4 heads": dict(h=4, dk=128, dv=128),
  "A: 16 heads": dict(h=16, dk=32, dv=32),
  "A: 32 heads": dict(h=32, dk=16, dv=16),
  "B: keys of 16": dict(dk=16),
  "B: keys of 32": dict(dk=32),
  "C: 2 layers": dict(N=2),
  "C: 4 layers": dict(N=4),
  "C: 8 layers": dict(N=8),
  "C: width 256": dict(d=256, dk=32, dv=32),
  "C: width 1024": dict(d=1024, dk=128, dv=128),
  "C: feed-forward 1024": dict(ff=1024),
  "C: feed-forward 4096": dict(ff=4096),
  "E: learned positions": dict(positions=2 * 256),
  "big": dict(d=1024, ff=4096, h=16),
}


def counted(N, d, ff, h, dk, dv, positions=0, V=37_000):
  """Counts parameters from the words of sections 3.1 to 3.4."""
  attention = h * (d * dk + d * dk + d * dv) + h * dv * d
  feedforward = d * ff + ff + ff * d + d
  norm = 2 * d
  encoder = attention + feedforward + 2 * norm
  decoder = 2 * attention + feedforward + 3 * norm
  return (V + positions) * d + N * (encoder + decoder)


def parameters(changes):
  """Returns how many parameters the model of a row has; nothing is allocated."""
  config = resolve(table3.get_config(), dict(changes))
  return sizes(jax.eval_shape(build(config).trainer.init, 0).params)[0]


# One row for each kind of change; `slow` has all.
SOME = ("base", "B: keys of 32", "C: 2 layers", "E: learned positions", "big")


@pytest.mark.parametrize(
  "name",
  [
    n if n in SOME else pytest.param(n, marks=pytest.mark.slow)
    for n in ("base", *COLUMNS)
  ],
)
def test_a_row_is_as_large_as_counted(name):
  want = BASE | COLUMNS.get(name, {})
  assert parameters(table3.ROWS[name].changes) == counted(**want)


@pytest.mark.parametrize("name", ["base", *COLUMNS])
def test_a_row_is_as_large_as_published(name):
  row, want = table3.ROWS[name], BASE | COLUMNS.get(name, {})
  found = counted(**want)
  if row.parameters is None:
    return
  if name == "base" or want["d"] != BASE["d"]:
    # The paper's vocabulary has "about 37000" pieces, each as wide as the model.
    assert abs(found / 1e6 / row.parameters - 1) < 0.045
  else:
    more = (found - counted(**BASE)) / 1e6
    assert abs(more - (row.parameters - table3.ROWS["base"].parameters)) < 1  # rounded


def test_rows_that_change_no_size_have_no_published_one():
  same = {name for name in table3.ROWS if name not in COLUMNS and name != "base"}
  assert same == {name for name in table3.ROWS if name.startswith("D")}
  for name in same:
    assert not any(key in changed(name) for key in ("width", "layers", "heads"))


def changed(name):
  return " ".join(table3.ROWS[name].changes)


@pytest.mark.parametrize("config", [table3, wmt14], ids=lambda c: c.__name__)
def test_every_run_is_valid_on_eight_devices(config):
  todo = runs.expand(config.sweep(), config.get_config(), {})
  assert runs.baseline(config.sweep(), todo) == "base"
  assert len(todo) == (20 if config is table3 else len(wmt14.TARGETS))
  for each in todo:
    validate(each.config, devices=8)


def test_the_small_rows_have_the_proportions_of_the_published_ones():
  todo = runs.expand(table3.small(), table3.get_config(), {})
  assert runs.baseline(table3.small(), todo) == "base"
  assert [each.label for each in todo] == [*table3.ROWS]
  whole = runs.expand(table3.sweep(), table3.get_config(), {})
  bases = {x: y[0].config for x, y in (("small", todo), ("whole", whole))}
  for each, published in zip(todo, whole, strict=True):
    validate(each.config)
    for key in ("layers", "width", "heads", "feedforward", "dropout", "position"):
      small, large = each.config.model[key], published.config.model[key]
      if isinstance(small, int) and key != "heads":
        small = small / bases["small"].model[key]
        large = large / bases["whole"].model[key]
      assert small == large, (each.label, key)
    assert each.config.train.label_smoothing == published.config.train.label_smoothing
  narrow = [each.config.model for each in todo if each.label.startswith("B")]
  assert [model.head_width for model in narrow] == [2, 4]  # of 8, as 16, 32 are of 64
  values = [attentions.build(model.attention).projections().value for model in narrow]
  assert values == [8, 8]
  assert {each.config.train.steps for each in todo} == {300}


def test_plans_of_the_ladder_are_valid():
  for sweep_ in (transformer.sweep, transformer.norms):
    todo = runs.expand(sweep_(), transformer.get_config(), {})
    assert runs.baseline(sweep_(), todo) == todo[0].label
    for each in todo:
      validate(each.config)


def arrays(P=64, size=20):
  """Returns what a task of translation loads, as shapes: enough to count."""
  shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.int32)
  one = {
    "token_N": shape(2 * P * size),
    "start_P2": shape(P, 2),
    "size_P2": shape(P, 2),
    "ends_2": shape(2),
  }
  return {"train": one, "scored": one}


@pytest.mark.parametrize(
  "name",
  [
    name if name == "tiny" else pytest.param(name, marks=pytest.mark.slow)
    for name in transformer.SIZES
  ],
)
def test_the_ladder_is_named_by_its_operations(name):
  config = resolve(transformer.get_config(), transformer.size(name))
  counted = flops_per_token(build(config), arrays()) / 1e6
  assert abs(counted / transformer.MFLOPS[name] - 1) < 0.02  # rounded; XLA may change
  label = transformer.label(name)
  assert label in [each.label for each in transformer.sweep().runs]


def test_values_may_be_wider_than_keys():
  arch = make("none", attention=attentions.build("multihead(value=5)"), decoders=1)
  model, params = started(arch)
  w = {k: np.float64(x) for k, x in params["decoder"]["layer_0"]["attention"].items()}
  H, K, D = DIMS.H, DIMS.K, DIMS.D
  shapes = {"query_DHK": (D, H, K), "key_DHK": (D, H, K), "value_DHE": (D, H, 5)}
  assert {n: x.shape for n, x in w.items()} == shapes | {"out_HED": (H, 5, D)}
  x_LD = np.random.default_rng(0).normal(size=(L, D))
  want_LD = np.zeros((L, D))
  for h in range(H):
    q, k, v = (x_LD @ w[f"{n}"][:, h] for n in ("query_DHK", "key_DHK", "value_DHE"))
    for n in range(L):
      weight = np.exp(q[n] @ k[: n + 1].T / K**0.5)
      want_LD[n] += weight / weight.sum() @ v[: n + 1] @ w["out_HED"][h]
  got = attend(model, params, x_LD)
  np.testing.assert_allclose(got, want_LD, atol=2e-5)


def attend(model, params, x_LD):
  """Runs the first layer's attention alone."""
  from transformer_jax.models.attention_layer import Attention
  from transformer_jax.positions import PositionalEncoding

  own = Attention(model.arch, PositionalEncoding(), model.arch.attention)
  variables = {"params": params["decoder"]["layer_0"]["attention"]}
  x_BLD = jnp.asarray(x_LD, jnp.float32)[None]
  return jax.jit(lambda x: own.apply(variables, x, AT)[0])(x_BLD)[0]


def test_wider_values_are_kept_in_the_cache():
  arch = make("rope", attention=attentions.build("multihead(bias=True, value=12)"))
  model, params = started(arch)
  want = logits(model, params, TOKEN_BL)
  cache, got = empty_cache(arch, 2, L), []
  for n in range(L):
    here = jax.tree.map(lambda x, n=n: x[:, n : n + 1], AT)
    out, cache = decode(model, params, TOKEN_BL[:, n : n + 1], here, None, cache)
    got.append(out)
  np.testing.assert_allclose(jnp.concatenate(got, axis=1), want, atol=2e-5)


def test_values_of_another_width_and_vectors_of_the_distance_are_refused():
  config = resolve(base.get_config(), {"model.position": "shaw"})
  config.model.attention = "multihead(value=8)"
  with pytest.raises(ValueError, match=r"use multihead\(value=0\) or another"):
    build(config)


SMALL = ("--config.model.width=16", "--config.model.heads=2", "--config.train.length=8")
SMALL += ("--config.model.feedforward=16", "--config.train.batch_size=8")


# ml_collections loads config files by a method that Python means to remove.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_dry_run_without_data_has_costs_or_says_what_prepares_it(
  compiled, tmp_path, capfd
):
  task = wmt14.TASK.format("test").replace(")',", f")', data_dir='{tmp_path}',")
  words = ("--config=experiments/configs/wmt14.py", f"--config.task={task}")
  more = ["--compile"] if compiled else ["--config.model.layers=1", *SMALL]
  values, argv = absl_flags.FlagValues(), ["command", *words, "--dry_run", *more]
  argv = flags.config_first(argv)
  flags.define(argv, values)
  assert sweep.main(flags.parse(argv, values)) == compiled
  said, noise = capfd.readouterr()
  command = "python -m transformer_jax.data.prepare wmt14_translate/de-en"
  advised = f"prepare it once: {command} --data_dir={tmp_path}\n"
  assert said.count(advised) == 2 * compiled
  assert said.count("FLOPs per token") == 2 * (not compiled)
  assert noise == "" and "27.3" not in said.replace("(27.3", "")


@pytest.mark.slow
def test_the_published_model_compiles_on_mocked_data(mocked):  # noqa: F811
  config = wmt14.get_config()
  config.mesh.data = 1
  found = train.describe(config, compiled=True)
  assert found["parameters"] == counted(**BASE)
  assert found["peak_bytes"] > 12 * found["parameters"]  # parameters and two moments
