"""Samples of a probe: hidden states of chosen tokens, with their labels."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.analysis.probes.base import ProbeError, ProbeLabel
from transformer_jax.analysis.probes.predictions import Prediction
from transformer_jax.data.base import Batch, Task
from transformer_jax.evaluation import activations
from transformer_jax.models import Transformer


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenTokens:
  """The tokens of a batch that are probed; the same for every model.

  batch      the texts
  text_I     number of each sample's text, ascending
  place_IJ   its place in the text; of pairs, that of the other token too
  label_I    int32, or label_IA
  type_IN    the tokens that make its type: see `choose`

  >>> place_IJ, type_IN = np.zeros((3, 1)), np.zeros((3, 1))
  >>> text_I, label_I = np.array([0, 2, 2]), np.array([4, 4, 5])
  >>> tokens = ChosenTokens(None, text_I, place_IJ, label_I, type_IN)
  >>> tokens.of_texts(1, 3).label_I.tolist()
  [4, 5]
  """

  batch: Batch
  text_I: np.ndarray
  place_IJ: np.ndarray
  label_I: np.ndarray
  type_IN: np.ndarray

  def of_texts(self, start: int, stop: int) -> "ChosenTokens":
    """Returns the samples of the texts from `start` up to `stop`."""
    return self._at(slice(*np.searchsorted(self.text_I, (start, stop))))

  def some(self, most: int) -> "ChosenTokens":
    """Returns as many samples at most, drawn at random from all texts."""
    if len(self.text_I) <= most:
      return self
    drawn = np.random.default_rng(0).choice(len(self.text_I), most, replace=False)
    return self._at(np.sort(drawn))

  def _at(self, some: slice | np.ndarray) -> "ChosenTokens":
    return ChosenTokens(
      self.batch,
      self.text_I[some],
      self.place_IJ[some],
      self.label_I[some],
      self.type_IN[some],
    )


def choose(
  label: ProbeLabel,
  task: Task,
  batch: Batch,
  most: int,
  key: jax.Array,
  source: bool = False,
  gram: int = 1,
) -> ChosenTokens:
  """Returns tokens of a batch that have a label, `most` at most, drawn by the key.

  source   whether they are those of the source, which an encoder reads
  gram     1: tokens are of one type if they are equal; 2: if those before are too, and
           so on; a pair of tokens has the types of both

  Raises ProbeError where no token has one.
  """
  whole, batch = batch, of_source(batch) if source else batch
  if not jnp.issubdtype(batch.input_BL.dtype, jnp.integer):
    raise ProbeError(
      f"{type(task).__name__} reads images, and a probe reads states of tokens; choose"
      " a run whose task has tokens"
    )
  key_label, key_choice = jax.random.split(key)
  made = jax.jit(lambda batch: vars(label.labels(task, batch, key_label)))(batch)
  label_BL, weight_BL = np.asarray(made["label_BL"]), np.asarray(made["weight_BL"])
  token_BL = np.asarray(batch.input_BL)
  _check_shapes(label, label_BL, weight_BL, token_BL)
  text_I, place_I = np.nonzero(weight_BL > 0)
  if not len(text_I):
    raise ProbeError(
      f"no token of {len(token_BL)} texts has a label of {label}; choose other texts"
    )
  if len(text_I) > most:
    chosen = jax.random.choice(key_choice, len(text_I), (most,), replace=False)
    chosen_I = np.sort(np.asarray(chosen))
    text_I, place_I = text_I[chosen_I], place_I[chosen_I]
  type_BL, places = _types(token_BL, gram), [place_I]
  type_IN = type_BL[text_I, place_I]
  if made["other_BL"] is not None:
    places.append(np.asarray(made["other_BL"])[text_I, place_I])
    other_I = type_BL[text_I, places[1]]
    type_IN = np.stack([type_IN, other_I], axis=1)
  label_I = label_BL[text_I, place_I]
  type_IN = type_IN.reshape(len(type_IN), -1)
  return ChosenTokens(whole, text_I, np.stack(places, axis=1), label_I, type_IN)


def of_source(batch: Batch) -> Batch:
  """Returns the batch whose tokens are those of the source; they have no targets."""
  if batch.source_BL is None or batch.source_at is None:
    raise ProbeError("these texts have no source; leave out the stack")
  none_BL = jnp.zeros_like(batch.source_BL)
  return Batch(batch.source_BL, none_BL, none_BL * 0.0, batch.source_at)


def states_of(
  model: Transformer,
  params: Any,
  tokens: ChosenTokens,
  layers: Sequence[str],
  batch_size: int,
) -> np.ndarray:
  """Returns the states of samples in some layers, x_PID; states of a pair are joined.

  layers       paths, as in `activations.hidden_states`
  batch_size   texts at once

  Layers x samples x width floats stay in memory, and the states of one batch of texts.
  Raises ProbeError for a state that is not a number.
  """
  B = tokens.batch.input_BL.shape[0]
  parts = []
  for start in range(0, B, batch_size):
    some = tokens.of_texts(start, start + batch_size)
    if not len(some.text_I):
      continue
    # The last texts stand once more where fewer are left: one program serves all.
    first = max(0, min(start, B - batch_size))
    chunk = tokens.batch.texts(first, first + batch_size)
    states = activations.hidden_states(model, params, *chunk.reads)
    x_PBLD = np.stack([np.asarray(states[path], np.float32) for path in layers])
    x_PIJD = x_PBLD[:, (some.text_I - first)[:, None], some.place_IJ]
    parts.append(x_PIJD.reshape(*x_PIJD.shape[:2], -1))
  x_PID = np.concatenate(parts, axis=1)
  if not np.isfinite(x_PID).all():
    raise ProbeError("states are not numbers: the training of this run diverged")
  return x_PID


def check_classes(
  label: ProbeLabel, prediction: Prediction, tokens: ChosenTokens
) -> None:
  """Raises ProbeError where samples have one class, or are fewer than the classes."""
  known = np.unique(tokens.label_I)
  if len(known) < 2:
    raise ProbeError(
      f"all {len(tokens.label_I)} samples of {label} have class {known[0]}, so there is"
      " nothing to tell apart; choose another label, or longer texts"
    )
  if prediction.count > (samples := len(tokens.label_I)):
    raise ProbeError(
      f"{label} has {prediction.count} classes and {samples} samples to train on; write"
      " more examples, or a label with fewer classes"
    )


def _types(token_BL: np.ndarray, gram: int) -> np.ndarray:
  """Returns the token of each place with those before it, -1 for none: [B, L, gram]."""
  before = [np.pad(token_BL, ((0, 0), (n, 0)), constant_values=-1) for n in range(gram)]
  return np.stack([x[:, : token_BL.shape[1]] for x in before], axis=-1)


def _check_shapes(label: Any, label_BL: Any, weight_BL: Any, token_BL: Any) -> None:
  B_L = token_BL.shape
  if label_BL.shape[:2] != B_L or weight_BL.shape != B_L:
    raise ProbeError(
      f"{label} returns labels of shape {label_BL.shape} and weights of shape"
      f" {weight_BL.shape} for tokens of shape {B_L}; write one of each a token"
    )
