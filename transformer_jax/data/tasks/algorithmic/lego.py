"""LEGO, a chain of assignments. Zhang et al., 2022. https://arxiv.org/abs/2206.04301"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below
from transformer_jax.data.tasks.algorithmic.permutation import shuffled
from transformer_jax.spec import SpecError


@tasks.register("lego")
@dataclasses.dataclass(frozen=True)
class Lego(Strings):
  """LEGO: the value of a variable in a chain, + or -. The length counts the chain.

  The prompt is clauses of three symbols, `a - 1` for a = -1, then `b - a` for b = -a,
  and so on, and the queried variable, which is one of the second half of the chain.
  Kazemnejad et al., 2023, query each variable of that half in a separate row.
  https://arxiv.org/abs/2305.19466

  variables   number of variable names, which bounds the length
  shuffled    whether the clauses come in random order

  >>> import transformer_jax as tj
  >>> tj.tasks.build("lego(variables=4)").problem(3)  # a-1, d-a, b-d, b?
  ([3, 1, 2, 6, 1, 3, 4, 1, 6, 4], [1])
  """

  variables: int = 26
  shuffled: bool = False
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = 2

  @property
  def symbols(self) -> int:
    """Plus, minus, one, then the variables."""
    return 3 + self.variables

  def sizes(self, length):
    return 3 * length + 1, 1

  def numbers(self, max_length):
    return 1 + self.variables + 2 * max_length

  def strings(self, random_N, length, max_length):
    if max_length > self.variables:
      raise SpecError(
        f"lego: {max_length} clauses need as many variables, but there are"
        f" {self.variables}; write variables={max_length} or ask for shorter lengths"
      )
    name_L = 3 + jnp.argsort(random_N[1 : 1 + self.variables])[:max_length]
    random_LT = random_N[1 + self.variables :].reshape(max_length, 2)
    sign_L = below(2, random_LT[:, 0])
    given_L = jnp.append(2, name_L[:-1])
    clause_LC = jnp.stack([name_L, sign_L, given_L], axis=1)
    if self.shuffled:
      clause_LC = clause_LC[shuffled(random_LT[:, 1], length)]
    half = jnp.minimum((length + 1) // 2, length - 1)
    asked = half + below(length - half, random_N[0])
    prompt_P = jnp.append(clause_LC.reshape(-1), 0).at[3 * length].set(name_L[asked])
    return prompt_P, jnp.cumsum(sign_L)[asked][None] % 2
