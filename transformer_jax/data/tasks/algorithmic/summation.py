"""Sum digits. Kazemnejad et al., 2023. https://arxiv.org/abs/2305.19466"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below


@tasks.register("summation")
@dataclasses.dataclass(frozen=True)
class Summation(Strings):
  """Answers with the last digit of the sum of digits from 1 to 9.

  The length counts the digits. The plus signs between them are left out.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("summation").problem(4)  # 20
  ([9, 1, 3, 7], [0])
  """

  symbols: ClassVar[int] = 10
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = 10

  def sizes(self, length):
    return length, 1

  def strings(self, random_N, length, max_length):
    digit_L = 1 + below(9, random_N)
    total = jnp.sum(jnp.where(jnp.arange(max_length) < length, digit_L, 0))
    return digit_L, total[None] % 10
