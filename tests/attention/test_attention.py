"""Attention cores: who sees whom, memory, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.attention.cores import cores
from transformer_jax.attention.variants.bound_variant import visible
from transformer_jax.axes import Dims
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import PositionalEncoding, bind, coords, positions
from transformer_jax.positions.coords import Coords

H, K = 4, 16


def serving(encoding):
  """Returns the cores that serve an encoding on any device: a ring needs a mesh."""
  here = sorted({*cores} - {"ring", "cudnn"})
  return [name for name in here if cores.build(name).refusal(encoding) is None]


# Both kernels are made by one code.
SLOW_ONE = pytest.param("pallas_gpu", marks=pytest.mark.slow)


def cells(encoding):
  return [SLOW_ONE if name == "pallas_gpu" else name for name in serving(encoding)]


PLAIN = cells(PositionalEncoding())


def test_masks_allow_as_many_pairs_as_their_definitions():
  causal = coords.consecutive(1, 6)
  pairs = {
    36: causal.bidirectional(),
    21: causal,
    24: causal.prefix(jnp.array([[3]])),
    12: coords.packed(jnp.array([[1, 1, 1, 2, 2, 2]])),
    10: coords.padded(jnp.array([[False, False, True, True, True, True]])),
  }
  for count, at in pairs.items():
    assert int(evaluate(visible, at, at).sum()) == count
  query = coords.consecutive(1, 2, start=4)  # two new tokens and a cache of six
  assert int(evaluate(visible, query, causal).sum()) == 5 + 6


@pytest.mark.parametrize("core", PLAIN)
def test_order_decides_what_is_seen_and_positions_do_not(core):
  q_BLHK = jax.random.normal(jax.random.key(0), (1, 6, H, K))
  at = coords.consecutive(1, 6)
  nothing = bind(PositionalEncoding(), {}, None)
  run = jax.jit(lambda at: cores.build(core)(q_BLHK, q_BLHK, q_BLHK, at, at, nothing))
  shuffled = at.replace(pos_BL=jnp.array([[5, 1, 1, 0, 9, 2]]))
  np.testing.assert_array_equal(run(shuffled), run(at))


@pytest.mark.parametrize("core", PLAIN)
def test_a_query_that_sees_nothing_gets_zero_and_sends_no_gradient(core):
  x_BLHK = jax.random.normal(jax.random.key(0), (1, 4, H, K))
  at = coords.consecutive(1, 4).replace(horizon_BL=jnp.array([[-1, 1, 2, 3]]))
  nothing = bind(PositionalEncoding(), {}, None)

  @jax.jit
  def run(x):
    out, pull = jax.vjp(lambda x: cores.build(core)(x, x, x, at, at, nothing), x)
    return out, pull(jnp.zeros_like(out).at[:, 0].set(1.0))[0]

  out, grad = run(x_BLHK)
  assert not np.any(out[:, 0]) and np.any(out[:, 1])
  assert not np.any(grad)


def memory(core, name, L):
  """Returns temporary bytes of the gradient, which holds the forward pass."""
  encoding = positions.build(name)
  dims = Dims(V=8, D=H * K, H=H, F=8, L=L)
  params = jax.eval_shape(lambda: encoding.init(jax.random.key(0), dims))
  x = jax.ShapeDtypeStruct((1, L, H, K), jnp.float32)
  at = coords.consecutive(1, L)

  def loss(params, q, k, v):
    return jnp.sum(
      cores.build(core)(q, k, v, at, at, bind(encoding, params, dims)) ** 2
    )

  program = jax.jit(jax.grad(loss, (0, 1, 2, 3)))
  compiled = program.lower(params, x, x, x).compile()
  return compiled.memory_analysis().temp_size_in_bytes


SLOWLY = [
  pytest.param(n, marks=pytest.mark.slow) for n in ("shaw", "per_distance", "fire")
]


@pytest.mark.parametrize("name", [*SLOWLY, "t5"])
def test_blockwise_memory_is_linear_in_the_length(name):
  short, long = (memory("blockwise(block=64)", name, L) for L in (1024, 4096))
  assert long < 4.6 * short, (short, long)


def test_dense_memory_is_quadratic_and_far_above_blockwise():
  short, long = (memory("dense", "t5", L) for L in (512, 1024))
  assert long > 3.5 * short, (short, long)
  assert long > 4 * memory("blockwise(block=64)", "t5", 1024)


def test_whole_row_encodings_are_refused_by_name():
  @dataclasses.dataclass(frozen=True)
  class Rows(PositionalEncoding):
    def full_scores(self, params, s_HLM, tile):
      return s_HLM - jnp.max(
        jnp.where(tile.mask_LM, s_HLM, -9.0), axis=-1, keepdims=True
      )

  x_BLHK = jax.random.normal(jax.random.key(0), (2, 6, H, K))
  at = coords.consecutive(1, 6)
  args = x_BLHK, x_BLHK, x_BLHK, at, at
  with pytest.raises(
    ValueError, match="Rows looks at whole rows.*use model.core=dense"
  ):
    cores.build("blockwise")(*args, bind(Rows(), {}, None))
  nothing = bind(PositionalEncoding(), {}, None)
  # Taking a row's maximum off changes no softmax: the hook ran, on every head.
  dense = lambda position: evaluate(lambda: cores.build("dense")(*args, position))
  np.testing.assert_allclose(dense(bind(Rows(), {}, None)), dense(nothing), atol=1e-6)


def test_rows_see_all_heads_first_and_what_travels_with_the_tokens():
  @dataclasses.dataclass(frozen=True)
  class Rows(PositionalEncoding):
    def token_data(self, params, x_BLD, q_BLHK):
      return {"gate_BLH": x_BLD[..., :H]}

    def full_scores(self, params, s_HLM, tile):
      return s_HLM + tile.q_data["gate_BLH"][..., None] * tile.k_MK[..., 0][:, None, :]

  q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 6, H, K))
  x_BLD = jax.random.normal(jax.random.key(1), (2, 6, 8))
  position = bind(Rows(), {}, None)

  def run(q, k, v):
    at = position.read(x_BLD, None, coords.consecutive(1, 6))
    return cores.build("dense")(q, k, v, at, at, position)

  got = evaluate(run, q, k, v)
  q, k, v, x_BLD = (np.asarray(x) for x in (q, k, v, x_BLD))
  for b, h in ((0, 1), (1, 3)):
    s_LM = (
      q[b, :, h] @ k[b, :, h].T * K**-0.5 + x_BLD[b, :, h, None] * k[b, None, :, h, 0]
    )
    w_LM = np.tril(np.exp(s_LM))
    want = w_LM / w_LM.sum(1, keepdims=True) @ v[b, :, h]
    np.testing.assert_allclose(got[b, :, h], want, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class Everything(PositionalEncoding):
  """Uses the hooks that no shipped encoding uses: turn, temperature, data by head."""

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    length_B111 = jnp.max(k_at.pos_BL, axis=1)[:, None, None, None] + 1.0
    return jnp.tile(q_BLHK, 2) / length_B111, jnp.tile(k_BMHK, 2)

  def temperature(self, params, at: Coords):
    return jnp.log(at.order_BL[:, :, None, None] + 2.0)

  def token_data(self, params, x_BLD, q_BLHK):
    return {"gate_BLH": x_BLD[..., :H], "all_BL": x_BLD[..., 0]}

  def score(self, params, s_LM, tile):
    assert tile.q_data["gate_BLH"].ndim == tile.q_data["all_BL"].ndim == 1
    return s_LM + tile.q_data["gate_BLH"][:, None] * tile.k_data["all_BL"][None, :]


@pytest.mark.parametrize("core", cells(Everything()))
def test_hooks_that_turn_both_sides_scale_queries_and_read_tokens(core):
  q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 6, H, K))
  x_BLD = jax.random.normal(jax.random.key(1), (2, 6, 8))
  position = bind(Everything(), {}, None)

  @jax.jit
  def run(q, k, v):
    at = position.accumulate(position.read(x_BLD, None, coords.consecutive(1, 6)))
    q, k = position.transform_qk(q, k, at, at)
    return cores.build(core)(q, k, v, at, at, position, K**-0.5)

  got = run(q, k, v)
  q, k, v, x_BLD = (np.asarray(x) for x in (q, k, v, x_BLD))
  for b in range(2):
    for h in range(H):
      s_LM = 2 * (q[b, :, h] / 6 * np.log(np.arange(6) + 2)[:, None]) @ k[b, :, h].T
      s_LM = s_LM * K**-0.5 + x_BLD[b, :, h, None] * x_BLD[b, None, :, 0]
      w_LM = np.tril(np.exp(s_LM))
      want = w_LM / w_LM.sum(1, keepdims=True) @ v[b, :, h]
      np.testing.assert_allclose(got[b, :, h], want, atol=1e-5)
