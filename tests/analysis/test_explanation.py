"""Attention as an explanation: distances, other weights, importances, by NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import normal
from registries import SCORED
from scipy import stats
from scipy.spatial import distance

import transformer_jax as tj
from transformer_jax.analysis import (
  adversarial,
  divergence,
  explanation,
  token_importance,
)
from transformer_jax.analysis.adversarial import Search
from transformer_jax.analysis.explanation import Explained
from transformer_jax.data.base import Batch
from transformer_jax.models import capture
from transformer_jax.models.compatibility import form
from transformer_jax.positions import coords

DIMS = tj.Dims(V=9, D=16, H=2, F=8, L=6)
CLASSES = 3
# start, three words and end; and start, two words and end after two of padding.
TOKEN_BL = jnp.array([[0, 1, 5, 6, 7, 2], [0, 0, 1, 8, 5, 2]])
REAL_BL = (TOKEN_BL > 0).astype(jnp.int32)
PATH = "encoder/layer_0/attention"


def batch(kind="encoder"):
  """Returns two texts: an encoder classifies at the start, a decoder at the end."""
  place_B = [1, 2] if kind == "encoder" else [5, 5]
  weight_BL = jax.nn.one_hot(jnp.array(place_B), 6)
  at = coords.packed(REAL_BL)
  return Batch(TOKEN_BL, jnp.zeros_like(TOKEN_BL), weight_BL, at)


def classifier(kind="encoder", layers=1, **parts):
  arch = tj.Architecture(
    DIMS,
    **{"position": "none", "tied": False, "classes": CLASSES, f"{kind}s": layers}
    | parts,
  )
  model = tj.Transformer(arch)
  reads = batch(kind).reads[:2]
  shapes = jax.eval_shape(model.init, jax.random.key(0), *reads)["params"]
  return model, jax.tree.map(jnp.asarray, normal(shapes))


@functools.cache
def looked():
  """Returns a model of one layer, its parameters, and what it explains."""
  model, params = classifier()
  return model, params, explanation.explained(model, params, batch(), PATH, CLASSES)


def some_shares(*shape):
  return np.random.default_rng(0).dirichlet(np.ones(5), shape).astype(np.float32)


def test_a_share_whose_half_underflows_has_a_finite_divergence():
  p_2, q_2 = jnp.array([1.0, 1.2e-38]), jnp.array([1.0, 0.0])
  for function in (divergence.jensen_shannon, jax.grad(divergence.jensen_shannon)):
    assert np.isfinite(function(p_2, q_2)).all()


def test_distances_are_those_of_scipy():
  p_BV, q_BV = some_shares(2, 4)
  got_B = divergence.jensen_shannon(jnp.asarray(p_BV), jnp.asarray(q_BV))
  want_B = [distance.jensenshannon(p, q) ** 2 for p, q in zip(p_BV, q_BV, strict=True)]
  np.testing.assert_allclose(got_B, want_B, rtol=1e-4)
  events = [[i for i in range(5) if bits >> i & 1] for bits in range(2**5)]
  # The most that the probability of any event differs.
  want_B = [
    max(abs(p[some].sum() - q[some].sum()) for some in events)
    for p, q in zip(p_BV, q_BV, strict=True)
  ]
  got_B = explanation.total_variation(p_BV, q_BV)
  np.testing.assert_allclose(got_B, want_B, rtol=1e-5)


def test_the_explanation_is_the_row_of_the_classified_token():
  model, params, of = looked()
  w_BHLM = capture.run(model, params, *batch().reads)[1]["weights"][PATH]
  for text, place in enumerate((1, 2)):
    np.testing.assert_allclose(
      of.share_BM[text], np.mean(w_BHLM[text, :, place], axis=0), rtol=1e-5
    )
    np.testing.assert_array_equal(np.flatnonzero(of.read_BL[text]), [place])
  np.testing.assert_array_equal(of.word_BL, (TOKEN_BL > 4))


def test_a_pooled_output_and_an_earlier_layer_read_every_token():
  model, params = classifier(head="mean")
  pooled = explanation.explained(model, params, batch(), PATH, CLASSES)
  np.testing.assert_array_equal(pooled.read_BL, REAL_BL)
  model, params = classifier(layers=2)
  assert explanation.layers(model, params, batch()) == [
    PATH,
    "encoder/layer_1/attention",
  ]
  reads = [
    explanation.explained(model, params, batch(), path, CLASSES).read_BL.sum()
    for path in explanation.layers(model, params, batch())
  ]
  assert reads == [REAL_BL.sum(), 2]


def test_other_weights_give_the_output_of_numpy():
  model, params, of = looked()
  values = capture.run(model, params, *batch().reads, want=("value",))[1]["value"]
  w_BHLM = explanation.permuted(of, jax.random.key(1))
  want = {"output": lambda path, o: jnp.einsum("bhlm,bmhe->blhe", w_BHLM, values[PATH])}
  logits_BLV, _ = capture.run(model, params, *batch().reads, want=(), edit=want)
  want_BV = jax.nn.softmax(jnp.stack([logits_BLV[0, 1], logits_BLV[1, 2]]))
  predict = functools.partial(
    explanation.predict, model, params, batch(), PATH, CLASSES
  )
  np.testing.assert_allclose(predict(w_BHLM), want_BV, atol=1e-6)
  np.testing.assert_allclose(predict(of.weights_BHLM), of.probability_BV, atol=1e-6)
  assert float(jnp.abs(predict(w_BHLM) - of.probability_BV).max()) > 1e-3


def test_permuted_weights_are_the_same_weights_on_keys_in_one_order():
  of = looked()[2]
  orders = set()
  for number in range(20):
    w_BHLM = np.asarray(explanation.permuted(of, jax.random.key(number)))
    assert not w_BHLM[~np.asarray(of.key_BHLM)].any()
    np.testing.assert_array_equal(np.sort(w_BHLM), np.sort(of.weights_BHLM))
    row_HM = w_BHLM[0, :, 1]
    order = [
      [*np.asarray(of.weights_BHLM[0, h, 1])].index(x)
      for h in (0, 1)
      for x in row_HM[h, 1:]
    ]
    assert order[:5] == order[5:]  # both heads
    orders.add(tuple(order))
  assert len(orders) > 15


def test_equal_weights():
  of = looked()[2]
  w_BHLM = explanation.uniform(of)
  np.testing.assert_allclose(w_BHLM[0, 0, 1], [0, 0.2, 0.2, 0.2, 0.2, 0.2], rtol=1e-6)
  np.testing.assert_allclose(w_BHLM[1, 1, 2], [0, 0, 0.25, 0.25, 0.25, 0.25], rtol=1e-6)
  want = [
    distance.jensenshannon(of.share_BM[b], w_BHLM[b, 0, b + 1]) ** 2 for b in (0, 1)
  ]
  np.testing.assert_allclose(explanation.shift(of, w_BHLM), want, rtol=1e-4)


def made(values_M):
  """Returns what uniform weights over two keys more than these explain, one text."""
  M = len(values_M)
  w_BHLM, one = jnp.full((1, 1, 1, M), 1 / M), jnp.ones((1, 1), bool)

  def predict(w_BHLM):
    first = jnp.sum(w_BHLM[:, 0, 0] * jnp.asarray(values_M), axis=-1)
    return jnp.stack([first, 1 - first], axis=-1)

  return predict, Explained(predict(w_BHLM), w_BHLM, w_BHLM > 0, one, one)


def test_where_nothing_depends_on_weights_the_search_finds_the_farthest():
  """All values are equal: the farthest from equal weights is all weight on one key."""
  predict, of = made(np.full(4, 0.3))
  found = adversarial.search(predict, of, jax.random.key(0), Search(steps=400))
  farthest = distance.jensenshannon([0.25] * 4, [1, 0, 0, 0]) ** 2
  np.testing.assert_allclose(found.shift_B[0], farthest, rtol=0.01)


def test_where_the_output_is_the_weight_the_search_keeps_within_epsilon():
  """The output is the weight of one key: the others move as far as by brute force."""
  predict, of = made(np.array([1.0, 0.0, 0.0]))
  how = Search(epsilon=0.02, steps=600)
  found = adversarial.search(predict, of, jax.random.key(0), how)
  moved = explanation.total_variation(of.probability_BV, predict(found.weights_BHLM))
  assert float(moved[0]) <= 0.02
  first, second = np.meshgrid(
    np.linspace(1 / 3 - 0.02, 1 / 3 + 0.02, 21), np.linspace(0, 1, 401)
  )
  some = first + second <= 1
  grid = np.stack([first[some], second[some], 1 - (first + second)[some]], axis=-1)
  best = max(distance.jensenshannon(np.full(3, 1 / 3), w) ** 2 for w in grid)
  assert 0.97 * best < float(found.shift_B[0]) < 1.001 * best


def test_a_search_that_finds_nothing_returns_the_weights_of_the_model():
  predict, of = made(np.array([1.0, 0.0, 0.0]))
  found = adversarial.search(
    predict, of, jax.random.key(0), Search(epsilon=1e-9, steps=2)
  )
  np.testing.assert_array_equal(found.weights_BHLM, of.weights_BHLM)
  assert found.shift_B.tolist() == [0.0]


BAD = ({"epsilon": 0.0}, {"epsilon": 1.0}, {"steps": 0}, {"starts": 0})


@pytest.mark.parametrize("changes", BAD, ids=str)
def test_a_search_without_sense_is_refused(changes):
  (name,) = changes
  with pytest.raises(ValueError, match=f"^{name}=.*: write "):
    Search(**changes)


def test_without_a_token_the_text_is_the_shorter_one():
  for place, text in ((3, [0, 0, 1, 5, 7, 2]), (4, [0, 0, 1, 5, 6, 2])):
    shorter = token_importance.without(batch(), place)
    assert shorter.input_BL[0].tolist() == text
    assert shorter.weight_BL[0].tolist() == [0, 0, 1, 0, 0, 0]
    assert shorter.at.pos_BL[0].tolist() == [0, 0, 0, 1, 2, 3]


def test_leave_one_out_reads_the_shorter_text():
  model, params = classifier(position="rope")
  run = jax.jit(token_importance.leave_one_out, static_argnums=(0, 3))
  got_BL = run(model, params, batch(), CLASSES)

  def output(tokens):
    logits_BLV = model.apply({"params": params}, jnp.array([tokens]))
    return np.asarray(jax.nn.softmax(logits_BLV[0, 0]))

  whole, shorter = output([1, 5, 6, 7, 2]), output([1, 5, 7, 2])
  np.testing.assert_allclose(got_BL[0, 3], np.abs(whole - shorter).sum() / 2, atol=1e-6)


def test_gradient_times_input_is_the_slope_toward_an_average_token():
  model, params = classifier()
  run = jax.jit(token_importance.gradient_times_input, static_argnums=(0, 3))
  got_BL = run(model, params, batch(), CLASSES)
  step, (row, place) = 1e-2, (0, 3)
  likeliest = int(looked()[2].probability_BV[row].argmax())

  def output(factor):
    def grow(path, x_BLD):
      if path != "encoder/embedding":
        return x_BLD
      mean_D = x_BLD[row, 1:].mean(axis=0)
      return x_BLD.at[row, place].add(factor * (x_BLD[row, place] - mean_D))

    logits_BLV = capture.run(
      model, params, *batch().reads, want=(), edit={"state": grow}
    )[0]
    return float(jax.nn.softmax(logits_BLV[row, 1])[likeliest])

  slope = (output(step) - output(-step)) / (2 * step)
  np.testing.assert_allclose(got_BL[row, place], abs(slope), rtol=0.02)


def test_kendall_reads_words_alone():
  x_BL, y_BL = np.random.default_rng(0).normal(size=(2, 3, 8))
  word_BL = np.arange(8) < np.array([[8], [5], [1]])
  tau_B, p_B = token_importance.kendall(x_BL, y_BL, word_BL)
  assert np.isnan(tau_B[2])
  for b, n in ((0, 8), (1, 5)):
    pairs = [(i, j) for i in range(n) for j in range(i)]
    signs = [
      np.sign((x_BL[b, i] - x_BL[b, j]) * (y_BL[b, i] - y_BL[b, j])) for i, j in pairs
    ]
    np.testing.assert_allclose(tau_B[b], np.mean(signs), rtol=1e-6)
    assert p_B[b] == stats.kendalltau(x_BL[b, :n], y_BL[b, :n]).pvalue


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("name", sorted(SCORED))
def test_every_variant_is_explained_or_refused_in_one_sentence(name, kind):
  """The contract: weights put back change nothing; others keep keys and sums."""
  try:
    variant = tj.Architecture(DIMS, "none", attention=name, encoders=1).attention
    form(variant, kind)
  except ValueError as error:  # it looks one way alone, and its sentence says so
    assert str(error)
    return
  model, params = classifier(kind, attention=name)
  path = f"{kind}/layer_0/attention"
  of = explanation.explained(model, params, batch(kind), path, CLASSES)
  predict = functools.partial(
    explanation.predict, model, params, batch(kind), path, CLASSES
  )
  np.testing.assert_allclose(predict(of.weights_BHLM), of.probability_BV, atol=1e-5)
  try:
    explanation.check_shares(of.weights_BHLM, path)
  except ValueError as error:
    assert "weights below zero" in str(error)
    return
  for w_BHLM in (explanation.uniform(of), explanation.permuted(of, jax.random.key(0))):
    assert not np.asarray(w_BHLM)[~np.asarray(of.key_BHLM)].any()
    np.testing.assert_allclose(
      w_BHLM.sum(-1, keepdims=True), of.mass_BHL1, rtol=1e-4, atol=1e-6
    )
  np.testing.assert_allclose(of.share_BM.sum(-1), 1, rtol=1e-4)
  other = dataclasses.replace(of, weights_BHLM=explanation.uniform(of))
  assert np.isfinite(explanation.shift(of, other.weights_BHLM)).all()
