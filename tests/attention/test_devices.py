"""On a mesh each device attends with its own rows and heads, and with nothing else."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_positions import DIMS, MODES, B, H, K, L, inputs, program

from transformer_jax.attention import BoundVariant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import PositionalEncoding, bind, coords, positions
from transformer_jax.training import sharding

MESH = sharding.make_mesh(data=2, tensor=4)
TILES = "blockwise(block=7)"
SLOW = pytest.mark.slow
OTHERS = [(TILES, "alibi"), (TILES, "t5"), (TILES, "forgetting")]
OTHERS += [("pallas_tpu", "t5"), ("pallas_gpu", "t5")]
# Arrays are split by the names of their axes: shaw has parameters, scores and values.
PAIRS = [(TILES, "shaw")]
PAIRS += [pytest.param(*pair, marks=SLOW) for pair in OTHERS]


@pytest.mark.parametrize(("core", "name"), PAIRS)
def test_devices_together_give_the_dense_answer_and_gradients(core, name):
  encoding = positions.build(name)
  given, g = inputs(encoding), jax.random.normal(jax.random.key(9), (B, L, H, K))
  for kind in ("causal", "packed"):
    want, want_grads = program("dense", encoding)(given, MODES[kind], g)
    with jax.set_mesh(MESH):
      got, got_grads = program(core, encoding)(given, MODES[kind], g)
    close = functools.partial(np.testing.assert_allclose, err_msg=kind)
    close(got, want, atol=3e-6)
    # Sums of float32 in another order; gradients add up to L * H * K terms.
    jax.tree.map(functools.partial(close, atol=3e-5, rtol=2e-5), got_grads, want_grads)


@pytest.mark.parametrize("spec", ["mqa + sinks", pytest.param("gqa(2)", marks=SLOW)])
def test_devices_share_key_heads_that_do_not_divide(spec):
  """One key head is on all devices; two key heads do not divide over four."""
  variant, position = attentions.build(spec), bind(PositionalEncoding(), {}, DIMS)
  params = variant.init(jax.random.key(0), DIMS)
  params = jax.tree.map(lambda x: x + 0.3 + jnp.arange(x.size).reshape(x.shape), params)
  G = variant.projections().groups
  at, scale_H = coords.consecutive(1, 16), jnp.linspace(0.1, 0.4, H)
  keys = jax.random.split(jax.random.key(1), 3)
  shapes = (B, 16, H, K), (B, 16, G, K), (B, 16, G, K)
  qkv = [jax.random.normal(key, s) for key, s in zip(keys, shapes, strict=True)]

  def gradient(core):
    def loss(params, scale_H, *qkv):
      bound = BoundVariant(variant, params)
      out = cores.build(core)(*qkv, at, at, position, scale_H, bound)
      return jnp.sum(jnp.sin(out + 1.0))

    return jax.grad(loss, (0, 1, 2, 3, 4))

  want = evaluate(gradient("dense"), params, scale_H, *qkv)
  with jax.set_mesh(MESH):
    got = jax.jit(gradient("blockwise(block=8)"))(params, scale_H, *qkv)
  close = functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=2e-6)
  jax.tree.map(close, got, want)


def test_no_device_gets_the_rows_or_heads_of_another():
  at, position = coords.consecutive(1, 64), bind(PositionalEncoding(), {}, None)
  x = jax.ShapeDtypeStruct((4, 64, 8, 16), jnp.float32)
  split = jax.sharding.NamedSharding(MESH, jax.P("data", None, "tensor"))
  core = lambda x: jnp.sum(cores.build("blockwise")(x, x, x, at, at, position) ** 2)
  with jax.set_mesh(MESH):
    grad = jax.jit(jax.grad(core), in_shardings=split, out_shardings=split)
    text = grad.lower(x).compile().as_text()
  assert not re.findall(r"all-gather|all-to-all|collective-permute", text)


@pytest.mark.parametrize("rows", [4, 3])
def test_nothing_is_left_to_a_compiler_that_cannot_split_kernels(rows):
  """Mosaic refuses a kernel on a mesh with an axis that is not taken, even of one."""
  at, position = coords.consecutive(1, 16), bind(PositionalEncoding(), {}, None)
  x_BLHK = jnp.zeros((rows, 16, 8, 16))  # three rows do not divide over two devices
  attend = lambda x: cores.build("pallas_tpu")(x, x, x, at, at, position)
  with jax.set_mesh(MESH):
    jaxpr = jax.make_jaxpr(attend)(x_BLHK)
  (taken,) = (
    eqn.params["newly_manual_axes"]
    for eqn in jaxpr.jaxpr.eqns
    if eqn.primitive.name == "shard_map"
  )
  assert taken == {*MESH.axis_names}
