"""Multi-query recall. Arora et al., 2023. https://arxiv.org/abs/2312.04927"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below
from transformer_jax.data.tasks.algorithmic.permutation import shuffled
from transformer_jax.spec import SpecError


@tasks.register("mqar")
@dataclasses.dataclass(frozen=True)
class MultiQueryRecall(Strings):
  """Multi-query associative recall, in random order. The length counts the pairs.

  The prompt is key value key value ...; the answer is the same pairs in another order.
  Its keys are the queries, and only its values count. Keys differ, so `keys` bounds the
  length. In the paper's data other tokens may stand between queries, and values differ
  too.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("mqar(keys=4, values=9)").problem(3)
  ([9, 7, 10, 7, 11, 1], [11, 1, 10, 7, 9, 7])
  """

  keys: int = 128
  values: int = 16
  stops: ClassVar[bool] = False

  @property
  def symbols(self) -> int:
    """Values come first, then keys."""
    return self.values + self.keys

  @property
  def answers(self) -> int:
    return self.values

  def sizes(self, length):
    return 2 * length, 2 * length

  def numbers(self, max_length):
    return self.keys + 2 * max_length

  def strings(self, random_N, length, max_length):
    if max_length > self.keys:
      raise SpecError(
        f"mqar: {max_length} pairs need as many different keys, but there are"
        f" {self.keys}; write mqar(keys={max_length}) or ask for shorter lengths"
      )
    key_L = self.values + jnp.argsort(random_N[: self.keys])[:max_length]
    random_LT = random_N[self.keys :].reshape(max_length, 2)
    pair_LT = jnp.stack([key_L, below(self.values, random_LT[:, 0])], axis=1)
    asked_LT = pair_LT[shuffled(random_LT[:, 1], length)]
    return pair_LT.reshape(-1), asked_LT.reshape(-1)

  def finish(self, row_L, end, answer, scored):
    """Gives weight only to tokens after a key of the answer."""
    row_L, weight_L = super().finish(row_L, end, answer, scored)
    value_L = (jnp.arange(row_L.shape[0]) - (end - answer)) % 2
    return row_L, weight_L * value_L
