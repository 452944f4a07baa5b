"""Models with selected keys, convolved scores, factors and decays in all ways.

A mesh of eight devices, recomputed layers, one program for all layers and decoding in
parts give the numbers of one pass on one device.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import transformer_jax as tj
from transformer_jax.models import empty_cache
from transformer_jax.positions import coords
from transformer_jax.training import sharding

DIMS = tj.Dims(V=12, D=16, H=4, F=16, L=32)
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 12))
SPECS = [
  ("moba(4, 2)", "rope"),
  ("softpick", "rope"),
  ("mta(queries=2, keys=3)", "fope"),
  ("tpa(rank=2, queries=3)", "rope"),
  ("log_linear", "none"),
  ("twin_queries", "rope_pp"),
  ("value_norm + gated(source='both')", "fope"),
]


def close(found, wanted):
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("attention", "position"), SPECS)
def test_all_ways_to_compute_a_model_agree(attention, position):
  arch = tj.Architecture(DIMS, position, attention=attention, decoders=2, scan=True)
  model = tj.Transformer(arch)
  params = jax.jit(model.init)(jax.random.key(0), TOKENS)["params"]

  def loss(model):
    return lambda p: jnp.sum(jnp.sin(model.apply({"params": p}, TOKENS)))

  want = jax.jit(jax.value_and_grad(loss(model)))(params)
  again = model.clone(arch=dataclasses.replace(arch, remat="full"))
  with jax.set_mesh(mesh := sharding.make_mesh(data=2, tensor=2, fsdp=2)):
    placed = jax.device_put(params, sharding.split(mesh, params))
    found = jax.jit(jax.value_and_grad(loss(again)))(placed)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
    close(a, b)
  close(decoded(model, params), model.apply({"params": params}, TOKENS))


def decoded(model, params):
  """Returns logits of tokens that are given in three parts."""
  cache, found = empty_cache(model.arch, 2, 12), []
  step = jax.jit(
    lambda token, at, cache: model.apply(
      {"params": params}, token, at, None, cache, method="decode"
    )
  )
  for start in (0, 4, 8):
    at = coords.consecutive(1, 4, start)
    out, cache = step(TOKENS[:, start : start + 4], at, cache)
    found.append(out)
  return jnp.concatenate(found, axis=1)
