"""Find a hidden key. Mohtashami and Jaggi, 2023. https://arxiv.org/abs/2305.16300"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below
from transformer_jax.spec import SpecError


@tasks.register("passkey")
@dataclasses.dataclass(frozen=True)
class Passkey(Strings):
  """Passkey retrieval: the digits of a key among filler symbols.

  A mark precedes the key. The length counts the fillers, which are random and never
  digits; in the paper they are four repeated sentences.

  digits    number of digits of the key
  fillers   number of different filler symbols
  depth     the share of the fillers before the mark, 0 to 1; None: any

  >>> import transformer_jax as tj
  >>> tj.tasks.build("passkey(digits=2, fillers=4)").problem(4)
  ([11, 14, 14, 14, 10, 9, 3], [9, 3])
  """

  digits: int = 5
  fillers: int = 16
  depth: float | None = None
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = 10

  def __post_init__(self):
    super().__post_init__()
    if self.depth is not None and not 0 <= self.depth <= 1:
      raise SpecError(f"passkey: depth is {self.depth}; it is a share, 0 to 1")

  @property
  def symbols(self) -> int:
    """Ten digits, the mark, then the fillers."""
    return 11 + self.fillers

  def sizes(self, length):
    return length + 1 + self.digits, self.digits

  def numbers(self, max_length):
    return 1 + self.digits + self.sizes(max_length)[0]

  def strings(self, random_N, length, max_length):
    depth = below(length + 1, random_N[0])
    if self.depth is not None:
      depth = jnp.int32(self.depth * length + 0.5)
    key_A = below(10, random_N[1 : 1 + self.digits])
    filler_P = 11 + below(self.fillers, random_N[1 + self.digits :])
    # The mark and the key overwrite fillers.
    hidden_K = jnp.append(10, key_A)
    return jax.lax.dynamic_update_slice(filler_P, hidden_K, (depth,)), key_A
