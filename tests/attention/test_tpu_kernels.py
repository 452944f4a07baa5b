"""What surrounds the TPU kernels: types, layouts, costs, and heads of any width."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.attention import PLAIN, BoundVariant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.attention.cores.pallas import layout
from transformer_jax.attention.cores.pallas.score_terms import Sizes
from transformer_jax.axes import Dims
from transformer_jax.positions import Bound, bind, coords, positions

B, L, H, G, K = 2, 1024, 4, 2, 128
NONE = Bound(positions.build("none"))


def loss(core, shape_q, shape_k, q, k, v):
  """Returns the sum of attention's outputs, of flat queries, keys and values."""
  at = coords.consecutive(1, L)
  q, k, v = q.reshape(shape_q), k.reshape(shape_k), v.reshape(shape_k)
  return jnp.sum(core(q, k, v, at, at, NONE).astype(jnp.float32))


@functools.cache
def equations(variant="multihead", G=G):
  """Returns the equations of gradients in bfloat16, traced for a TPU."""
  core = cores.build("pallas_tpu(interpret=False)")
  bound = BoundVariant(attentions.build(variant))
  core = functools.partial(core, variant=bound)
  run = functools.partial(loss, core, (B, L, H, K), (B, L, G, K))
  q, kv = (jax.ShapeDtypeStruct((B, L, n * K), jnp.bfloat16) for n in (H, G))
  return [*every(jax.make_jaxpr(jax.grad(run, (0, 1, 2)))(q, kv, kv).jaxpr)]


def every(jaxpr):
  """Yields equations, those of calls but not of kernels included."""
  for eqn in jaxpr.eqns:
    yield eqn
    for inner in eqn.params.values() if eqn.primitive.name != "pallas_call" else ():
      if hasattr(inner, "jaxpr"):
        yield from every(inner.jaxpr)


def kernels(*args):
  found = [x for x in equations(*args) if x.primitive.name == "pallas_call"]
  assert len(found) == 3
  return found


def big(avals):
  return [x for x in avals if x.size >= B * L * G * K]


def test_gradients_leave_kernels_in_the_type_of_their_arrays():
  for kernel in kernels():
    types = {x.aval.dtype.name for x in kernel.outvars if x in big_vars(kernel)}
    assert types == {"bfloat16"}


def big_vars(eqn):
  return [v for v in (*eqn.invars, *eqn.outvars) if big([v.aval])]


TOKENS_LAST, BACK = (0, 2, 3, 1), (0, 3, 1, 2)


def test_nothing_big_is_moved_around_kernels_but_tokens_to_the_last_axis():
  orders = []
  for eqn in equations():
    name = eqn.primitive.name
    outs = big([v.aval for v in eqn.outvars])
    assert not (name in ("gather", "concatenate", "pad") and outs), eqn
    if name == "transpose" and outs:
      orders.append(eqn.params["permutation"])
  # In XLA's products these are no copies: q, k, v, dO, and back out, dq, dk, dv.
  assert sorted(orders) == 4 * [TOKENS_LAST] + 4 * [BACK]
  sizes = [sorted({x.aval.size for x in big_vars(kernel)}) for kernel in kernels()]
  assert sizes == 3 * [[B * L * G * K, B * L * H * K]]  # keys of G heads


def test_the_cost_counts_visited_tiles():
  def flops(kernel):
    return kernel.params["cost_estimate"].flops

  square = 2 * B * H * L * L * K  # of one product, if no tile is skipped
  for kernel, products in zip(kernels(), (2, 3, 4), strict=True):
    assert flops(kernel) == products * square * 3 / 4  # 3 of 2 x 2 tiles


def test_the_share_of_tiles_is_that_of_the_mask():
  size = Sizes(8, 8, 8, 8)
  for spec in "multihead", "window(12)":
    bound = BoundVariant(attentions.build(spec))
    at = coords.consecutive(1, 64)
    tiles = layout.visible_tiles(bound, at, at, 8, 8)
    assert layout.visited(bound, 64, 64, size) == pytest.approx(
      float(tiles.mean()), abs=0.1
    )
  assert layout.visited(PLAIN, 64, 32, size) == 1.0


@pytest.mark.parametrize("n, size", [(24, 32), (600, 128), (1000, 512), (513, 128)])
def test_blocks_are_large_where_little_is_padded(n, size):
  assert layout.block_of(n, 512, 1) == size


@pytest.mark.parametrize("K", [8, 12])
def test_heads_of_any_width_give_the_dense_answer(K):
  keys, at = jax.random.split(jax.random.key(0), 4), coords.consecutive(2, 20)
  shapes = (2, 20, 4, K), (2, 20, 2, K), (2, 20, 2, K)
  qkv = [jax.random.normal(key, s) for key, s in zip(keys[:3], shapes, strict=True)]
  encoding = positions.build("t5")
  table = {"table_HN": jax.random.normal(keys[3], (4, 32))}

  def answer(core, qkv, table):
    out = cores.build(core)(*qkv, at, at, bind(encoding, table, None))
    return jnp.sum(jnp.sin(out)), out

  run = jax.jit(jax.value_and_grad(answer, (1, 2), has_aux=True), static_argnums=0)
  got, want = (run(core, qkv, table) for core in ("pallas_tpu(block=8)", "dense"))
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)


def rows_of_tiles(name, L):
  """Returns the rows of tiles of the kernel of outputs, for heads of 128."""
  encoding = positions.build(name)
  dims = Dims(V=8, D=H * K, H=H, F=8, L=L)
  params = jax.eval_shape(lambda: encoding.init(jax.random.key(0), dims))
  q_BLHK = jax.ShapeDtypeStruct((1, L, H, K), jnp.bfloat16)
  core, at = cores.build("pallas_tpu(interpret=False)"), coords.consecutive(1, L)

  def attend(params, q_BLHK):
    return core(q_BLHK, q_BLHK, q_BLHK, at, at, bind(encoding, params, dims))

  jaxpr = jax.make_jaxpr(attend)(params, q_BLHK).jaxpr
  (kernel,) = (x for x in every(jaxpr) if x.primitive.name == "pallas_call")
  return kernel.params["grid_mapping"].grid[2]


@pytest.mark.parametrize(
  ("name", "L", "size"),
  [
    ("none", 2048, 512),
    ("deberta", 2048, 512),
    ("deberta(buckets=512, max_distance=2048)", 2048, 256),
  ],
)
def test_tiles_are_as_large_as_the_arrays_that_an_encoding_makes_let_them(
  name, L, size
):
  assert rows_of_tiles(name, L) == L // size
