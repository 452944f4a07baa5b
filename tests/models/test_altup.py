"""Alternating updates, low-rank residuals, embeddings of layers, sparse units."""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.axes import Dims
from transformer_jax.models.embeddings import embeddings
from transformer_jax.models.feedforward_kinds import feedforwards
from transformer_jax.models.layers import activations
from transformer_jax.models.residual import placements
from transformer_jax.spec import SpecError

DIMS = Dims(V=7, D=4, H=2, F=8, L=5)
NORMS = {"attention": 2.0, "attention_update": 0.5, "laurel": 3.0, "router": 1.5}
NORMS |= {"feedforward": 0.7, "feedforward_update": 1.2, "embedding_update": 0.8}


class Layer:
  """A layer whose norms are numbers, and whose connections have these parameters."""

  def __init__(self, params):
    self.params = params

  def __call__(self, name):
    return lambda x: NORMS[name] * x

  def connection(self, name):
    return self.params


def close(found, wanted):
  np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def random(shapes, seed=0):
  """Returns normal numbers in the shapes of others."""
  rng = np.random.default_rng(seed)
  normal = {n: rng.normal(size=x.shape).astype(np.float32) for n, x in shapes.items()}
  return {n: jnp.asarray(x) for n, x in normal.items()}


def started(init, *more):
  return random(jax.eval_shape(lambda: init(jax.random.key(0), DIMS, *more)))


@pytest.mark.parametrize("active", [0, 1])
def test_altup_predicts_all_streams_and_corrects_them_by_one(active):
  N, D = 3, DIMS.D
  placement = placements.build(f"altup(pre, streams={N}, active={active}, clip=1.0)")
  w = started(placement.init, 0)
  x_ND = np.random.default_rng(1).normal(size=(N, D)).astype(np.float32)
  parts = {"attention": jnp.tanh, "feedforward": jnp.sin, "embedding": jnp.cos}
  found = jax.jit(lambda x: placement(Layer(w), x, parts))(x_ND[None, None])

  route = lambda x_D: np.tanh(1.5 * x_D / D @ w["router_DR"])
  clipped = {n: np.clip(w[n], -1, 1) for n in ("predict_RSN", "correct_RN")}
  p_SN = np.einsum("R,RSN->SN", route(x_ND[active]), clipped["predict_RSN"])
  guess_ND = [x_ND[n] + sum(p_SN[s, n] * x_ND[s] for s in range(N)) for n in range(N)]
  y_D = guess_ND[active] + np.tanh(2.0 * guess_ND[active])
  y_D = y_D + np.sin(0.7 * y_D)
  c_N = 1 + route(y_D) @ clipped["correct_RN"]
  want_ND = [guess_ND[n] + c_N[n] * (y_D - guess_ND[active]) for n in range(N)]
  added_D = 0.8 * np.cos(want_ND[active] * w["scale_D"])
  want_ND = [want_ND[0], want_ND[1] + added_D, want_ND[2] + added_D]
  close(found[0, 0], want_ND)


def test_altup_opens_with_streams_of_one_size_and_closes_with_their_mean():
  placement = placements.build("altup(pre, streams=3)")
  w, x_D = started(placement.open_init), np.array([1.0, -2.0, 0.5, 3.0], np.float32)
  size = lambda x: np.sqrt(np.mean(x**2, axis=-1, keepdims=True))
  others = [x_D @ w[f"into_{n}_DD"] for n in (1, 2)]
  want_ND = [x_D, *(size(x_D) * y_D / size(y_D) for y_D in others)]
  found_BLND = jax.jit(placement.open)(w, x_D[None, None])
  close(found_BLND[0, 0], want_ND)
  w = started(placement.close_init)
  others = [want_ND[n] @ w[f"out_of_{n}_DD"] for n in (1, 2)]
  want_D = (x_D + sum(size(x_D) * y_D / size(y_D) for y_D in others)) / 3
  close(jax.jit(placement.close)(w, found_BLND)[0, 0], want_D)


def test_streams_of_a_token_that_is_zero_have_gradients():
  placement = placements.build("altup(pre, streams=2)")
  w = started(placement.open_init)
  grad_BLD = jax.grad(lambda x: jnp.sum(placement.open(w, x)))(jnp.zeros((1, 1, 4)))
  assert np.isfinite(grad_BLD).all()


def test_laurel_adds_a_product_of_low_rank_beside_attention():
  placement = placements.build("laurel(rank=2)")
  w, x_D = started(placement.init, 0), np.array([1.0, -2.0, 0.5, 3.0], np.float32)
  parts = {"attention": jnp.tanh, "feedforward": jnp.sin, "embedding": jnp.cos}
  z_D = 2.0 * x_D
  want_D = x_D + 0.5 * np.tanh(z_D) + z_D + 3.0 * z_D @ w["left_DR"] @ w["right_RD"]
  want_D = want_D / np.sqrt(2)
  want_D = want_D + 1.2 * np.sin(0.7 * want_D)
  want_D = want_D + 0.8 * np.cos(want_D)
  close(placement(Layer(w), x_D[None, None], parts)[0, 0], want_D)


@pytest.mark.parametrize("activation", ["gelu", "geglu"])
def test_a_layer_s_embedding_is_gated_by_the_stream(activation):
  embedding = embeddings.build("layer_tokens(width=3, rows=5)")
  w, shared = started(embedding.layer_init), started(embedding.shared_init)
  token_BL, (x_BLD, first_BLD) = (
    np.array([[1, 6, 4]]),
    np.random.default_rng(2).normal(size=(2, 1, 3, 4)).astype(np.float32),
  )
  carried = {"token_BL": token_BL, "embedded_BLD": first_BLD, "embedding": shared}
  kind = activations.build(activation)
  found = jax.jit(lambda x: embedding.in_layer(w, x, carried, kind))(x_BLD)
  w = {n: np.asarray(x) for n, x in w.items()}
  for at, row in enumerate((1, 0, 4)):  # token 6 is not in the table
    c_W = first_BLD[0, at] @ w["context_DW"] / 2
    c_W = shared["gain_W"] * c_W / np.sqrt(np.mean(c_W**2) + 1e-6)
    e_W = (np.sqrt(3) * w["table_VW"][row] + c_W) / np.sqrt(2)
    gate_W = np.asarray(jax.nn.gelu(x_BLD[0, at] @ w["gate_DW"]))
    close(found[0, at], (gate_W * e_W) @ w["out_WD"])


def test_sparse_units_are_those_above_a_quantile_of_a_normal_distribution():
  h_BLF = np.random.default_rng(3).normal(2.0, 3.0, (2, 3, 999)).astype(np.float32)
  found = feedforwards.build("sparse(0.8)").sparsify(jnp.asarray(h_BLF))
  level = statistics.NormalDist().inv_cdf(0.8)
  cut = h_BLF.mean(-1, keepdims=True) + level * h_BLF.std(-1, keepdims=True)
  close(found, np.maximum(h_BLF - cut, 0))
  assert abs(np.mean(np.asarray(found) == 0) - 0.8) < 0.02


@pytest.mark.parametrize(
  "registry, spec, sentence",
  [
    (placements, "altup(streams=1)", "write 2 or more"),
    (placements, "altup(streams=2, active=2)", "from 0 to 1"),
    (placements, "altup(clip=-1.0)", "clip is -1.0"),
    (placements, "altup(mhc)", "stream of its own"),
    (placements, "by_layer((pre, altup))", "which all layers need"),
    (placements, "laurel(rank=0)", "rank is 0"),
    (feedforwards, "sparse(1.0)", "between 0 and 1"),
    (embeddings, "layer_tokens(width=0)", "at least 1"),
    (embeddings, "layer_tokens(rows=-1)", "at least 0"),
  ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(registry, spec, sentence):
  with pytest.raises(SpecError, match=sentence):
    registry.build(spec)
