"""A study: one label, read by one probe from all layers of a model, on fixed texts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.analysis.probes.base import Probe, ProbeError, ProbeLabel
from transformer_jax.analysis.probes.code_length import CodeLength, online_code
from transformer_jax.analysis.probes.control import control_labels
from transformer_jax.analysis.probes.predictions import Prediction
from transformer_jax.analysis.probes.probe_samples import (
  ChosenTokens,
  check_classes,
  choose,
  states_of,
)
from transformer_jax.analysis.probes.probe_training import (
  FeatureScale,
  ProbeBudget,
  ProbeTrainer,
)
from transformer_jax.data.base import Batch, Task
from transformer_jax.models import Transformer

HELD = 5  # one text in so many is held out of a probe's training
MOST_HELD = 4000  # samples of those, whose loss is computed in each round


@dataclasses.dataclass(frozen=True, eq=False)
class ProbeTexts:
  """Chosen tokens of texts to train on, held-out ones and those of the test.

  prediction   what is predicted
  control   control label of each sample of the three

  >>> from transformer_jax.analysis.probes.predictions import Classes
  >>> ProbeTexts(Classes(2), *[None] * 3, ()).prediction.count
  2
  """

  prediction: Prediction
  train: ChosenTokens
  held: ChosenTokens
  test: ChosenTokens
  control: tuple[np.ndarray, ...]

  def labels(self, control: bool) -> list[np.ndarray]:
    """Returns label_TI of the three; T is 2 with the control, else 1."""
    found = [tokens.label_I for tokens in (self.train, self.held, self.test)]
    if not control:
      return [label_I[None] for label_I in found]
    return [np.stack(pair) for pair in zip(found, self.control, strict=True)]

  @property
  def texts(self) -> int:
    """Number of texts of the test, E."""
    return self.test.batch.input_BL.shape[0]

  @property
  def shared(self) -> float:
    """Share of the texts of the test that are among those to train on."""
    known = {*_read(self.train.batch)}
    return float(np.mean([text in known for text in _read(self.test.batch)]))


@dataclasses.dataclass(frozen=True, eq=False)
class SeedProbes:
  """Scores of the probes of one model.

  score_TPE   of the label and its control, of each layer and text of the test; NaN
              where a text has no sample
  error_PE    size of the errors; None: classes are no numbers
  code        length of the labels' code; None: not computed

  >>> SeedProbes(np.ones((1, 2, 3)), None, None).score_TPE.mean(axis=2).tolist()
  [[1.0, 1.0]]
  """

  score_TPE: np.ndarray
  error_PE: np.ndarray | None
  code: CodeLength | None


@dataclasses.dataclass(frozen=True)
class ProbeStudy:
  """Settings of a study.

  label        what is read from the states
  probe        that reads it
  budget       of the training of each probe
  samples      the most tokens to train on, held-out ones included, and to test on
  control      tokens that make a type of the control: 1, or more with those before; 0:
               no control
  mdl          whether code lengths are computed, by ten trainings more
  batch_size   texts that the model reads at once
  source       whether tokens are those of the source of an encoder-decoder

  >>> from transformer_jax.analysis.probes import probe_labels, probes
  >>> study = ProbeStudy(probe_labels.build("position"), probes.build("linear"))
  >>> study.samples, study.control, study.mdl
  (20000, 1, False)
  """

  label: ProbeLabel
  probe: Probe
  budget: ProbeBudget = ProbeBudget()
  samples: int = 20_000
  control: int = 1
  mdl: bool = False
  batch_size: int = 64
  source: bool = False

  def __post_init__(self):
    counts = {"steps": self.budget.steps, "samples": self.samples}
    for name, value in counts.items():
      if value < 1:
        raise ProbeError(f"{name}={value}: write 1 or more")

  def texts(self, task: Task, train: Batch, test: Batch, key: jax.Array) -> ProbeTexts:
    """Returns the chosen tokens of both batches, which have different texts.

    Of the texts to train on, one in five is held out. Raises ProbeError for labels of
    one class, or of more classes than samples.
    """
    read = train.source_BL if self.source else train.input_BL
    prediction = self.label.prediction(task, 0 if read is None else read.shape[1])
    keys, gram = jax.random.split(key), max(1, self.control)
    both = [
      choose(self.label, task, batch, self.samples, key, self.source, gram)
      for batch, key in zip((train, test), keys, strict=True)
    ]
    count = train.input_BL.shape[0]
    if count < 2:
      raise ProbeError(f"{count} text to train on: write 2 or more examples")
    first = count - max(1, count // HELD)
    some, held = both[0].of_texts(0, first), both[0].of_texts(first, count)
    check_classes(self.label, prediction, some)
    if not len(held.label_I):
      raise ProbeError(f"held-out texts have no label of {self.label}: more examples")
    held = held.some(MOST_HELD)
    share_C = prediction.shares(some.label_I)
    control = tuple(
      control_labels(prediction, share_C, x.type_IN) for x in (some, held, both[1])
    )
    return ProbeTexts(prediction, some, held, both[1], control)

  def run(
    self, model: Transformer, params: Any, texts: ProbeTexts, layers: Sequence[str]
  ) -> SeedProbes:
    """Returns the scores of probes of a model, each trained on one layer.

    params   of the model
    texts    of `texts`
    layers   paths of states, as in `activations.hidden_states`
    """
    train_PID, held_PID, test_PID = (
      states_of(model, params, tokens, layers, self.batch_size)
      for tokens in (texts.train, texts.held, texts.test)
    )
    scale = FeatureScale.of(train_PID)
    train_PID, held_PID, test_PID = map(scale, (train_PID, held_PID, test_PID))
    train_TI, held_TI, test_TI = texts.labels(self.control > 0)
    trainer, key = ProbeTrainer(self.probe, texts.prediction, self.budget), _key()
    count = train_TI.shape[1]
    fitted = trainer.fit(key, train_PID, train_TI, count, held_PID, held_TI)
    score_PTI = trainer.scores(fitted, test_PID, test_TI)
    error_PE = code = None
    if texts.prediction.ordered:
      error_PTI = trainer.errors(fitted, test_PID, test_TI)
      error_PE = by_text(error_PTI[:, 0], texts.test.text_I, texts.texts)
    if self.mdl:
      code = online_code(trainer, key, train_PID, train_TI, held_PID, held_TI)
    score_TPI = np.swapaxes(score_PTI, 0, 1)
    score_TPE = by_text(score_TPI, texts.test.text_I, texts.texts)
    return SeedProbes(score_TPE, error_PE, code)


def majority(texts: ProbeTexts) -> np.ndarray:
  """Returns the scores of always guessing the most frequent classes, [E]."""
  share_C = texts.prediction.shares(texts.train.label_I)
  label_I = texts.test.label_I
  logits_IC = np.broadcast_to(share_C, (len(label_I), len(share_C)))
  score = texts.prediction.score(jnp.asarray(logits_IC), jnp.asarray(label_I))
  score_I = np.asarray(score)
  return by_text(score_I, texts.test.text_I, texts.texts)


def median_error(texts: ProbeTexts) -> np.ndarray:
  """Returns the size of the error of always guessing the median class, [E]."""
  error_I = np.abs(texts.test.label_I - np.median(texts.train.label_I))
  return by_text(error_I, texts.test.text_I, texts.texts)


def by_text(x_I: np.ndarray, text_I: np.ndarray, texts: int) -> np.ndarray:
  """Returns the mean of each text, [..., E]; NaN for a text without samples.

  >>> by_text(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 2]), 3).tolist()
  [2.0, nan, 5.0]
  """
  count_E = np.bincount(text_I, minlength=texts)
  flat = x_I.reshape(-1, x_I.shape[-1])
  sums = [np.bincount(text_I, weights=one_I, minlength=texts) for one_I in flat]
  sum_E = np.reshape(sums, (*x_I.shape[:-1], texts))
  return np.divide(sum_E, count_E, out=np.full_like(sum_E, np.nan), where=count_E > 0)


def _read(batch: Batch) -> list[bytes]:
  """Returns the tokens of each text, those of its source included, as bytes."""
  sides = [x for x in (batch.input_BL, batch.source_BL) if x is not None]
  arrays = [np.asarray(side) for side in sides]
  return [b"".join(x[n].tobytes() for x in arrays) for n in range(len(arrays[0]))]


def _key() -> jax.Array:
  """Returns the key of all probes: models are compared by probes of one kind."""
  return jax.random.key(0)
