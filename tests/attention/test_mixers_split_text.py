"""Mixers where devices split a text: states and last tokens are handed on."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import transformer_jax as tj
from transformer_jax.attention.linear_recurrence import StateUpdates, chunked
from transformer_jax.attention.linear_recurrence.elementwise_recurrence import (
  elementwise,
)
from transformer_jax.models import empty_cache
from transformer_jax.positions import coords
from transformer_jax.training import sharding

L = 96
MESHES = [dict(sequence=8), dict(data=2, tensor=2, sequence=2)]
GATHERED = re.compile(r"= \(?\w+\[([\d,]*)\].* all-gather\(")


def arrays(count, *shape, seed=0):
  random = np.random.default_rng(seed)
  return [jnp.asarray(random.normal(size=shape), jnp.float32) for _ in range(count)]


def updates(reads, decay, per_head=False):
  """Returns tokens of two rows: one has three texts, the other begins in one."""
  q, k, v, g = arrays(4, 2, L, 2, 8)
  k = k / jnp.linalg.norm(k, axis=-1, keepdims=True)
  first_BL = jnp.zeros((2, L), bool).at[0, jnp.array([0, 37, 72])].set(True)
  log = -decay * jax.nn.softplus(g[..., :1] if per_head else g)
  return StateUpdates(q, k, v, log, 0.7 * k if reads else None, first_BL)


def value_and_slopes(run, *args):
  """Returns outputs, and gradients of a sum of them by each array of floats."""
  total = lambda *args: sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(run(*args)))
  slopes = jax.grad(total, tuple(range(len(args))), allow_int=True)
  return jax.jit(lambda *args: (run(*args), slopes(*args)))(*args)


def close(found, want):
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
    if jnp.issubdtype(b.dtype, jnp.floating):
      np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


CASES = [(True, 0.1, 8), (False, 0.1, 8), (True, 60.0, 5)]  # 5: with padding


@pytest.mark.parametrize("reads,decay,devices", CASES)
def test_a_matrix_of_the_state_is_handed_on(reads, decay, devices):
  tokens, (start,) = updates(reads, decay, per_head=devices == 5), arrays(1, 2, 2, 8, 8)
  run = functools.partial(chunked, chunk=8)
  want = value_and_slopes(run, tokens, start)
  with jax.set_mesh(sharding.make_mesh(sequence=devices)):
    close(value_and_slopes(run, tokens, start), want)


def test_a_state_of_numbers_is_handed_on():
  (decay, value), (start,) = arrays(2, 2, L - 3, 5), arrays(1, 2, 5)
  decay = (-jax.nn.softplus(decay)).at[0, 40].set(-jnp.inf)
  want = value_and_slopes(elementwise, decay, value, start)
  with jax.set_mesh(sharding.make_mesh(sequence=8)):
    found = value_and_slopes(elementwise, decay, value, start)
  close(found, want)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


DIMS = tj.Dims(V=12, D=16, H=2, F=16, L=L)
TOKENS = np.random.default_rng(0).integers(0, 11, (2, L))


@functools.cache
def model_of(spec):
  model = tj.Transformer(tj.Architecture(DIMS, "none", attention=spec, decoders=1))
  params = jax.jit(model.init)(jax.random.key(0), TOKENS[:, :4])["params"]
  return model, jax.tree.map(
    lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), params
  )


def holes():
  """Returns coordinates of two texts in a row, and of one with holes."""
  segment_BL = np.array([[1] * 40 + [2] * 50 + [0] * 6, [1] * L])
  at = coords.packed(jnp.asarray(segment_BL))
  real_BL = np.ones((2, L), bool)
  real_BL[1, [0, 1, *range(20, 40), 95]] = False
  padded = coords.padded(jnp.asarray(real_BL))
  return jax.tree.map(lambda a, b: jnp.concatenate([a[:1], b[1:]]), at, padded)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
@pytest.mark.parametrize("spec", ["gated_delta", "gated_conv", "rg_lru"])
def test_a_model_on_devices_that_split_a_text(spec, mesh):
  (model, params), at = model_of(spec), holes()
  real = at.real_BL[..., None]
  run = lambda p, at: jnp.where(real, model.apply({"params": p}, TOKENS, at), 0)
  both = jax.jit(
    lambda p, at: (run(p, at), jax.grad(lambda p: jnp.sum(jnp.sin(run(p, at))))(p))
  )
  want = both(params, at)
  mesh = sharding.make_mesh(**mesh)
  with jax.set_mesh(mesh):
    placed = jax.device_put(params, sharding.split(mesh, params))
    program = both.lower(placed, at).compile()
    found = program(placed, at)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
  gathered = GATHERED.findall(program.as_text())
  whole = [x for x in gathered if str(L) in x.split(",") and x.count(",") > 1]
  assert not whole, f"arrays of all tokens are gathered: {whole}"


def test_a_prompt_is_read_on_devices_that_split_it():
  model, params = model_of("gated_delta")
  run = jax.jit(
    lambda p, token, at, cache: model.apply(
      {"params": p}, token, at, None, cache, method="decode"
    )
  )
  parts = [(0, 40), (40, 41), (41, 80)]

  def logits():
    cache, found = empty_cache(model.arch, 2, L), []
    for start, end in parts:
      at = coords.consecutive(1, end - start, start)
      out, cache = run(params, TOKENS[:, start:end], at, cache)
      found.append(out)
    return jnp.concatenate(found, axis=1)

  want = logits()
  with jax.set_mesh(sharding.make_mesh(sequence=8)):
    np.testing.assert_allclose(logits(), want, rtol=1e-4, atol=1e-4)
