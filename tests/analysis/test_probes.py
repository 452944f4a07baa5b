"""Probes on states that hold a label, and on states that do not."""

import dataclasses
import functools
import itertools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import transformer_jax as tj
from transformer_jax.analysis.probes import (
  ProbeError,
  probe_labels,
  probe_training,
  probes,
)
from transformer_jax.analysis.probes import study as study_file
from transformer_jax.analysis.probes.code_length import ends_of, online_code, sent
from transformer_jax.analysis.probes.control import control_labels
from transformer_jax.analysis.probes.predictions import Classes, TokenSet
from transformer_jax.analysis.probes.probe_samples import choose, states_of
from transformer_jax.analysis.probes.probe_training import (
  FeatureScale,
  ProbeBudget,
  ProbeTrainer,
)
from transformer_jax.analysis.probes.study import ProbeStudy
from transformer_jax.data.base import Batch
from transformer_jax.evaluation import activations
from transformer_jax.positions import coords

KEY = jax.random.key(0)
BUDGET = ProbeBudget(steps=400, batch_size=64, learning_rates=(0.05,), rounds=10)
PROBES = ["linear", "mlp(hidden=16)"]


@functools.cache
def states(features=6, classes=4, samples=800):
  """Returns x_PID, label_TI: layer 0 holds label 0 linearly, layer 1 is noise."""
  random = np.random.default_rng(0)
  label_TI = random.integers(0, classes, (2, samples))
  mean_CD = 3 * random.normal(size=(classes, features))
  noise_PID = random.normal(size=(2, samples, features))
  noise_PID[0] = 0.3 * noise_PID[0] + mean_CD[label_TI[0]]
  return noise_PID.astype(np.float32), label_TI.astype(np.int32)


def fitted(spec, prediction=None, budget=BUDGET, count=400):
  x_PID, label_TI = states()
  trainer = ProbeTrainer(probes.build(spec), prediction or Classes(4), budget)
  half = x_PID[:, 400:600], label_TI[:, 400:600]
  return trainer, trainer.fit(KEY, x_PID[:, :400], label_TI[:, :400], count, *half)


def primitives(jaxpr):
  """Yields the names of primitives, those of inner programs included."""
  for equation in jaxpr.eqns:
    yield equation.primitive.name
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from primitives(inner)


def test_no_random_numbers_are_drawn_in_the_program():
  """XLA's CPU compiler made guesses of all probes of such a program, now and then."""
  x_PID, label_TI = states()
  trainer = ProbeTrainer(probes.build("linear"), Classes(4), BUDGET)
  params = trainer.probe.init(KEY, x_PID.shape[2], 4)
  arrays = params, trainer.batches(KEY, 400), x_PID, label_TI, x_PID, label_TI
  made = jax.make_jaxpr(probe_training._fit, static_argnums=0)(trainer, *arrays)
  names = {*primitives(made.jaxpr)}
  assert "dot_general" in names
  assert not {name for name in names if "random" in name or "threefry" in name}


def test_every_registered_probe_is_in_the_contract():
  assert {type(probes.build(spec)) for spec in PROBES} == {*probes.values()}


@pytest.mark.parametrize("spec", PROBES)
def test_contract_of_every_probe(spec):
  """It guesses at first, reads what is there, and nothing from noise."""
  probe = probes.build(spec)
  first = probe.init(KEY, features=6, outputs=4)
  logits_IC = probe.apply(first, jax.random.normal(KEY, (3, 6)))
  np.testing.assert_array_equal(logits_IC, np.broadcast_to(logits_IC[:, :1], (3, 4)))
  trainer, params = fitted(spec)
  x_PID, label_TI = states()
  score_PT = trainer.scores(params, x_PID[:, 600:], label_TI[:, 600:]).mean(axis=2)
  assert score_PT[0, 0] == 1.0
  # Labels of control and layers of noise: one in four, within three deviations.
  assert np.abs(score_PT.ravel()[1:] - 0.25).max() < 3 * (0.25 * 0.75 / 200) ** 0.5


def test_a_linear_probe_reaches_the_optimum_of_logistic_regression():
  random = np.random.default_rng(1)
  x_ID = random.normal(size=(300, 3))
  logits_IC = x_ID @ random.normal(size=(3, 3))
  label_I = np.argmax(logits_IC + random.gumbel(size=(300, 3)), axis=1)

  def loss(flat):
    weight_DC, bias_C = flat[:9].reshape(3, 3), flat[9:]
    logits_IC = x_ID @ weight_DC + bias_C
    log_IC = logits_IC - scipy.special.logsumexp(logits_IC, axis=1, keepdims=True)
    return -log_IC[np.arange(300), label_I].mean()

  least = scipy.optimize.minimize(loss, np.zeros(12)).fun
  budget = ProbeBudget(steps=2000, batch_size=300, learning_rates=(0.05,), rounds=10)
  trainer = ProbeTrainer(probes.build("linear"), Classes(3), budget)
  data = jnp.float32(x_ID)[None], jnp.int32(label_I)[None]
  nats_PTI = trainer.nats(trainer.fit(KEY, *data, 300, *data), *data)
  assert least <= nats_PTI.mean() + 1e-6 and nats_PTI.mean() < least + 2e-3


def test_a_hidden_layer_reads_what_is_not_linear():
  x_ID = np.random.default_rng(2).choice([-1.0, 1.0], (800, 2)).astype(np.float32)
  label_I = (x_ID[:, 0] * x_ID[:, 1] > 0).astype(np.int32)
  data = x_ID[None], label_I[None]
  scores = []
  for spec in PROBES:
    trainer = ProbeTrainer(probes.build(spec), Classes(2), BUDGET)
    params = trainer.fit(KEY, *data, 800, *data)
    scores.append(trainer.scores(params, *data).mean())
  assert scores[0] < 0.8 and scores[1] == 1.0


def test_what_is_faint_is_read_at_a_small_rate():
  """At a large one the held-out loss is never below a guess, and the guess is kept."""
  random = np.random.default_rng(0)
  label_TI = random.integers(0, 32, (1, 4000)).astype(np.int32)
  x_PID = random.normal(size=(1, 4000, 64)).astype(np.float32)
  x_PID[0, :, 0] += 0.2 * (label_TI[0] - 15.5)
  train, held, test = (slice(0, 2000), slice(2000, 3000), slice(3000, None))

  def loss(*rates):
    budget = ProbeBudget(400, batch_size=64, learning_rates=rates)
    trainer = ProbeTrainer(probes.build("linear"), Classes(32), budget)
    parts = x_PID[:, train], label_TI[:, train], 2000, x_PID[:, held], label_TI[:, held]
    params = trainer.fit(KEY, *parts)
    return trainer.nats(params, x_PID[:, test], label_TI[:, test]).mean()

  guess = np.log(32)
  assert loss(0.3) == pytest.approx(guess)
  assert loss(0.3, 0.001) < guess - 0.1


def test_samples_past_the_count_are_not_read():
  trainer, params = fitted("linear", count=100)
  x_PID, label_TI = states()
  x_PID = np.where(np.arange(800)[:, None] < 100, x_PID, 1e3).astype(np.float32)
  held = states()[0][:, 400:600], label_TI[:, 400:600]
  same = trainer.fit(KEY, x_PID[:, :400], label_TI[:, :400], 100, *held)
  assert jax.tree.all(jax.tree.map(np.array_equal, params, same))


def test_code_of_labels_is_the_sum_over_portions():
  trainer, _ = fitted("linear")
  x_PID, label_TI = states()
  held = x_PID[:, 600:], label_TI[:, 600:]
  code = online_code(trainer, KEY, x_PID[:, :600], label_TI[:, :600], *held)
  ends = [1, 2, 5, 10, 19, 38, 75, 150, 300, 600]  # 0.1% rounds to 1, as 0.2% does
  assert ends_of(600) == ends and code.uniform == 1200
  bits_PT = np.full((2, 2), 2.0)  # the first portion: two bits of four classes
  order_I = sent(KEY, 600)
  assert sorted(order_I) == [*range(600)] and order_I[:10].max() > 100
  for start, stop in zip(ends, ends[1:], strict=False):
    data = x_PID[:, order_I], label_TI[:, order_I]
    nats_PTI = trainer.nats(trainer.fit(KEY, *data, start, *held), *data)
    for n in range(start, stop):
      bits_PT += nats_PTI[:, :, n] / np.log(2)
  np.testing.assert_allclose(code.bits_PT, bits_PT, rtol=1e-4)
  # Noise costs what the uniform code does; labels that are in the states, far less.
  noise = code.compression_PT.ravel()[1:]
  assert (noise < 1.02).all() and (noise > 0.9).all()
  assert code.compression_PT[0, 0] > 8


def test_labels_are_sent_at_random_also_where_samples_are_in_order():
  """Sorted by text, or by class as here, the first portions have labels of one kind."""
  trainer, _ = fitted("linear")
  x_PID, label_TI = states()
  held = x_PID[:1, 600:], label_TI[:1, 600:]
  order_I = np.argsort(label_TI[0, :600], kind="stable")
  data = x_PID[:1, order_I], label_TI[:1, order_I]
  assert online_code(trainer, KEY, *data, *held).compression_PT[0, 0] > 8


def test_labels_of_sets_are_as_many_as_there_are_sets():
  """A probe of shares alone gains nothing over the code of equally likely sets."""
  sets = [len({*pair}) for pair in itertools.product(range(5), repeat=2)]
  assert TokenSet(5, size=2).bits == np.log2(sets.count(1) + sets.count(2) / 2)
  assert TokenSet(2, size=4).bits == np.log2(3)
  assert TokenSet(256, size=4).bits == pytest.approx(27.404, abs=1e-3)
  label_IA = np.random.default_rng(9).integers(0, 256, (2000, 4))
  share_C = np.clip(TokenSet(256, 4).shares(label_IA), 1e-9, None)
  logits_IC = np.broadcast_to(np.log(share_C / (1 - share_C)), (2000, 256))
  nats_I = TokenSet(256, 4).loss(jnp.array(logits_IC), jnp.array(label_IA))
  assert 0.85 < TokenSet(256, 4).bits / (nats_I.mean() / np.log(2)) < 1


@pytest.mark.parametrize("steps", [1, 7, 20, 39, 45])
def test_a_probe_takes_as_many_steps_as_are_asked(steps):
  """Updates by a loop of Python; held-out loss falls, so the last ones are kept."""
  x_PID, label_TI = states()
  budget = ProbeBudget(steps, batch_size=8, learning_rates=(1e-3,), rounds=20)
  trainer = ProbeTrainer(probes.build("linear"), Classes(4), budget)
  data = x_PID[:1], label_TI[:1]
  found = trainer.fit(KEY, *data, 800, *data)
  params, chosen_NB = trainer.probe.init(KEY, 6, 4), trainer.batches(KEY, 800)
  optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, steps))
  moments = optimizer.init(params)
  step = jax.jit(jax.grad(trainer.loss))
  for chosen_B in chosen_NB:
    gradient = step(params, x_PID[0, chosen_B], label_TI[0, chosen_B])
    update, moments = optimizer.update(gradient, moments)
    params = optax.apply_updates(params, update)
  np.testing.assert_allclose(
    found["weight_DC"][0, 0], params["weight_DC"], rtol=1e-3, atol=1e-6
  )


def test_control_labels_are_functions_of_the_type_with_the_shares_of_the_label():
  random = np.random.default_rng(3)
  type_IN = random.integers(0, 3000, (20_000, 1))
  share_C = np.array([0.5, 0.2, 0.3])
  label_I = control_labels(Classes(3), share_C, type_IN)
  by_type = {}
  for (kind,), label in zip(type_IN.tolist(), label_I, strict=True):
    assert by_type.setdefault(kind, label) == label
  np.testing.assert_allclose(
    np.bincount([*by_type.values()]) / 3000, share_C, atol=0.03
  )
  # The same whichever other types are there, another one with another seed.
  np.testing.assert_array_equal(
    control_labels(Classes(3), share_C, type_IN[:50]), label_I[:50]
  )
  assert (control_labels(Classes(3), share_C, type_IN, seed=1) != label_I).any()
  sets_IA = control_labels(TokenSet(3, size=2), share_C, type_IN)
  assert sets_IA.shape == (20_000, 2) and (sets_IA[:, 0] != sets_IA[:, 1]).all()


def test_scores_of_a_set_are_those_of_a_loop():
  random = np.random.default_rng(4)
  logits_IC, label_IA = random.normal(size=(50, 9)), random.integers(0, 9, (50, 3))
  prediction = TokenSet(9, size=3)
  scores = np.asarray(prediction.score(jnp.array(logits_IC), jnp.array(label_IA)))
  losses = np.asarray(prediction.loss(jnp.array(logits_IC), jnp.array(label_IA)))
  for n in range(50):
    members = {*label_IA[n].tolist()}
    best = {*np.argsort(-logits_IC[n])[: len(members)].tolist()}
    np.testing.assert_allclose(scores[n], len(best & members) / len(members), rtol=1e-6)
    chance_C = 1 / (1 + np.exp(-logits_IC[n]))
    nats = [-np.log(p if c in members else 1 - p) for c, p in enumerate(chance_C)]
    np.testing.assert_allclose(losses[n], sum(nats), rtol=1e-4)


def test_scale_makes_every_feature_alike_and_leaves_a_constant_one():
  x_PID = np.random.default_rng(5).normal(3, [2, 0, 9], (2, 50, 3))
  scaled_PID = FeatureScale.of(x_PID)(x_PID)
  np.testing.assert_allclose(scaled_PID.mean(axis=1), 0, atol=1e-9)
  np.testing.assert_allclose(scaled_PID.std(axis=1), [[1, 0, 1]] * 2, atol=1e-9)


DIMS = tj.Dims(V=8, D=32, H=2, F=8, L=6)


@functools.cache
def small():
  """Returns a model, its parameters, a task, and a batch of 7 texts."""
  model = tj.Transformer(tj.Architecture(DIMS, position="learned", decoders=1))
  token_BL = np.random.default_rng(6).integers(0, 8, (7, 6))
  at = coords.consecutive(1, 6)
  random = np.random.default_rng(8)
  shapes = jax.eval_shape(model.init, KEY, jnp.array(token_BL))["params"]
  params = jax.tree.map(lambda x: random.normal(size=x.shape).astype(x.dtype), shapes)
  batch = Batch(jnp.array(token_BL), jnp.array(token_BL), jnp.ones((7, 6)), at)
  return model, params, tj.tasks.build("copy(symbols=4)"), batch


@pytest.mark.parametrize("spec", ["position", "distance(most=2)"])
@pytest.mark.parametrize("most", [20, 1000])
def test_samples_are_the_states_of_the_chosen_tokens(spec, most):
  model, params, task, batch = small()
  tokens = choose(probe_labels.build(spec), task, batch, most, KEY, gram=2)
  layers = ["decoder/embedding", "decoder/output"]
  x_PID = states_of(model, params, tokens, layers, batch_size=3)
  states = activations.hidden_states(model, params, *batch.reads)
  assert len(tokens.text_I) == min(most, 42 if spec == "position" else 28)
  assert (np.diff(tokens.text_I) >= 0).all()
  for i, (b, places) in enumerate(zip(tokens.text_I, tokens.place_IJ, strict=True)):
    for p, path in enumerate(layers):
      x_D = np.concatenate([states[path][b, n] for n in places])
      np.testing.assert_allclose(x_PID[p, i], x_D, rtol=1e-5, atol=1e-6)
    row = [-1, *np.asarray(batch.input_BL[b]).tolist()]
    assert tokens.type_IN[i].tolist() == [
      x for n in places for x in (row[n + 1], row[n])
    ]


def test_a_table_of_positions_is_read_from_the_embedding():
  """A model that adds positions has them in its input: the probe is right always."""
  model, params, task, _ = small()
  token_BL = np.random.default_rng(7).integers(0, 8, (80, 6))
  batches = [
    Batch(
      jnp.array(x_BL), jnp.array(x_BL), jnp.ones(x_BL.shape), coords.consecutive(1, 6)
    )
    for x_BL in (token_BL, token_BL[:, ::-1])
  ]
  study = ProbeStudy(probe_labels.build("position"), probes.build("linear"), BUDGET)
  texts = study.texts(task, *batches, KEY)
  layers = ("decoder/embedding",)
  found = study.run(model, params, texts, layers)
  assert found.score_TPE.shape == (2, 1, 80)
  label, control = found.score_TPE.mean(axis=(1, 2))
  assert label == 1.0 and found.error_PE.mean() == 0
  assert control == 1.0  # states that hold the token give its random label away
  # Texts that are trained on are not held out.
  assert texts.train.text_I.max() < texts.held.text_I.min()


@pytest.mark.slow
def test_states_of_an_encoder_are_those_of_the_source():
  """Of a model that reads a source and writes, either side is probed."""
  task = tj.tasks.build("pairs(copy(symbols=4))")
  batch = task.score((), KEY, 7, jnp.int32(4), 4)
  assert batch.source_BL.shape != batch.input_BL.shape
  model = tj.Transformer(
    tj.Architecture(DIMS, position="sinusoidal", encoders=1, decoders=1)
  )
  params = model.init(KEY, *batch.reads)["params"]
  states = activations.hidden_states(model, params, *batch.reads)
  for source, stack in ((True, "encoder"), (False, "decoder")):
    label = probe_labels.build("position")
    tokens = choose(label, task, batch, 1000, KEY, source=source)
    x_PID = states_of(model, params, tokens, [f"{stack}/output"], batch_size=3)
    side = batch.source_BL if source else batch.input_BL
    assert tokens.place_IJ.max() < side.shape[1]
    read_I = np.asarray(side)[tokens.text_I, tokens.place_IJ[:, 0]]
    np.testing.assert_array_equal(tokens.type_IN[:, 0], read_I)
    wanted_ID = states[f"{stack}/output"][tokens.text_I, tokens.place_IJ[:, 0]]
    np.testing.assert_allclose(x_PID[0], wanted_ID, rtol=1e-4, atol=1e-5)
  with pytest.raises(ProbeError, match="have no source"):
    choose(label, task, small()[3], 9, KEY, source=True)


def test_texts_of_the_test_that_are_trained_on_are_counted():
  *_, task, batch = small()
  token_BL = np.array(batch.input_BL)
  token_BL[:4] = token_BL[:4][::-1]
  token_BL[4:, 0] = (token_BL[4:, 0] + 1) % 8
  test = dataclasses.replace(batch, input_BL=jnp.array(token_BL))
  study = ProbeStudy(probe_labels.build("position"), probes.build("linear"))
  assert study.texts(task, batch, test, KEY).shared == pytest.approx(4 / 7)
  assert study.texts(task, batch, batch, KEY).shared == 1
  # Of pairs, both sides.
  source_BL, at = jnp.arange(42).reshape(7, 6), batch.at
  pairs = [
    dataclasses.replace(batch, source_BL=x, source_at=at)
    for x in (source_BL, source_BL + 42)
  ]
  assert study.texts(task, *pairs, KEY).shared == 0


def test_held_out_samples_are_of_all_held_out_texts(monkeypatch):
  monkeypatch.setattr(study_file, "MOST_HELD", 6)
  *_, task, batch = small()
  many = [jnp.tile(x, (3, 1)) for x in (batch.input_BL, batch.target_BL)]
  whole = Batch(*many, jnp.ones((21, 6)), batch.at)
  study = ProbeStudy(probe_labels.build("position"), probes.build("linear"))
  held = study.texts(task, whole, batch, KEY).held
  assert len(held.text_I) == 6 and (np.diff(held.text_I) >= 0).all()
  assert len({*held.text_I}) > 1 and held.text_I.min() >= 17


def study_of(label, batch, **options):
  study = ProbeStudy(probe_labels.build(label), probes.build("linear"), **options)
  return study.texts(small()[2], batch, batch, KEY)


def test_labels_of_one_class_are_refused():
  batch = small()[3]
  with pytest.raises(
    ProbeError, match="samples of next_token have class 0, so there is nothing"
  ):
    same = Batch(*[jnp.zeros((7, 6), int)] * 2, jnp.ones((7, 6)), batch.at)
    study_of("next_token", same)


def test_more_classes_than_samples_are_refused():
  with pytest.raises(
    ProbeError, match="position has 6 classes and 5 samples to train on"
  ):
    study_of("position", small()[3], samples=5)


def test_images_and_texts_without_a_label_are_refused():
  *_, task, batch = small()
  image = Batch(jnp.zeros((7, 1, 4, 4)), batch.target_BL, batch.weight_BL, batch.at)
  with pytest.raises(ProbeError, match="reads images"):
    study_of("target", image)
  silent = Batch(batch.input_BL, batch.target_BL, jnp.zeros((7, 6)), batch.at)
  with pytest.raises(ProbeError, match="no token of 7 texts has a label"):
    study_of("target", silent)


def test_states_that_are_no_numbers_are_refused():
  model, params, task, batch = small()
  tokens = choose(probe_labels.build("position"), task, batch, 9, KEY)
  lost = jax.tree.map(lambda x: x * jnp.nan, params)
  with pytest.raises(ProbeError, match="states are not numbers"):
    states_of(model, lost, tokens, ["decoder/output"], batch_size=7)


def test_budgets_of_nothing_are_refused():
  with pytest.raises(ProbeError, match="samples=0: write 1 or more"):
    study_of("position", small()[3], samples=0)
  with pytest.raises(ValueError, match="hidden is 0; write 1 or more"):
    probes.build("mlp(hidden=0)")
