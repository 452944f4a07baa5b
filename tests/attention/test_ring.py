"""Attention over texts that eight simulated devices share equals the definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_positions import DIMS, EITHER_WAY, MODES, B, H, K, L, inputs, program

from transformer_jax.attention import BoundVariant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.positions import PositionalEncoding, bind, coords, positions
from transformer_jax.training import sharding

MESH = sharding.make_mesh(sequence=8)
LOCAL = [name for name in sorted(positions) if positions.build(name).tile_local]
# One whose keys carry data, one that adds to values.
FEW = ["forgetting", "shaw"]
# It adds up 64 cosines, in tiles and in whole rows: sums near 64 round to 4e-6 or more.
ROUGH = {"sandwich": 2e-5}


def compare(encoding, kinds):
  given, g = inputs(encoding), jax.random.normal(jax.random.key(9), (B, L, H, K))
  for kind, at in kinds.items():
    if at.pos_BL.max() >= (encoding.num_positions(DIMS) or jnp.inf):
      continue
    want, want_grads = program("dense", encoding)(given, at, g)
    with jax.set_mesh(MESH):  # three keys on each device
      got, got_grads = program("ring(block=2)", encoding)(given, at, g)
    close = functools.partial(np.testing.assert_allclose, err_msg=kind)
    close(got, want, atol=ROUGH.get(encoding.name, 3e-6))
    # Sums of float32 in another order; gradients add up to L * H * K terms.
    close = functools.partial(close, atol=3e-5, rtol=2e-5)
    jax.tree.map(close, got_grads, want_grads)


@pytest.mark.parametrize("name", FEW)
def test_a_ring_gives_the_dense_answer_and_gradients(name):
  compare(positions.build(name), MODES)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*LOCAL} - {*FEW}))
def test_a_ring_serves_every_encoding_that_needs_no_whole_rows(name):
  compare(positions.build(name), MODES)


def test_a_ring_looks_both_ways():
  compare(positions.build("t5").bidirectional(), EITHER_WAY)


@pytest.mark.parametrize(
  "spec",
  [
    pytest.param("multihead", marks=pytest.mark.slow),
    "gqa(2) + softcap(2.0) + sinks + window(9)",
    pytest.param("sigmoid", marks=pytest.mark.slow),
  ],
)
def test_a_ring_serves_variants_between_texts_of_different_lengths(spec):
  """17 keys and 10 queries: neither divides by eight."""
  variant, position = attentions.build(spec), bind(PositionalEncoding(), {}, DIMS)
  params = variant.init(jax.random.key(0), DIMS)
  params = jax.tree.map(lambda x: x + 0.3, params)
  G = variant.projections().groups or H
  shapes = (B, 10, H, K), (B, 17, G, K), (B, 17, G, 2 * K)
  keys = jax.random.split(jax.random.key(1), 3)
  qkv = [jax.random.normal(key, s) for key, s in zip(keys, shapes, strict=True)]
  q_at, k_at = coords.consecutive(1, 10, start=7), coords.consecutive(1, 17)

  def run(core):
    def loss(params, *qkv):
      bound = BoundVariant(variant, params)
      out = cores.build(core)(*qkv, q_at, k_at, position, 0.4, bound)
      return jnp.sum(jnp.sin(out + 1.0)), out

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True))(params, *qkv)

  (_, want), want_grads = run("dense")
  with jax.set_mesh(MESH):
    (_, got), got_grads = run("ring")
  np.testing.assert_allclose(got, want, atol=2e-6)
  close = functools.partial(np.testing.assert_allclose, atol=1e-5)
  jax.tree.map(close, got_grads, want_grads)


def test_no_device_holds_the_keys_of_all():
  """The gradient's memory on one device falls with the number of devices."""
  x = jax.ShapeDtypeStruct((1, 2048, 2, 16), jnp.float32)
  at, position = coords.consecutive(1, 2048), bind(PositionalEncoding(), {}, None)

  def memory(devices):
    ring = lambda x: jnp.sum(cores.build("ring")(x, x, x, at, at, position) ** 2)
    mesh = sharding.make_mesh(sequence=devices)
    tokens = jax.sharding.NamedSharding(mesh, jax.P(None, "sequence"))
    with jax.set_mesh(mesh):
      grad = jax.jit(jax.grad(ring), in_shardings=tokens, out_shardings=tokens)
      return grad.lower(x).compile().memory_analysis().temp_size_in_bytes

  assert memory(8) < memory(2) / 3


def test_a_device_compares_its_queries_with_one_block_of_keys_at_once():
  at, position = coords.consecutive(1, 4096), bind(PositionalEncoding(), {}, None)
  x = jax.ShapeDtypeStruct((1, 4096, 2, 16), jnp.float32)

  def memory(core):
    ring = lambda x: jnp.sum(cores.build(core)(x, x, x, at, at, position) ** 2)
    with jax.set_mesh(sharding.make_mesh(sequence=2)):
      compiled = jax.jit(jax.grad(ring)).lower(x).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert memory("ring(block=128)") < memory("ring(block=2048)") / 4


def test_a_ring_without_its_mesh_says_what_to_set():
  at, position = coords.consecutive(1, 4), bind(PositionalEncoding(), {}, None)
  x_BLHK = jnp.zeros((1, 4, H, K))
  with pytest.raises(ValueError, match="axis 'sequence'; set mesh.sequence"):
    cores.build("ring")(x_BLHK, x_BLHK, x_BLHK, at, at, position)
