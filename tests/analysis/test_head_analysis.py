"""Heads over a data set: parts, importance, pruning, measures of evaluation."""

import dataclasses
import functools

import head_oracles as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import normal

import transformer_jax as tj
from transformer_jax.analysis import (
  HeadAnalysis,
  HeadStatistic,
  head_batch,
  head_similarities,
  head_statistics,
)
from transformer_jax.analysis.head_measure import HeadStatisticMeasure
from transformer_jax.analysis.head_statistic import Entropy
from transformer_jax.data.base import Batch
from transformer_jax.evaluation import measure_probe
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.evaluation.measures import Outputs, measures, name_of
from transformer_jax.models import capture
from transformer_jax.models.param_tree import flat, nested
from transformer_jax.models.recurrent.model import Recurrents
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError
from transformer_jax.training.loss import cross_entropy
from transformer_jax.training.objectives import objective_of

DIMS = tj.Dims(V=9, D=8, H=2, F=8, L=8)
TEXTS, L = 7, 8
PATHS = ["decoder/layer_0/attention", "decoder/layer_1/attention"]
TRACED = []


@dataclasses.dataclass(frozen=True)
class Traced(HeadStatistic):
  """Statistic that notes the shapes it is compiled for."""

  def score(self, layer):
    TRACED.append(layer.weight_BHLM.shape)
    return layer.mean(jnp.max(layer.weight_BHLM, axis=-1))


@dataclasses.dataclass(frozen=True)
class WrongShape(HeadStatistic):
  """Statistic of a user without an axis of heads."""

  def score(self, layer):
    return jnp.zeros(len(layer.weight_BHLM))


@functools.cache
def model_and_params(core="blockwise"):
  model = tj.Transformer(tj.Architecture(DIMS, "alibi", decoders=2, core=core))
  token_BL = jnp.zeros((1, L), int)
  shapes = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  return model, jax.tree.map(jnp.asarray, normal(shapes, scale=0.6))


@functools.cache
def batch():
  token_BL = jnp.asarray(np.random.default_rng(0).integers(0, 9, (TEXTS, L + 1)))
  weight_BL = jnp.ones((TEXTS, L)).at[:, :3].set(0)
  at = coords.consecutive(1, L)
  return Batch(token_BL[:, :-1], token_BL[:, 1:], weight_BL, at)


def loss_of(params, part):
  logits_BLV = model_and_params("dense")[0].apply({"params": params}, *part.reads)
  loss_BL = cross_entropy(logits_BLV, part.target_BL)
  return (loss_BL * part.weight_BL).sum(1) / part.weight_BL.sum(1)


def test_parts_give_what_the_whole_gives_with_a_program_for_each_shape():
  model, params = model_and_params()
  chosen = {"entropy": Entropy(), "traced": Traced()}
  TRACED.clear()
  run = HeadAnalysis(model, batch(), batch_size=3).statistics(chosen)
  found = run(params)
  half = jax.tree.map(lambda x: x / 2, params)
  assert not np.allclose(run(half).mean("entropy")[PATHS[0]], 0)
  # Two shapes, 3 texts and the last one; two layers, each with an even head: two seeds
  # compile no more, and no program has all texts.
  assert len(TRACED) == 8 and {shape[0] for shape in TRACED} == {3, 1}
  whole = HeadAnalysis(model, batch(), batch_size=TEXTS).statistics(chosen)(params)
  for name in chosen:
    for path, x_EH in whole.value_EH[name].items():
      assert x_EH.shape == (TEXTS, 1 if path.startswith("even") else 2)
      np.testing.assert_allclose(found.value_EH[name][path], x_EH, rtol=1e-5)


def test_results_are_numbers_of_texts_and_never_weights():
  model, params = model_and_params()
  vocabulary = head_batch.of_pieces(list("abcdefgh "))
  every = {x: head_statistics.build(x) for x in head_statistics}
  analysis = HeadAnalysis(model, batch(), vocabulary, batch_size=2)
  found = analysis.statistics(every)(params).value_EH
  assert max(x.size for x in jax.tree.leaves(found)) == TEXTS * 2


def test_positional_share_needs_another_text():
  model, params = model_and_params()
  one = jax.tree.map(lambda x: x[:1], batch())
  analysis = HeadAnalysis(model, one)
  assert (
    analysis.missing(head_statistics.build("positional")) == "there is one text only"
  )
  assert analysis.missing(head_statistics.build("rare"))  # no vocabulary is given
  assert (
    analysis.statistics({"x": head_statistics.build("rare")})(params).value_EH == {}
  )


def test_a_head_without_importance_and_one_with():
  model, params = model_and_params()
  analysis = HeadAnalysis(model, batch(), batch_size=4)
  found = analysis.importance()(params)
  weights = flat(params)
  [name] = [x for x in weights if x.startswith(f"{PATHS[1]}/out")]
  for head in range(2):
    out_HED = weights[name].at[head].set(0)
    without_B = loss_of(nested(weights | {name: out_HED}), batch())
    lost_B = without_B - loss_of(params, batch())
    np.testing.assert_allclose(
      found.value_EH["ablation"][PATHS[1]][:, head], lost_B, rtol=1e-3, atol=1e-5
    )
    step = 1e-2

    def at(size, head=head):
      out_HED = weights[name].at[head].multiply(1 + size)
      return loss_of(nested(weights | {name: out_HED}), batch())

    slope_B = np.abs((at(step) - at(-step)) / (2 * step))
    np.testing.assert_allclose(
      found.value_EH["gradient"][PATHS[1]][:, head], slope_B, rtol=2e-2, atol=1e-4
    )


def test_pruning_begins_with_the_whole_model_and_ends_without_heads():
  model, params = model_and_params()
  analysis = HeadAnalysis(model, batch(), batch_size=4)
  importance_H = np.array([0.3, 0.1, 0.2, 0.4])
  found = analysis.pruning(random_orders=2)(params, importance_H)
  np.testing.assert_allclose(found["importance"][:, 0], loss_of(params, batch()), 1e-4)
  np.testing.assert_allclose(found["random"][:, -1], found["importance"][:, -1], 1e-5)
  lost = analysis.importance()(params).value_EH["ablation"][PATHS[0]][:, 1]
  first = found["importance"][:, 1] - found["importance"][:, 0]
  np.testing.assert_allclose(first, lost, atol=1e-5)


@functools.cache
def plain():
  """Returns the heads of both layers on all texts, for oracles, and their outputs."""
  model, params = model_and_params("dense")
  want = ("weights", "mask", "output")
  _, found = capture.run(model, params, *batch().reads, want=want)
  w_BHLM, mask = (
    np.concatenate([np.asarray(found[name][path]) for path in PATHS], axis=1)
    if name == "weights"
    else np.asarray(found[name][PATHS[0]])
    for name in ("weights", "mask")
  )
  ranks, token_BL = np.arange(L)[None], np.asarray(batch().input_BL)
  layer = oracle.Layer(w_BHLM, mask, ranks, ranks, token_BL, token_BL, False)
  outputs = [np.asarray(found["output"][path]) for path in PATHS]
  return layer, np.concatenate(outputs, axis=2)


def test_similarities_are_means_over_texts():
  model, params = model_and_params()
  chosen = {x: head_similarities.build(x) for x in head_similarities}
  found = HeadAnalysis(model, batch(), batch_size=3).similarities(chosen)(params)
  layer, out_BLHE = plain()
  cka_BHH, certain_BHH = oracle.cka(layer, out_BLHE)
  assert certain_BHH.all() and np.isfinite(cka_BHH).all()
  wanted = {"jensen_shannon": oracle.jensen_shannon(layer, {}), "cka": cka_BHH}
  assert {*wanted} == {*chosen}
  for name, x_BHH in wanted.items():
    mean_HH, error_HH = found[name]["decoder/attention"]
    assert mean_HH.shape == (4, 4)
    wanted_HH, spread_HH = oracle.over_texts(x_BHH)
    np.testing.assert_allclose(mean_HH, wanted_HH, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(error_HH, spread_HH, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("batch_size", [1, 3, TEXTS])
def test_positional_share_is_beside_all_texts(batch_size):
  """However many are in memory at once; those of the last part are fewer, too."""
  model, params = model_and_params()
  chosen = {"positional": head_statistics.build("positional")}
  analysis = HeadAnalysis(model, batch(), batch_size=batch_size)
  found = analysis.statistics(chosen)(params).value_EH["positional"]
  every = np.concatenate([found[path] for path in PATHS], axis=1)
  wanted = oracle.positional(plain()[0], {})
  assert 0.1 < wanted.std() / wanted.mean() or wanted.max() < 0.999
  np.testing.assert_allclose(every, wanted, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(found[f"even/{PATHS[0]}"], 1, rtol=1e-5)


@pytest.mark.slow
def test_importance_in_recurrent_models():
  arch = tj.Architecture(DIMS, "none", attention="additive", encoders=1, decoders=1)
  model = Recurrents("gru", "bahdanau")(arch)
  token_BL, source_BM = jnp.array([[1, 2]] * 2), jnp.array([[1, 2, 3], [3, 4, 5]])
  ones_BL = jnp.ones((2, 2))
  at, source_at = coords.consecutive(1, 2), coords.padded(source_BM > 0)
  part = Batch(token_BL, token_BL, ones_BL, at, source_BM, source_at)
  shapes = jax.eval_shape(model.init, jax.random.key(0), *part.reads)["params"]
  params = jax.tree.map(jnp.asarray, normal(shapes))
  found = HeadAnalysis(model, part).importance()(params)
  for name in ("ablation", "gradient"):
    x_EH = found.value_EH[name]["decoder/cross"]
    assert x_EH.shape[0] == 2 and np.abs(x_EH).max() > 1e-6


def outputs():
  model, params = model_and_params("dense")
  x, real_BL = batch(), jnp.ones((TEXTS, L), bool)
  logits_BLV = model.apply({"params": params}, *x.reads)
  targets = x.target_BL, x.weight_BL, real_BL
  return Outputs(logits_BLV, *targets, model, params, x.reads)


def test_a_statistic_is_a_measure_of_evaluation():
  model, params = model_and_params("dense")
  chosen = {"entropy": Entropy()}
  found = HeadAnalysis(model, batch()).statistics(chosen)(params).value_EH["entropy"]
  every = np.concatenate([found[path] for path in PATHS], axis=1)
  measure = measures.build("head_statistic('entropy')")
  np.testing.assert_allclose(measure.score(outputs()), every.mean(1), rtol=1e-5)
  largest = HeadStatisticMeasure("entropy", over="max")
  np.testing.assert_allclose(largest.score(outputs()), every.max(1), rtol=1e-5)
  assert name_of(largest) == "head_statistic(statistic='entropy', over='max')"
  assert measure.bounds == (0.0, None) and name_of(measures.build("accuracy")) == (
    "accuracy"
  )


def test_texts_without_a_number_are_left_out_of_a_score():
  task = tj.tasks.build("parity")
  dims = tj.Dims(V=task.vocabulary, D=8, H=2, F=8, L=16)
  model = tj.Transformer(tj.Architecture(dims, "rope", decoders=1))
  specs = [f"head_statistic('{x}')" for x in ("same", "induction(match=3)", "next")]
  chosen = tuple(map(measures.build, specs))
  evaluator = Evaluator(model, task, 16, 8, measures=chosen)
  params = model.init(jax.random.key(0), jnp.zeros((1, 8), int))["params"]
  stacked = jax.tree.map(lambda x: x[None], params)
  rows, examples = evaluator.run_examples(stacked, (), (8,))
  induction, following, same = sorted(rows, key=lambda row: row["measure"])
  assert 0 < same["value"] < 1
  single_E = examples.value_SE[8, induction["measure"], "mean"][0]
  assert 0 < np.isnan(single_E).sum() < 16
  assert induction["value"] == pytest.approx(np.nanmean(single_E))
  assert following["value"] is None
  assert following["reason"] == "no example has a number of this measure"


def test_a_statistic_is_a_measure_of_numbers_too():
  number = objective_of(tj.tasks.build("time_series('us_births')")).targets
  assert number == "numbers"
  measure_probe.check_targets(measures.build("head_statistic('entropy')"), number)


def test_counts_are_of_the_inputs_however_few_the_outputs_are():
  """Tokens of a classified text are more than its classes."""
  model, params = model_and_params("dense")
  token_BL, count_V = batch().input_BL, np.zeros(9)
  np.add.at(count_V, np.asarray(token_BL).ravel(), 1)
  few = dataclasses.replace(outputs(), logits_BLV=jnp.zeros((TEXTS, 1, 2)))
  found = measures.build("head_statistic('rare')").score(few)
  wanted = oracle.rare(plain()[0], {"count": count_V})
  np.testing.assert_allclose(found, wanted.mean(1), rtol=1e-3)


@pytest.mark.parametrize(
  ("make", "sentence"),
  [
    (lambda: measures.build("head_statistic('entropie')"), "Did you mean 'entropy'"),
    (
      lambda: measures.build("head_statistic('positional')"),
      "compares a text with all others; use python -m",
    ),
    (
      lambda: measures.build("head_statistic('rare')").score(
        dataclasses.replace(outputs(), reads=(jnp.zeros((TEXTS, L, 1)),))
      ),
      "the inputs of this task are no tokens",
    ),
    (
      lambda: measures.build("head_statistic('delimiter')"),
      "use python -m",
    ),
    (lambda: HeadStatisticMeasure("entropy", over="sum"), "write mean, max, min"),
    (
      lambda: HeadStatisticMeasure("entropy", layers="cross").score(outputs()),
      "no layer's path ends so; it has decoder/layer_0/attention",
    ),
    (lambda: head_statistics.build("induction(match=0)"), "match"),
    (
      lambda: HeadAnalysis(model_and_params()[0], batch()).statistics(
        {"wrong": WrongShape()}
      )(model_and_params()[1]),
      r"WrongShape.score returns shape \(7,\) and it must be \(7, 2\)",
    ),
  ],
)
def test_bad_input_is_one_sentence(make, sentence):
  with pytest.raises(SpecError, match=sentence):
    make()
