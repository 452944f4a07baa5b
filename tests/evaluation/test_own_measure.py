"""Measures of a user's own file: scored beside the others, or refused in a sentence."""

import json
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_lengths import make

from experiments.configs import base
from experiments.runner import user_code
from experiments.runner.build import build
from experiments.setup.identity import aged, evaluation
from experiments.setup.validate import ConfigError, flatten, resolve, validate
from transformer_jax.evaluation import activations, measure_probe
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.evaluation.measures import Measure, measures, name_of
from transformer_jax.spec import SpecError

PAGE = pathlib.Path(__file__).parents[2] / "docs/howto/own_measure.md"
[CODE] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def entropy(tmp_path, monkeypatch):
  (tmp_path / "entropy.py").write_text(CODE)
  monkeypatch.syspath_prepend(tmp_path)
  yield
  sys.modules.pop("entropy", None)


def test_the_measures_of_the_page_are_scored(entropy):
  model, task, params = make("alibi")
  own = "accuracy", "entropy:Entropy()", "entropy:Focus()"
  chosen = tuple(map(measures.build, own))
  evaluator = Evaluator(model, task, examples=6, batch_size=4, measures=chosen)
  rows, examples = evaluator.run_examples(params, (), (4, 32))
  plain = Evaluator(model, task, examples=6, batch_size=4).run(params, (), (4, 32))
  bits = lambda rows: [row for row in rows if row["measure"] == "accuracy"]
  assert bits(rows) == bits(plain)  # the others change no bit of it
  assert list(evaluator.named) == ["accuracy", "entropy", "focus"]
  batch = jax.jit(lambda: task.score((), jax.random.key(0), 6, 4, 32))()
  logits = jax.jit(lambda own: model.apply({"params": own}, *batch.reads))
  for seed in range(2):
    own = jax.tree.map(lambda x, n=seed: x[n], params)
    log_p = jax.nn.log_softmax(logits(own))[:, -4:]
    wanted_B = -np.mean(np.sum(np.exp(log_p) * log_p, axis=-1), axis=1) / np.log(2)
    found_B = examples.value_SE[4, "entropy", "mean"][seed]
    np.testing.assert_allclose(found_B, wanted_B, rtol=1e-4)
    w = activations.attention_weights(model, own, *batch.reads)
    largest_BL = np.max(w["decoder/layer_0/attention"], axis=-1).mean(axis=1)
    found_B = examples.value_SE[4, "focus", "last_quarter"][seed]
    np.testing.assert_allclose(found_B, largest_BL[:, -1], rtol=1e-4)
    for row in rows:
      if row["seed"] == seed:
        key = row["length"], row["measure"], row["part"]
        mean = examples.value_SE[key][seed].mean()
        np.testing.assert_allclose(row["value"], mean, rtol=1e-5)


def config(*chosen):
  small = {"task": "copy", "train.length": 8, "model.width": 16}
  return resolve(base.get_config(), small | {"evaluate.measures": chosen})


def test_a_config_names_them_and_the_run_keeps_their_file(entropy):
  own = config("accuracy", "entropy:Focus(layer=1)")
  validate(own)
  evaluator = build(own).evaluator
  assert list(evaluator.named) == ["accuracy", "focus(layer=1)"]
  assert [*user_code.read(own)] == ["entropy.py"]
  # A key that was added changes no id, also of a config that was read from JSON.
  plain = flatten(config())
  assert "evaluate.measures" not in aged(json.loads(json.dumps(plain)))
  assert evaluation(flatten(own))["evaluate.measures"] == ("accuracy", own_spec(own))


def own_spec(config):
  return config.evaluate.measures[1]


@pytest.mark.parametrize(
  "chosen,says",
  [
    (
      ("acuracy",),
      "Did you mean 'accuracy'.*bits_per_byte, exact_match, .*mse, or name",
    ),
    (("entropy:Entrpy()",), "'entropy' has no 'Entrpy'. Did you mean 'Entropy'"),
    (("nowhere:Entropy()",), "cannot import 'nowhere'"),
    ((3,), r"3 is no text; write \('accuracy',\)"),
  ],
)
def test_what_is_no_measure_is_refused(entropy, chosen, says):
  with pytest.raises(ConfigError, match=says):
    validate(config(*chosen))


def test_one_name_is_one_measure():
  with pytest.raises(ConfigError, match="evaluate.measures has accuracy twice"):
    build(config("accuracy", "accuracy"))


class Own(Measure):
  def score(self, outputs):
    return outputs.mean(outputs.logits_BLV[..., 0])


class OneNumber(Own):
  def score(self, outputs):
    return outputs.mean(outputs.logits_BLV[..., 0]).mean()


class Padding(Own):
  def score(self, outputs):
    return outputs.logits_BLV.mean((1, 2))


class Beside(Own):
  def score(self, outputs):
    x_B = outputs.mean(outputs.logits_BLV[..., 0])
    return x_B - x_B.mean()


class Infinite(Own):
  def score(self, outputs):
    return outputs.mean(jnp.log(jnp.zeros(outputs.target_BL.shape)))


class Fails(Own):
  def score(self, outputs):
    return outputs.logits_BLV @ jnp.zeros(3)


class Direction(Own):
  better = "up"


class Ends(Own):
  bounds = (1.0, 0.0)


class Misspelt(Measure):
  def scores(self, outputs):
    return outputs


REFUSED = {
  OneNumber: r"OneNumber.score returns shape \(\) for 4 examples",
  Padding: "Padding.score reads predictions whose weight is 0",
  Beside: "Beside.score gives an example another score beside other examples",
  Infinite: "scores must be finite",
  Fails: r"Fails.score fails in line \d+ of test_own_measure.py",
  Direction: "Direction.better is 'up'; write better = 'lower' or 'higher'",
  Ends: r"Ends.bounds is \(1.0, 0.0\); write the least and the largest value",
  Misspelt: "score",
}


@pytest.mark.parametrize("cls", REFUSED)
def test_a_measure_that_is_wrong_is_refused_before_training(cls):
  measure_probe.check(Own())
  with pytest.raises(SpecError, match=REFUSED[cls]):
    measure_probe.check(cls())


def test_names_have_the_arguments_that_are_no_defaults(entropy):
  specs = "entropy:Focus()", "entropy:Focus(layer=2)", "exact_match"
  names = [name_of(measures.build(spec)) for spec in specs]
  assert names == ["focus", "focus(layer=2)", "exact_match"]
