"""Rematerialization by the name of a policy: equal gradients, less memory."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_parameters

from experiments.configs import base, pod
from experiments.setup import runs
from experiments.setup.identity import aged, completed
from experiments.setup.validate import ConfigError, flatten, resolve, validate
from transformer_jax import remat
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, Transformer

DIMS = Dims(V=16, D=32, H=2, F=128, L=64)
OTHERS = [name for name in remat.POLICIES if name != remat.NONE]
FEW = ("full", "dots_saveable")


@functools.cache
def gradient(name, scan):
  """Returns the compiled gradient of a small model, its gradients and bytes."""
  arch = Architecture(DIMS, "t5", "dense", decoders=4, scan=scan, remat=name)
  model, token_BL = Transformer(arch), np.arange(8 * 64).reshape(8, 64) % 16
  shapes = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  params = random_parameters.normal(shapes, 0.1)

  def loss(params):
    return jnp.mean(jnp.sin(model.apply({"params": params}, token_BL)))

  compiled = jax.jit(jax.grad(loss)).lower(params).compile()
  return compiled(params), compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
  "name", [pytest.param(n, marks=() if n in FEW else pytest.mark.slow) for n in OTHERS]
)
def test_gradients_are_equal_under_each_policy(name):
  want, _ = gradient(remat.NONE, scan=True)
  got, _ = gradient(name, scan=True)
  compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7)
  jax.tree.map(compare, got, want)


def test_a_policy_that_keeps_less_takes_less_memory():
  kept = {name: gradient(name, scan=True)[1] for name in (remat.NONE, *FEW)}
  assert kept["full"] < 0.9 * kept["dots_saveable"] < 0.8 * kept[remat.NONE], kept


def test_policies_are_those_of_jax():
  """Those that keep products are tried in test_matmul.py: they keep projections too."""
  for name in {*remat.SAVEABLE} - {*remat.KEEP_PRODUCTS}:
    assert remat.policy(name) is getattr(jax.checkpoint_policies, name)
  assert remat.policy(remat.FULL) is None


@pytest.mark.parametrize("before,today", [(True, "full"), (False, "none")])
def test_true_and_false_are_taken_as_before(before, today):
  config = base.get_config()
  config.model.remat = before  # in a config file
  assert config.model.remat == today
  for value in (before, str(before), today):  # in a plan, a flag, another run
    same = resolve(base.get_config(), {"model.remat": value})
    assert flatten(same) == flatten(config)
  copied = pickle.loads(pickle.dumps(config)).copy_and_resolve_references()
  copied.model.update(remat=before)
  assert copied.model.remat == today
  assert Architecture(DIMS, "rope", decoders=1, remat=before).remat == today


def test_ids_of_runs_are_those_of_before_policies_had_names():
  for before, today in ((True, "full"), (False, "none")):
    flat = flatten(resolve(base.get_config(), {"model.remat": today}))
    older = flat | {"model.remat": before}
    assert aged(flat)["model.remat"] is before
    assert runs.identity.run_id(older) == runs.identity.run_id(flat)
    assert completed(older) == completed(flat)
  ids = {
    runs.run_id(resolve(pod.get_config(), {"model.remat": x})) for x in remat.POLICIES
  }
  assert len(ids) == len(remat.POLICIES)


def test_an_unknown_policy_is_refused_with_the_nearest_name():
  with pytest.raises(ConfigError, match="Did you mean 'dots_saveable'"):
    validate(resolve(base.get_config(), {"model.remat": "dots_savable"}))
  with pytest.raises(ValueError, match="remat is 3. Write one of none, full, dots"):
    Architecture(DIMS, "rope", decoders=1, remat=3)
