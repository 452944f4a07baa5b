"""Products with tables by distance: found, equal to dense, and as small as a tile."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_pallas import KINDS, TPU, close, equal
from test_positions import MODES
from test_tpu_kernels import every

from transformer_jax.attention import BoundVariant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.attention.cores.pallas import (
  distance_index,
  gather,
  table_products,
)
from transformer_jax.attention.cores.pallas.distance_index import DistanceIndex
from transformer_jax.axes import Dims
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import bind, coords, positions

# Tables shorter and longer than the text of 24 tokens, both slopes, queries and keys.
TABLES = (
  "music_transformer(causal=False, max_distance=9)",
  "music_transformer(max_distance=40)",
  "deberta(max_distance=5)",
  "deberta(max_distance=5, released=True)",
  "inkling(max_distance=7)",
)


@pytest.mark.parametrize(
  "spec",
  ["music_transformer(max_distance=9)"]
  + [pytest.param(spec, marks=pytest.mark.slow) for spec in TABLES],
)
def test_bands_of_a_table_give_the_dense_answer_and_all_gradients(spec):
  equal(TPU, positions.build(spec), [MODES[kind] for kind in KINDS])


@pytest.mark.slow
def test_a_long_table_with_another_index_is_read_in_parts(monkeypatch):
  monkeypatch.setattr(gather, "PART", 8)
  monkeypatch.setattr(table_products, "PART", 4)
  encoding = positions.build("deberta(buckets=6, max_distance=16)")
  equal(TPU, encoding, [MODES[kind] for kind in KINDS])


def draws(spec, L, H=2, K=8):
  """Returns parameters of an encoding, and queries, keys and values."""
  keys = jax.random.split(jax.random.key(0), 4)
  encoding, dims = positions.build(spec), Dims(V=8, D=H * K, H=H, F=8, L=L)
  params = encoding.init(keys[0], dims)
  params = {n: jax.random.normal(keys[0], x.shape) for n, x in params.items()}
  return encoding, dims, params, [jax.random.normal(k, (1, L, H, K)) for k in keys[1:]]


@pytest.mark.parametrize("spec", ["music_transformer(max_distance=6)"])
def test_a_length_that_does_not_divide_a_window_and_a_shared_head_of_keys(spec):
  L = 21
  encoding, dims, params, (q_BLHK, k_BLHK, v_BLHK) = draws(spec, L)
  qkv = [q_BLHK, k_BLHK[:, :, :1], v_BLHK[:, :, :1]]
  at, variant = coords.consecutive(1, L), BoundVariant(attentions.build("window(9)"))

  def loss(core, params, qkv):
    out = cores.build(core)(*qkv, at, at, bind(encoding, params, dims), None, variant)
    return jnp.sum(jnp.sin(out)), out

  run = jax.value_and_grad(loss, (1, 2), has_aux=True)
  got = jax.jit(functools.partial(run, TPU))(params, qkv)
  close(got, evaluate(functools.partial(run, "dense"), params, qkv))


def sizes_of_products(spec, L):
  """Returns the largest side of a product in the kernels of L tokens, for a TPU."""
  encoding, dims, params, _ = draws(spec, 16, K=128)
  dims = Dims(V=8, D=256, H=2, F=8, L=L)
  params = jax.eval_shape(lambda: encoding.init(jax.random.key(0), dims))
  x_BLHK = jax.ShapeDtypeStruct((1, L, 2, 128), jnp.bfloat16)
  core, at = cores.build("pallas_tpu(interpret=False)"), coords.consecutive(1, L)

  def loss(params, x_BLHK):
    out = core(x_BLHK, x_BLHK, x_BLHK, at, at, bind(encoding, params, dims))
    return jnp.sum(out.astype(jnp.float32))

  kernels = [
    eqn
    for eqn in every(jax.make_jaxpr(jax.grad(loss, (0, 1)))(params, x_BLHK).jaxpr)
    if eqn.primitive.name == "pallas_call"
  ]
  assert len(kernels) == 3
  inner = [x for kernel in kernels for x in within(kernel.params["jaxpr"])]
  products = [x for x in inner if x.primitive.name == "dot_general"]
  return max(n for x in products for v in x.invars for n in v.aval.shape)


def within(jaxpr):
  """Yields equations of a kernel, those of branches and loops included."""
  for eqn in jaxpr.eqns:
    yield eqn
    inner = [*eqn.params.values(), *eqn.params.get("branches", ())]
    for part in inner:
      if hasattr(part, "jaxpr"):
        yield from within(part.jaxpr)


@pytest.mark.parametrize("spec", ["music_transformer", "deberta", "shaw"])
def test_products_of_a_tile_do_not_grow_with_the_table(spec):
  diagonals = 2 * 512
  assert sizes_of_products(spec, 4096) <= diagonals


def clipped(first, slope, N):
  return lambda i, j: np.clip(first + slope * (i[:, None] - j[None, :]), 0, N - 1)


@pytest.mark.parametrize("slope", [1, -1])
@pytest.mark.parametrize("first", [-3, 0, 4, 9, 30])
def test_indices_that_are_clipped_distances_are_found(first, slope):
  index = clipped(first, slope, 10)
  want = DistanceIndex(first, slope, by_keys=False, reach=40)
  assert distance_index.fit(index, 4, 8, 10, 40) == want
  turned = distance_index.fit(lambda i, j: index(i, j).T, 4, 8, 10, 40)
  assert turned == DistanceIndex(first, slope, by_keys=True, reach=40)


@pytest.mark.parametrize("at", [-40, -7, 0, 7, 40])
def test_an_index_that_is_none_at_one_distance_is_refused(at):
  def index(i, j):
    distance = i[:, None] - j[None, :]
    return clipped(9, -1, 10)(i, j) + (distance == at)

  assert distance_index.fit(index, 8, 8, 10, 40) is None
