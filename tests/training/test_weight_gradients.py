"""Gradients that devices get in parts: of einsums, lookups and loops over a text."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax import matmul, weight_gradients
from transformer_jax.training import sharding

SIZES = {"B": 8, "L": 4, "D": 16, "X": 3, "F": 12, "H": 2, "N": 3, "V": 6}
EINSUMS = ["BLD,XDF->BLXF", "BLXF,XFD->BLD", "BLX,XD->BLD", "BLD,DH->BLH"]
EINSUMS += ["BLND,DF->BLNF"]
MESHES = [{"fsdp": 8}, {"data": 2, "fsdp": 4}, {"fsdp": 2, "tensor": 2, "data": 2}]


@pytest.fixture(autouse=True)
def on_an_accelerator(monkeypatch):
  for module in (matmul, weight_gradients):
    monkeypatch.setattr(module, "platform", lambda: "tpu")


def normal(letters, seed=0):
  shape = [SIZES[letter] for letter in letters]
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def on_mesh(mesh, step, name, w, *rest):
  """Returns (step(w, *rest) with w split, w's sharding, reduce-scatters)."""
  mesh = sharding.make_mesh(**mesh)
  with jax.set_mesh(mesh):
    split = sharding.split(mesh, {name: w})[name]
    lowered = jax.jit(lambda *args: step(*args)).lower(jax.device_put(w, split), *rest)
    got = lowered.compile()(jax.device_put(w, split), *rest)
  return got, split, lowered.as_text().count("stablehlo.reduce_scatter")


@pytest.mark.parametrize("mesh", MESHES, ids=str)
@pytest.mark.parametrize("axes", EINSUMS)
def test_an_einsum_and_its_gradients_are_those_of_one_device(axes, mesh):
  inputs, _, after = axes.partition("->")
  before, letters = inputs.split(",")

  def step(w, x, g):
    y, pull = jax.vjp(functools.partial(matmul.einsum, axes), x, w)
    return y, *pull(g)

  w, rest = normal(letters), (normal(before, 1), normal(after, 2))
  alone = jax.jit(step)(w, *rest)
  got, split, sums = on_mesh(mesh, step, f"w_{letters}", w, *rest)
  assert sums == 1 and got[2].sharding.is_equivalent_to(split, w.ndim)
  for ours, theirs in zip(got, alone, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
  ("mesh", "sums"),
  [
    ({"fsdp": 8}, 1),
    ({"fsdp": 2, "sequence": 2, "data": 2}, 1),
    ({"fsdp": 2, "tensor": 2}, 0),  # split by vocabulary too: left to the compiler
  ],
  ids=str,
)
def test_the_gradient_of_a_table_is_summed_into_parts(mesh, sums):
  """Of a row that no token reads, it is zero; tokens that read one row add up."""
  token_BL = jnp.asarray(np.random.default_rng(1).integers(0, 5, (8, 4)))

  def step(table_VD, g_BLD):
    x_BLD, pull = jax.vjp(lambda w: matmul.look_up(w, token_BL), table_VD)
    return x_BLD, pull(g_BLD)[0]

  table_VD, g_BLD = normal("VD"), normal("BLD", 2)
  (x_BLD, d_VD), _, found = on_mesh(mesh, step, "table_VD", table_VD, g_BLD)
  want_VD = np.zeros(table_VD.shape)
  np.add.at(want_VD, np.asarray(token_BL), np.asarray(g_BLD))
  assert found == sums
  np.testing.assert_array_equal(x_BLD, table_VD[token_BL])
  np.testing.assert_allclose(d_VD, want_VD, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_a_loop_sums_its_gradients_once(mesh):
  """After its last step, where devices split examples alone."""

  def steps(weights, x_BLD):
    def one(h_BD, x_BD):
      h_BD = jnp.tanh(matmul.project(h_BD, weights["state_DD"], 1) + x_BD)
      return h_BD, h_BD

    start_BD = jnp.zeros_like(x_BLD[:, 0])
    return jnp.swapaxes(jax.lax.scan(one, start_BD, jnp.moveaxis(x_BLD, 1, 0))[1], 0, 1)

  def step(w, x_BLD, g_BLD):
    run = weight_gradients.with_whole_weights
    y, pull = jax.vjp(lambda w, x: run(steps, {"state_DD": w}, x), w, x_BLD)
    return y, *pull(g_BLD)

  w, rest = normal("DD"), (normal("BLD", 1), normal("BLD", 2))
  alone = jax.jit(step)(w, *rest)
  got, split, sums = on_mesh(mesh, step, "state_DD", w, *rest)
  assert sums == (0 if "tensor" in mesh else 1)
  for ours, theirs in zip(got, alone, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)
