"""Sums of real numbers among tokens: one token for each number, or its digits."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.base import Batch, Task, check_sizes, tasks
from transformer_jax.data.files import DataError
from transformer_jax.positions import coords
from transformer_jax.spec import nearest

DECIMALS = 100  # a number is a whole number of hundredths
LARGEST = 99  # two digits before the point
NUM, PLUS, MINUS, EQUALS = range(4)  # tokens of xVal
POSITIVE, NEGATIVE = 10, 11  # tokens after the ten digits


@dataclasses.dataclass(frozen=True)
class XvalForm:
  """A number is one token with a value: [B, L, 2], for the embedding `xval`.

  >>> XvalForm().number(jnp.array([-125])).tolist()  # hundredths
  [[[0.0, -1.25]]]
  """

  tokens: ClassVar[int] = 4
  per_number: ClassVar[int] = 1

  def number(self, hundredth_B: jax.Array) -> jax.Array:
    """Returns the places of a number."""
    value_B = hundredth_B / DECIMALS
    return jnp.stack([jnp.full_like(value_B, NUM), value_B], axis=-1)[:, None]

  def sign(self, token_B: jax.Array) -> jax.Array:
    """Returns the place of PLUS, MINUS or EQUALS."""
    token_B = token_B.astype(jnp.float32)
    return jnp.stack([token_B, jnp.ones_like(token_B)], axis=-1)[:, None]


@dataclasses.dataclass(frozen=True)
class DigitForm:
  """A number is five tokens, its sign and digits: [B, L], for the embedding `tokens`.

  >>> DigitForm().number(jnp.array([-125])).tolist()  # - 0 1 2 5
  [[11, 0, 1, 2, 5]]
  """

  tokens: ClassVar[int] = 15
  per_number: ClassVar[int] = 5

  def number(self, hundredth_B: jax.Array) -> jax.Array:
    """Returns the places of a number."""
    power_4 = jnp.array([1000, 100, 10, 1])
    digit_B4 = jnp.abs(hundredth_B)[:, None] // power_4 % 10
    sign_B1 = jnp.where(hundredth_B < 0, NEGATIVE, POSITIVE)[:, None]
    return jnp.concatenate([sign_B1, digit_B4], axis=1).astype(jnp.int32)

  def sign(self, token_B: jax.Array) -> jax.Array:
    """Returns the place of PLUS, MINUS or EQUALS."""
    return (NEGATIVE + token_B)[:, None].astype(jnp.int32)


FORMS: dict[str, XvalForm | DigitForm] = {"xval": XvalForm(), "digits": DigitForm()}


@tasks.register("real_sum")
@dataclasses.dataclass(frozen=True)
class RealSum(Task):
  """Sum of signed real numbers, as in 1.25 - -0.50 + 3.99 =, a number after the last.

  The length is the largest absolute value of a number: longer lengths are larger
  numbers than were trained on, in texts of the same size. Training draws numbers from
  0 to the length; those that are scored are in its upper half, so that at twice the
  trained length no number was in its range. Numbers have two decimals.

  terms      numbers that are added
  form       'xval', one token with a value for each number, Golkar et al., 2023,
             https://arxiv.org/abs/2310.02989, with model.embedding='xval(tokens=4)';
             or 'digits', a sign and four digits, with model.embedding='tokens'
  objective  squared_error, gaussian, quantiles((0.1, 0.5, 0.9)), or digits, which
             predicts the digits of the sum

  >>> task = tasks.build("real_sum(terms=2, form='digits')")
  >>> task.vocabulary, task.tokens(4), task.tokens(16)
  (15, 12, 12)
  """

  terms: int = 3
  form: str = "xval"
  objective: str = "squared_error"

  kind: ClassVar[str] = "decoder"
  target_numbers: ClassVar[int] = 1
  measures: ClassVar[tuple[str, ...]] = ("mae", "mse")
  length_name: ClassVar[str] = "largest number"

  def __post_init__(self):
    check_sizes("real_sum", terms=self.terms)
    if self.form not in FORMS:
      raise DataError(
        f"real_sum: there is no form '{self.form}'.{nearest(self.form, FORMS)} Write"
        f" {' or '.join(FORMS)}."
      )

  @property
  def _form(self) -> XvalForm | DigitForm:
    return FORMS[self.form]

  @property
  def vocabulary(self) -> int:
    return self._form.tokens

  def tokens(self, length: int) -> int:
    if not 1 <= length <= LARGEST:
      raise DataError(
        f"real_sum: numbers up to {length} have more than two digits; write lengths"
        f" from 1 to {LARGEST}"
      )
    return self.terms * (self._form.per_number + 1)

  def example(self, length: int) -> jax.Array:
    return jax.tree.map(
      jnp.zeros_like, self._read(*self._draw(jax.random.key(0), 1, 0, 1))
    )

  def chance(self, measure: str, length: int) -> float | None:
    """Returns the error of always saying 0, by a million drawn numbers."""
    powers = {"mae": 1, "mse": 2}
    if measure not in powers:
      return None
    rng = np.random.default_rng(0)
    size_NK = rng.uniform(length / 2, length, (250_000, self.terms))
    sum_N = (size_NK * rng.choice([-1, 1], size_NK.shape)).sum(1)
    return round(float((np.abs(sum_N) ** powers[measure]).mean()), 3)

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns sums of numbers from 0 to the length. Arguments: see `Task.batch`."""
    return self._batch(*self._draw(key, batch_size, 0, length))

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns sums of numbers in the upper half. Arguments: see `Task.score`."""
    return self._batch(*self._draw(key, batch_size, length / 2, length))

  def _draw(
    self, key: jax.Array, B: int, least: Any, most: Any
  ) -> tuple[jax.Array, jax.Array]:
    """Returns numbers, in hundredths, and whether each is subtracted, [B, terms].

    least, most   of the absolute values, which are above the one and up to the other
    """
    keys, size = jax.random.split(key, 3), (B, self.terms)
    low = jnp.asarray(least * DECIMALS, jnp.int32) + 1
    high = jnp.asarray(most * DECIMALS, jnp.int32) + 1
    size_BK = jax.random.randint(keys[0], size, low, high)
    sign_BK = jnp.where(jax.random.bernoulli(keys[1], shape=size), 1, -1)
    minus_BK = jax.random.bernoulli(keys[2], shape=size) & (jnp.arange(self.terms) > 0)
    return size_BK * sign_BK, minus_BK

  def _read(self, number_BK: jax.Array, minus_BK: jax.Array) -> jax.Array:
    """Returns the model's input."""
    parts = []
    for k in range(self.terms):
      if k:
        parts.append(self._form.sign(jnp.where(minus_BK[:, k], MINUS, PLUS)))
      parts.append(self._form.number(number_BK[:, k]))
    end_B = jnp.full(len(number_BK), EQUALS)
    return jnp.concatenate([*parts, self._form.sign(end_B)], axis=1)

  def _batch(self, number_BK: jax.Array, minus_BK: jax.Array) -> Batch:
    read = self._read(number_BK, minus_BK)
    B, L = read.shape[:2]
    sum_B = jnp.sum(jnp.where(minus_BK, -number_BK, number_BK), axis=1) / DECIMALS
    last_L = jnp.arange(L) == L - 1
    target_BLN = jnp.where(last_L[:, None], sum_B[:, None, None], 0.0)
    weight_BL = jnp.broadcast_to(last_L, (B, L)).astype(jnp.float32)
    return Batch(read, target_BLN, weight_BL, coords.consecutive(1, L))
