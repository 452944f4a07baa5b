"""Measures: a score of each example, from a model's outputs and the targets."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.evaluation import activations
from transformer_jax.spec import Registry

ANY = "any"  # targets of a measure that is of labels and of numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Outputs:
  """What a model made of a batch of examples, for a measure.

  logits_BLV   of each target place
  target_BL    the right tokens, or classes; or numbers, [B, L, N]
  weight_BL    1 where a prediction counts and 0 elsewhere; of the part that is scored
  real_BL      whether there is a token: shorter inputs are padded; its B may be 1
  model        a Transformer, or a recurrent model
  params       its parameters
  reads        its inputs
  objective    of the task, which reads numbers off outputs

  >>> Outputs(None, None, None, None, None, None, ()).reads
  ()
  """

  logits_BLV: jax.Array
  target_BL: jax.Array
  weight_BL: jax.Array
  real_BL: jax.Array
  model: Any
  params: Any
  reads: tuple[Any, ...]
  objective: Any = None

  def mean(self, x_BL: jax.Array) -> jax.Array:
    """Returns the mean of each example over the places that count, [B]."""
    return _mean(jnp.where(self.weight_BL > 0, x_BL, 0), self.weight_BL)

  def attention_weights(self) -> dict[str, jax.Array]:
    """Returns {path: w_BHLM} of all layers: see `activations.attention_weights`.

    The model runs once more, with the core `dense`.
    """
    return activations.attention_weights(self.model, self.params, *self.reads)

  def hidden_states(self) -> dict[str, jax.Array]:
    """Returns {path: x_BLD} of all layers: see `activations.hidden_states`.

    The model runs once more.
    """
    return activations.hidden_states(self.model, self.params, *self.reads)


class Measure:
  """Base class of measures. Subclasses are frozen dataclasses.

  better    "lower" or "higher"
  targets   what it is of: "labels", tokens or classes; "numbers"; or "any" targets
  quarter   whether it is also scored on the last quarter of the targets
  bounds    the least and the largest value; None: there is none

  >>> accuracy = measures.build("accuracy")
  >>> accuracy.better, name_of(accuracy)
  ('higher', 'accuracy')
  """

  better: ClassVar[str] = "higher"
  targets: ClassVar[str] = "labels"
  quarter: ClassVar[bool] = True
  bounds: ClassVar[tuple[float | None, float | None]] = (None, None)

  def score(self, outputs: Outputs) -> jax.Array:
    """Returns the score of each example, [B]; their mean is reported.

    Of examples without a place that counts it may be anything. NaN of others: there is
    no number, and the example is left out of the mean.
    """
    raise NotImplementedError


class TargetMeasure(Measure):
  """Base class of the measures that need no logits: of losses and hits alone.

  >>> class Hits(TargetMeasure):
  ...   def compute(self, loss_BL, right_BL, weight_BL):
  ...     return (right_BL * weight_BL).sum(1)
  >>> import numpy as np
  >>> Hits().compute(None, np.array([[True, False, True]]), np.ones((1, 3))).tolist()
  [2.0]
  """

  def compute(
    self, loss_BL: jax.Array, right_BL: jax.Array, weight_BL: jax.Array
  ) -> jax.Array:
    """Returns the score of each example, [B].

    loss_BL     of the objective: cross-entropy in nats
    right_BL    the objective's metric: whether argmax is the target, or of numbers the
                absolute error
    weight_BL   1 where a prediction counts
    """
    raise NotImplementedError


measures = Registry("measure", Measure)


def name_of(measure: Measure) -> str:
  """Returns a measure's name in results: `accuracy`, or `top(k=5)` of `my_file:Top(5)`.

  Fields that have their default are left out.
  """
  return measures.label(measure)


def _mean(x_BL: jax.Array, weight_BL: jax.Array) -> jax.Array:
  return jnp.sum(x_BL * weight_BL, axis=1) / jnp.sum(weight_BL, axis=1)


@measures.register("bits_per_byte")
@dataclasses.dataclass(frozen=True)
class BitsPerByte(TargetMeasure):
  """Cross-entropy in bits; of each byte, where targets are bytes.

  >>> import numpy as np
  >>> loss_BL, weight_BL = np.log([[2.0, 8.0]]), np.ones((1, 2))
  >>> BitsPerByte().compute(loss_BL, None, weight_BL).round(3).tolist()
  [2.0]
  """

  better: ClassVar[str] = "lower"
  bounds: ClassVar[tuple[float | None, float | None]] = (0.0, None)

  def compute(self, loss_BL, right_BL, weight_BL):
    return _mean(loss_BL, weight_BL) / math.log(2)


@measures.register("accuracy")
@dataclasses.dataclass(frozen=True)
class Accuracy(TargetMeasure):
  """Share of the targets that are predicted.

  >>> import numpy as np
  >>> right_BL, weight_BL = np.array([[False, True]]), np.ones((1, 2))
  >>> Accuracy().compute(None, right_BL, weight_BL).tolist()
  [0.5]
  """

  bounds: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)

  def compute(self, loss_BL, right_BL, weight_BL):
    return _mean(right_BL, weight_BL)


@measures.register("exact_match")
@dataclasses.dataclass(frozen=True)
class ExactMatch(TargetMeasure):
  """Whether all targets are predicted.

  Every answer token is predicted from the right ones: greedy decoding equals this.

  >>> import numpy as np
  >>> right_BL, weight_BL = np.array([[False, True]]), np.array([[0.0, 1.0]])
  >>> ExactMatch().compute(None, right_BL, weight_BL).tolist()
  [1.0]
  """

  quarter: ClassVar[bool] = False
  bounds: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)

  def compute(self, loss_BL, right_BL, weight_BL):
    return jnp.all(right_BL | (weight_BL == 0), axis=1) * 1.0


@measures.register("loss")
@dataclasses.dataclass(frozen=True)
class ObjectiveLoss(TargetMeasure):
  """The loss that training minimizes: nats, squared error, pinball loss, ...

  >>> import numpy as np
  >>> ObjectiveLoss().compute(np.array([[1.0, 2.0]]), None, np.ones((1, 2))).tolist()
  [1.5]
  """

  better: ClassVar[str] = "lower"
  targets: ClassVar[str] = ANY

  def compute(self, loss_BL, right_BL, weight_BL):
    return _mean(loss_BL, weight_BL)


@measures.register("mae")
@dataclasses.dataclass(frozen=True)
class MeanAbsoluteError(TargetMeasure):
  """Mean absolute error of predicted numbers, in the unit of the targets.

  >>> import numpy as np
  >>> error_BL = np.array([[1.0, 2.0]])
  >>> MeanAbsoluteError().compute(None, error_BL, np.ones((1, 2))).tolist()
  [1.5]
  """

  better: ClassVar[str] = "lower"
  targets: ClassVar[str] = "numbers"
  bounds: ClassVar[tuple[float | None, float | None]] = (0.0, None)

  def compute(self, loss_BL, right_BL, weight_BL):
    return _mean(right_BL, weight_BL)


@measures.register("mse")
@dataclasses.dataclass(frozen=True)
class MeanSquaredError(Measure):
  """Mean squared error of predicted numbers, whatever was minimized.

  >>> from transformer_jax.training.objectives import objectives
  >>> target_BLN, outputs_BLV = jnp.array([[[1.0]]]), jnp.array([[[3.0, 0.0]]])
  >>> outputs = Outputs(
  ...   outputs_BLV, target_BLN, jnp.ones((1, 1)), None, None, None, (),
  ...   objectives.build("gaussian"),
  ... )
  >>> MeanSquaredError().score(outputs).tolist()
  [4.0]
  """

  better: ClassVar[str] = "lower"
  targets: ClassVar[str] = "numbers"
  bounds: ClassVar[tuple[float | None, float | None]] = (0.0, None)

  def score(self, outputs):
    number_BLN = outputs.objective.predicted(outputs.logits_BLV)
    return outputs.mean(jnp.square(number_BLN - outputs.target_BL).mean(axis=-1))
