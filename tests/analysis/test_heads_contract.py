"""The contract of statistics of heads: every one, over every encoding and variant.

Models of one layer run operation by operation; a statistic is compiled once for all of
them. Rows are packed, padded on the left and whole. The definition is a loop in NumPy.
"""

import dataclasses
import functools

import head_oracles as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import normal
from registries import SCORED

import transformer_jax as tj
from transformer_jax.analysis import HeadStatistic, head_similarities, head_statistics
from transformer_jax.analysis.head_analysis import scores
from transformer_jax.analysis.head_batch import of_captured, of_pieces
from transformer_jax.models import capture
from transformer_jax.models.recurrent.model import Recurrence, Recurrents
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords

DIMS = tj.Dims(V=7, D=16, H=4, K=8, F=8, L=8)
SLICED = tj.Dims(V=7, D=32, H=4, F=8, L=8)  # heads are slices of a token
TOKEN_BL = jnp.array([[1, 2, 1, 2, 1, 2], [0, 0, 5, 6, 5, 6], [3, 1, 2, 3, 1, 2]])
SOURCE_BM = jnp.array([[2, 1, 3, 2, 0], [1, 2, 0, 0, 0], [3, 3, 1, 2, 6]])
ROWS = coords.packed(
  jnp.array([[1, 1, 1, 2, 2, 2], [0, 0, 3, 3, 3, 3], [1, 1, 1, 1, 1, 1]])
)
SOURCE = coords.padded(jnp.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1] * 5]))
VOCABULARY = dataclasses.replace(
  of_pieces(["<s>", "a", ",", "b", " ", "c", "!"], special=("<s>",)),
  count_V=jnp.array([9.0, 5, 3, 3, 1, 2, 4]),
)
KINDS = {"delimiter": [1, 0, 1, 0, 1, 0, 1], "count": [9, 5, 3, 3, 1, 2, 4]}
CORE_WANTS = ("weights", "mask", "output", "query_at", "key_at")
PARTS = [("position", name) for name in sorted(tj.positions.positions)]
PARTS += [("attention", name) for name in sorted(SCORED)]


@dataclasses.dataclass(frozen=True)
class Even(HeadStatistic):
  """Statistic of a user: how even weights are."""

  def score(self, layer):
    return layer.mean(1 - jnp.sum(layer.weight_BHLM**2, axis=-1))


@functools.partial(jax.jit, static_argnums=0)
def of_all(names, layer):
  """Returns all statistics and similarities; one program for each kind of shapes."""
  found = {name: scores(head_statistics.build(name), layer) for name in names}
  pairs = {x: head_similarities.build(x).score(layer) for x in head_similarities}
  return found, pairs


def captured(model, *given):
  """Returns what a core computes, with NumPy's operations."""
  run = functools.partial(capture.run, model, want=CORE_WANTS)
  found = evaluate(lambda *given: run(*given)[1], *given)
  return jax.tree.map(jnp.array, found)


def random_params(model, reads):
  shapes = jax.eval_shape(model.init, jax.random.key(0), *reads)["params"]
  return jax.tree.map(jnp.asarray, normal(shapes))


def compare(found, reads, q_at, k_at, q_token_BL, k_token_BM, path):
  layer = of_captured(found, reads, VOCABULARY)[path]
  arrays = found["weights"][path], found["mask"][path]
  ranks = np.asarray(q_at.order_BL), np.asarray(k_at.order_BL)
  tokens = np.asarray(q_token_BL), np.asarray(k_token_BM)
  plain = oracle.Layer(*arrays, *ranks, *tokens, path.endswith("/cross"))
  names = tuple(head_statistics)
  of_heads, of_pairs = of_all(names, layer)
  for name in names:
    wanted = oracle.STATISTICS[name](plain, KINDS)
    np.testing.assert_allclose(of_heads[name], wanted, 1e-3, 1e-5, err_msg=name)
  wanted = oracle.jensen_shannon(plain, KINDS)
  np.testing.assert_allclose(of_pairs["jensen_shannon"], wanted, 1e-3, 1e-5)
  compare_cka(of_pairs["cka"], plain, found["output"][path])
  return of_heads


def compare_cka(found_BHH, plain, out_BLHE):
  """Compares numbers, and where there is none, in all pairs whose sizes are not 0."""
  wanted_BHH, certain_BHH = oracle.cka(plain, np.asarray(out_BLHE))
  found_BHH = np.asarray(found_BHH)[certain_BHH]
  np.testing.assert_allclose(found_BHH, wanted_BHH[certain_BHH], 2e-2, 2e-3)
  texts = np.sum(plain.q_rank >= 0, axis=1) > 3
  assert np.mean(certain_BHH[texts] & np.isfinite(wanted_BHH[texts])) > 0.25


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_statistics_are_those_of_loops(name, part):
  parts = {"position": "none", "core": "dense", name: part}
  try:
    arch = tj.Architecture(DIMS, **parts, decoders=1)
  except ValueError as error:
    assert "heads are slices of a token here" in str(error)
    arch = tj.Architecture(SLICED, **parts, decoders=1)
  at = ROWS.replace(data={name: TOKEN_BL for name in arch.position.ids})
  model, reads = tj.Transformer(arch), (TOKEN_BL, at)
  params = random_params(model, reads)
  found = captured(model, params, *reads)
  path = "decoder/layer_0/attention"
  of_heads = compare(found, reads, ROWS, ROWS, TOKEN_BL, TOKEN_BL, path)
  assert np.isnan(of_heads["next"]).all()  # no decoder sees the next token
  assert np.isfinite(of_heads["entropy"]).all()


@pytest.mark.parametrize("position", ["t5", "rope", "shaw", "sinusoidal"])
def test_encoders_and_cross_attention(position):
  arch = tj.Architecture(DIMS, position, encoders=1, decoders=1)
  model, reads = tj.Transformer(arch), (TOKEN_BL, ROWS, SOURCE_BM, SOURCE)
  params = random_params(model, reads)
  found = captured(model, params, *reads)
  sides = {"q": (ROWS, TOKEN_BL), "k": (SOURCE, SOURCE_BM)}
  for path, one, other in (
    ("encoder/layer_0/attention", "k", "k"),
    ("decoder/layer_0/attention", "q", "q"),
    ("decoder/layer_0/cross", "q", "k"),
  ):
    (q_at, q_token_BL), (k_at, k_token_BM) = sides[one], sides[other]
    of_heads = compare(found, reads, q_at, k_at, q_token_BL, k_token_BM, path)
    assert np.isfinite(of_heads["next"]).any() == (path != "decoder/layer_0/attention")


def test_recurrent_cross_attention():
  arch = tj.Architecture(DIMS, "none", attention="additive", encoders=1, decoders=1)
  model = Recurrents("gru", "bahdanau")(arch)
  assert isinstance(model.arch, Recurrence)
  at = coords.padded(jnp.ones_like(TOKEN_BL))
  reads = TOKEN_BL, at, SOURCE_BM, SOURCE
  params = random_params(model, reads)
  want = ("weights", "mask", "output")
  _, found = capture.run(model, params, *reads, want=want)
  compare(found, reads, at, SOURCE, TOKEN_BL, SOURCE_BM, "decoder/cross")


@pytest.mark.parametrize("lost", [slice(None), 1, (1, slice(None), 2)])
def test_an_alignment_that_is_lost_is_seen(lost):
  """Of all texts, of one that is packed or padded, or of one head of that."""
  layer = padded_layer()
  found_BHH = np.array(head_similarities.build("cka").score(layer))
  compare_cka(found_BHH, plain_of(layer), layer.out_BLHE)
  found_BHH[lost] = np.nan
  with pytest.raises(AssertionError):
    compare_cka(found_BHH, plain_of(layer), layer.out_BLHE)


@pytest.mark.parametrize("name", ["duplicate", "induction"])
def test_longer_matches(name):
  layer = padded_layer()
  plain = plain_of(layer)
  for match in (1, 2, 3):
    found = head_statistics.build(f"{name}(match={match})").score(layer)
    wanted = oracle.STATISTICS[name](plain, KINDS, match)
    np.testing.assert_allclose(found, wanted, 1e-4, err_msg=match)
  assert np.isfinite(wanted).any()


def test_a_statistic_of_a_user_and_an_even_head():
  layer = padded_layer()
  found = head_statistics.build("test_heads_contract:Even").score(layer)
  assert found.shape == (3, 4) and np.isfinite(found).all()
  even = head_statistics.build("entropy").score(layer.evenly())
  sees_BL = np.asarray(layer.visible_BLM).sum(-1)
  wanted = [np.log(x[x > 1]).mean() for x in sees_BL]
  np.testing.assert_allclose(even[:, 0], wanted, 1e-5)


def test_a_perfect_head_of_each_role_has_a_share_of_one():
  L, token_L = 6, np.array([1, 2, 3, 1, 2, 3])
  causal_LM = np.tri(L, dtype=bool)
  at_LM = np.arange(L)[:, None] - np.arange(L)
  roles = {"previous": at_LM == 1, "same": at_LM == 0, "first": np.arange(L) == 0}
  roles |= {"induction": at_LM == 2, "duplicate": at_LM == 3}
  for name, wanted in roles.items():
    keys_LM = np.where(causal_LM & wanted, 1.0, 0)
    keys_LM = np.where(keys_LM.any(1, keepdims=True), keys_LM, causal_LM)
    w_BHLM = jnp.array((keys_LM / keys_LM.sum(1, keepdims=True))[None, None])
    rank_1L, token_1L = jnp.arange(L)[None], jnp.array(token_L)[None]
    found = {
      "weights": {"decoder/layer_0/attention": w_BHLM},
      "mask": {"decoder/layer_0/attention": jnp.array(causal_LM)[None]},
      "output": {"decoder/layer_0/attention": jnp.zeros((1, L, 1, 2))},
    }
    [layer] = of_captured(found, (token_1L, None)).values()
    assert rank_1L.shape == layer.query_BL.shape
    assert head_statistics.build(name).score(layer).tolist() == [[1.0]], name


@functools.cache
def padded_layer():
  arch = tj.Architecture(DIMS, "rope", decoders=1, core="dense")
  model, reads = tj.Transformer(arch), (TOKEN_BL, ROWS)
  _, found = capture.run(model, random_params(model, reads), *reads, want=CORE_WANTS)
  [layer] = of_captured(found, reads, VOCABULARY).values()
  return layer


def plain_of(layer):
  ranks = np.asarray(layer.query_BL), np.asarray(layer.key_BM)
  tokens = np.asarray(layer.query_token_BL), np.asarray(layer.key_token_BM)
  return oracle.Layer(layer.weight_BHLM, layer.visible_BLM, *ranks, *tokens, False)
