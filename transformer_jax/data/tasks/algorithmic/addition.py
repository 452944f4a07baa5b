"""Add two numbers, digit by digit."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch, tasks
from transformer_jax.data.tasks.algorithmic import token_ids
from transformer_jax.data.tasks.algorithmic.base import (
  FIRST,
  SEPARATOR,
  START,
  Strings,
  below,
  from_end,
)
from transformer_jax.data.token_labels import TokenLabel
from transformer_jax.spec import SpecError


@tasks.register("addition")
@dataclasses.dataclass(frozen=True)
class Addition(Strings):
  """Adds two numbers below base**length, written with leading zeros.

  The length counts the digits of an operand; the answer has one more.

  reversed            whether the answer starts with its least significant digit
  reversed_operands   whether operands do
  hints               number of hint symbols, each before its digit: a random run of
                      them, the same in all three numbers, in order of
                      significance. Zhou et al., 2024. https://arxiv.org/abs/2402.09371

  >>> import transformer_jax as tj
  >>> tj.tasks.build("addition").problem(2)  # 34 + 09 = 043
  ([3, 4, 10, 0, 9], [0, 4, 3])
  """

  base: int = 10
  reversed: bool = False
  reversed_operands: bool = False
  hints: int | None = None

  @property
  def symbols(self) -> int:
    """The digits, the plus sign and the hints."""
    return self.base + 1 + (self.hints or 0)

  @property
  def width(self) -> int:
    """Number of symbols per digit."""
    return 2 if self.hints else 1

  @property
  def answers(self) -> int | None:
    return None if self.hints else self.base

  def sizes(self, length):
    return 2 * self.width * length + 1, self.width * (length + 1)

  def numbers(self, max_length):
    return 2 * max_length + bool(self.hints)

  def strings(self, random_N, length, max_length):
    digit_N = below(self.base, random_N[bool(self.hints) :])
    first_L, second_L = digit_N.reshape(max_length, 2).T
    hint_A = self._hints(random_N[0], length, max_length)

    def write(digit_L):
      return self._write(digit_L, hint_A[:max_length], length, self.reversed_operands)

    plus = self.width * length
    prompt_P = jnp.zeros(self.sizes(max_length)[0], jnp.int32)
    prompt_P = prompt_P.at[: self.width * max_length].set(write(first_L))
    prompt_P = prompt_P.at[plus].set(self.base)
    prompt_P = jax.lax.dynamic_update_slice(prompt_P, write(second_L), (plus + 1,))
    beyond_L = jnp.arange(max_length) >= length
    sum_A = add(jnp.where(beyond_L, 0, first_L + second_L), self.base)
    return prompt_P, self._write(sum_A, hint_A, length + 1, self.reversed)

  def ids(self, length, max_length):
    """Returns two kinds of ids; none with hints, which carry the same information.

    abacus    the place of a digit in its number, from 1: the digit's significance if
              operands and answer are reversed. McLeish et al., 2024.
              https://arxiv.org/abs/2405.17399
    coupled   1 for plus, 2 for the least significant digit of each number, and so on;
              the separator is one step before the answer. Cho et al., 2024.
              https://arxiv.org/abs/2405.20671
    """
    if self.hints:
      return {}
    prompt_P, answer_A = jnp.arange(2 * max_length + 1), jnp.arange(max_length + 1)
    place_P = jnp.where(prompt_P < length, prompt_P, prompt_P - length - 1)
    worth_P = place_P if self.reversed_operands else length - 1 - place_P
    worth_A = answer_A if self.reversed else length - answer_A

    def operands(id_P, plus):
      return jnp.where(prompt_P == length, plus, id_P)

    before = 1 if self.reversed else length + 3
    rows = {
      "abacus_BL": (operands(1 + place_P, 0), 0, 1 + answer_A),
      "coupled_BL": (operands(2 + worth_P, 1), before, 2 + worth_A),
    }
    return {name: token_ids.row(*own, self.sizes(length)) for name, own in rows.items()}

  def probe_labels(self):
    """Returns `carry`: that into the digit which a token predicts; none with hints."""
    return {} if self.hints else {"carry": TokenLabel(2, self._carry)}

  def _carry(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
    token_BL, place_L = batch.input_BL, jnp.arange(batch.input_BL.shape[1])

    def first(token):
      return jnp.argmax(token_BL == token, axis=1, keepdims=True)

    start_B1, plus_B1 = first(START), first(FIRST + self.base)
    length_B1 = plus_B1 - start_B1 - 1
    index_BL = place_L - first(SEPARATOR)  # of the predicted digit in the answer
    worth_BL = index_BL if self.reversed else length_B1 - index_BL
    digit_BL = worth_BL if self.reversed_operands else length_B1 - 1 - worth_BL

    def operand(before_B1):
      symbol_BL = jnp.take_along_axis(token_BL, before_B1 + 1 + digit_BL, axis=1)
      return jnp.where(worth_BL < length_B1, symbol_BL - FIRST, 0)

    known_BL = (index_BL >= 0) & (index_BL <= length_B1)
    sum_BL = operand(start_B1) + operand(plus_B1)
    carry_BL = (batch.target_BL - FIRST - sum_BL) % self.base
    return jnp.where(known_BL, carry_BL, 0), known_BL.astype(jnp.float32)

  def _hints(self, random, length, max_length):
    """Returns the hint of each digit of the answer, least significant first."""
    if not self.hints:
      return jnp.zeros(max_length + 1, jnp.int32)
    if self.hints <= max_length:
      raise SpecError(
        f"addition: sums of {max_length} digits need {max_length + 1} hints, not"
        f" {self.hints}; write hints={max_length + 1} or ask for shorter lengths"
      )
    start = below(self.hints - length, random)
    return self.base + 1 + start + jnp.arange(max_length + 1)

  def _write(self, digit_L, hint_L, size, backwards):
    """Returns the symbols of a number from digits, the least significant first."""
    pair_LW = jnp.stack([hint_L, digit_L], axis=1)[:, -self.width :]
    return (pair_LW if backwards else from_end(pair_LW, size)).reshape(-1)


def add(sum_L: jax.Array, base: int) -> jax.Array:
  """Carries: returns the digits of sum(sum_L * base**L), least significant first.

  sum_L: sums of two digits, 0 to 2 * base - 2
  """
  # A sum of base - 1 passes a carry on; any other decides: the last decided one counts.
  decides_L = jnp.where(sum_L == base - 1, -1, jnp.arange(sum_L.shape[0]))
  decided_L = jax.lax.cummax(decides_L)
  carry_L = (decided_L >= 0) & (sum_L[decided_L] >= base)
  return (jnp.pad(sum_L, (0, 1)) + jnp.pad(carry_L, (1, 0))) % base
