"""Evaluate a polynomial. Kazemnejad et al., 2023. https://arxiv.org/abs/2305.19466"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below


@tasks.register("polynomial")
@dataclasses.dataclass(frozen=True)
class Polynomial(Strings):
  """Answers with a sum of terms c * x**d, modulo 10. The length counts the terms.

  The prompt is x, from -2 to 2, then c, from -3 to 3, and d, from 0 to 3, of each term.
  A number with its sign is one symbol, and the other signs are left out.

  >>> import transformer_jax as tj
  >>> # Symbols are numbers + 3: x = 2, and 0 * x - 1 * x**3 = -8, which is 2 modulo 10.
  >>> tj.tasks.build("polynomial").problem(2)
  ([5, 3, 4, 2, 6], [5])
  """

  symbols: ClassVar[int] = 13  # the numbers from -3 to 9
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = 10

  def sizes(self, length):
    return 2 * length + 1, 1

  def numbers(self, max_length):
    return 2 * max_length + 1

  def strings(self, random_N, length, max_length):
    x = below(5, random_N[0]) - 2
    random_LT = random_N[1:].reshape(max_length, 2)
    factor_L, degree_L = below(7, random_LT[:, 0]) - 3, below(4, random_LT[:, 1])
    term_L = jnp.where(jnp.arange(max_length) < length, factor_L * x**degree_L, 0)
    terms_P = jnp.stack([factor_L, degree_L], axis=1).reshape(-1)
    # Numbers start at -3, token ids at 0.
    return jnp.append(x, terms_P) + 3, jnp.sum(term_L)[None] % 10 + 3
