"""Base classes of probes and of their labels, and the registries of both."""

import dataclasses
from typing import Any, ClassVar

import jax

from transformer_jax.analysis.probes.predictions import Prediction
from transformer_jax.data.base import Batch, Task
from transformer_jax.spec import Registry


class ProbeError(ValueError):
  """Error of a probe that cannot be trained; the message has the remedy.

  >>> str(ProbeError("one class; choose another label"))
  'one class; choose another label'
  """


class Probe:
  """Base class of probes: small classifiers of states. Subclasses are dataclasses.

  >>> probe = probes.build("linear")
  >>> params = probe.init(jax.random.key(0), features=4, outputs=3)
  >>> probe.apply(params, jax.numpy.ones((2, 4))).shape
  (2, 3)
  """

  def init(self, key: jax.Array, features: int, outputs: int) -> Any:
    """Returns the first parameters, with which all classes are equally likely.

    features   D, of a state
    outputs    C, of the logits
    """
    raise NotImplementedError

  def apply(self, params: Any, x_ID: jax.Array) -> jax.Array:
    """Returns logits_IC."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
  """Labels of the tokens of a batch.

  label_BL    int32; or label_BLA, the tokens of a set, -1 for none
  weight_BL   1 where there is a label, 0 elsewhere
  other_BL    of pairs of tokens: the place of the other one in its text; else None

  >>> Labels(None, None).other_BL is None
  True
  """

  label_BL: jax.Array
  weight_BL: jax.Array
  other_BL: jax.Array | None = None


class ProbeLabel:
  """Base class of labels: what a probe predicts. Subclasses are frozen dataclasses.

  states   number of states that a probe reads, 1, or 2 for pairs of tokens

  >>> position = probe_labels.build("position")
  >>> position.prediction(task=None, tokens=64).count
  64
  """

  states: ClassVar[int] = 1

  def __str__(self):
    return probe_labels.name_of(self)

  def prediction(self, task: Task, tokens: int) -> Prediction:
    """Returns what is predicted, and how it is scored.

    task     whose texts are read
    tokens   L, of a text

    Raises ProbeError where the task or the length has no such label.
    """
    raise NotImplementedError

  def labels(self, task: Task, batch: Batch, key: jax.Array) -> Labels:
    """Returns the labels of a batch; runs under `jax.jit`.

    key   of random choices, such as that of pairs
    """
    raise NotImplementedError


probes = Registry("probe", Probe)
probe_labels = Registry("probe label", ProbeLabel)
