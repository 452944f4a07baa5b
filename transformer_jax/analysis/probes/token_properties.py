"""Labels of tokens that need no annotation, and those of the task."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.analysis.probes.base import (
  Labels,
  ProbeError,
  ProbeLabel,
  probe_labels,
)
from transformer_jax.analysis.probes.predictions import Classes, TokenSet
from transformer_jax.data.base import Batch, Task
from transformer_jax.data.token_labels import TokenLabel
from transformer_jax.spec import SpecError, nearest


def build(spec: Any, task: Task) -> ProbeLabel:
  """Returns the label of a spec, or that of the task with this name.

  spec   as in "position", "distance(most=8)", "depth" of a task that makes it
  task   whose texts are read
  """
  if isinstance(spec, str) and spec in task.probe_labels():
    return OfTask(spec)
  try:
    return probe_labels.build(spec)
  except SpecError as error:
    names = ", ".join(task.probe_labels()) or "no labels"
    raise ProbeError(f"{error} This run's task makes {names}.") from error


@probe_labels.register("position")
@dataclasses.dataclass(frozen=True)
class TokenPosition(ProbeLabel):
  """The absolute position of a token in its text, one class for each.

  Haviv et al., 2022, section 4. https://arxiv.org/abs/2203.16634

  >>> probe_labels.build("position").prediction(task=None, tokens=8)
  Classes(count=8, ordered=True)
  """

  def prediction(self, task, tokens):
    return Classes(tokens, ordered=True)

  def labels(self, task, batch, key):
    order_BL = _full(batch.at.order_BL, batch)
    return Labels(jnp.maximum(order_BL, 0), (order_BL >= 0) * 1.0)


@probe_labels.register("distance")
@dataclasses.dataclass(frozen=True)
class TokenDistance(ProbeLabel):
  """The distance of two tokens, from both of their states.

  The other token is 1 to `most` places before, all equally likely; tokens with fewer
  before them are left out.

  >>> probe_labels.build("distance(most=4)").prediction(task=None, tokens=8)
  Classes(count=4, ordered=True)
  """

  most: int = 16

  states: ClassVar[int] = 2

  def __post_init__(self):
    if self.most < 2:
      raise SpecError(f"distance: most is {self.most}; write 2 or more")

  def prediction(self, task, tokens):
    if tokens <= self.most:
      raise ProbeError(
        f"distance(most={self.most}) needs texts of more than {self.most} tokens and"
        f" these have {tokens}; write distance(most={max(2, tokens // 2)})"
      )
    return Classes(self.most, ordered=True)

  def labels(self, task, batch, key):
    order_BL = _full(batch.at.order_BL, batch)
    distance_BL = jax.random.randint(key, order_BL.shape, 1, self.most + 1)
    other_BL = jnp.maximum(jnp.arange(order_BL.shape[1]) - distance_BL, 0)
    return Labels(distance_BL - 1, (order_BL >= self.most) * 1.0, other_BL)


@probe_labels.register("length_so_far")
@dataclasses.dataclass(frozen=True)
class LengthSoFar(ProbeLabel):
  """How many tokens there are so far: 1, 2 to 3, 4 to 7, ..., a class for each.

  since   a token that the count starts after, such as 10, the newline in bytes; tokens
          before the first one are left out. None: the start of the text

  >>> probe_labels.build("length_so_far").prediction(task=None, tokens=64).count
  7
  """

  since: int | None = None

  def prediction(self, task, tokens):
    return Classes(tokens.bit_length(), ordered=True)

  def labels(self, task, batch, key):
    order_BL = _full(batch.at.order_BL, batch)
    count_BL, known_BL = order_BL + 1, order_BL >= 0
    if self.since is not None:
      place_L = jnp.arange(order_BL.shape[1])
      mark_BL = jnp.where((batch.input_BL == self.since) & known_BL, place_L, -1)
      before_BL = jnp.pad(mark_BL, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
      last_BL = jax.lax.cummax(before_BL, axis=1)
      count_BL = place_L - last_BL
      known_BL &= (last_BL >= 0) & (count_BL <= order_BL)  # in the same segment
    label_BL = jnp.floor(jnp.log2(jnp.maximum(count_BL, 1) + 0.5)).astype(jnp.int32)
    return Labels(label_BL, known_BL * 1.0)


@probe_labels.register("next_token")
@dataclasses.dataclass(frozen=True)
class TokenAhead(ProbeLabel):
  """The token that stands `ahead` places after.

  Pal et al., 2023, section 3.1. https://arxiv.org/abs/2311.04897

  >>> import transformer_jax as tj
  >>> text = tj.tasks.build("text")
  >>> probe_labels.build("next_token(ahead=2)").prediction(text, tokens=64).count
  256
  """

  ahead: int = 1

  def __post_init__(self):
    _check_ahead("next_token", self.ahead)

  def prediction(self, task, tokens):
    return Classes(task.vocabulary)

  def labels(self, task, batch, key):
    token_BL, weight_BL = _after(batch, self.ahead)
    return Labels(token_BL, weight_BL)


@probe_labels.register("next_set")
@dataclasses.dataclass(frozen=True)
class TokensAhead(ProbeLabel):
  """The set of the `ahead` tokens that come next, in any order.

  >>> import transformer_jax as tj
  >>> text = tj.tasks.build("text")
  >>> probe_labels.build("next_set(ahead=4)").prediction(text, tokens=64)
  TokenSet(count=256, size=4)
  """

  ahead: int = 4

  def __post_init__(self):
    _check_ahead("next_set", self.ahead)

  def prediction(self, task, tokens):
    return TokenSet(task.vocabulary, self.ahead)

  def labels(self, task, batch, key):
    found = [_after(batch, n) for n in range(1, self.ahead + 1)]
    label_BLA = jnp.stack([token_BL for token_BL, _ in found], axis=-1)
    return Labels(label_BLA, found[-1][1])


@probe_labels.register("target")
@dataclasses.dataclass(frozen=True)
class TaskTarget(ProbeLabel):
  """The target of the task: the tag of a word, the class of a text, an answer's symbol.

  >>> import transformer_jax as tj
  >>> copying = tj.tasks.build("copy(symbols=4)")
  >>> probe_labels.build("target").prediction(copying, tokens=8).count
  8
  """

  def prediction(self, task, tokens):
    return Classes(task.classes or task.vocabulary)

  def labels(self, task, batch, key):
    return Labels(batch.target_BL, (batch.weight_BL > 0) * 1.0)


@probe_labels.register("of_task")
@dataclasses.dataclass(frozen=True)
class OfTask(ProbeLabel):
  """A label that the task makes, such as the depth of brackets: `Task.probe_labels`.

  >>> import transformer_jax as tj
  >>> OfTask("carry").prediction(tj.tasks.build("addition"), tokens=8)
  Classes(count=2, ordered=False)
  """

  name: str

  def prediction(self, task, tokens):
    label = self._of(task)
    return Classes(label.classes, label.ordered)

  def labels(self, task, batch, key):
    return Labels(*self._of(task).compute(batch))

  def _of(self, task: Task) -> TokenLabel:
    known = task.probe_labels()
    if self.name not in known:
      near = nearest(self.name, known)
      raise ProbeError(
        f"{type(task).__name__} makes no label '{self.name}'.{near} It makes"
        f" {', '.join(known) or 'none'}."
      )
    return known[self.name]


def _full(x_1L: jax.Array, batch: Batch) -> jax.Array:
  """Returns coordinates with the batch axis of the inputs."""
  return jnp.broadcast_to(x_1L, batch.input_BL.shape)


def _after(batch: Batch, ahead: int) -> tuple[jax.Array, jax.Array]:
  """Returns the token some places after each, and 1 where the text has one."""
  token_BL, order_BL = batch.input_BL, _full(batch.at.order_BL, batch)

  def moved(x_BL: jax.Array, absent: int) -> jax.Array:
    return jnp.pad(x_BL, ((0, 0), (0, ahead)), constant_values=absent)[:, ahead:]

  same_BL = moved(order_BL, -1) == order_BL + ahead
  return moved(token_BL, 0), (same_BL & (order_BL >= 0)) * 1.0


def _check_ahead(name: str, ahead: int) -> None:
  if ahead < 1:
    raise SpecError(f"{name}: ahead is {ahead}; write 1 or more")
