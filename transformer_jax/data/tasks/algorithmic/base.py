"""Base class of algorithmic tasks: [start] prompt [separator] answer [end].

A task defines the lengths of its two strings and draws them for one row; this file
lays them out for a decoder that reads every token but the last.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import numpy_interpreter
from transformer_jax.axes import whole
from transformer_jax.data.base import Batch, Task
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError, check_seed

PAD, START, SEPARATOR, END, FIRST = range(5)  # symbol n is the token FIRST + n


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strings(Task):
  """Base class of algorithmic tasks. The loss counts the answer and the end token.

  symbols     number of symbols of the strings
  stops       whether to predict the end token too; False: the answer's size is known
  scored      number of the answer's last symbols that evaluation counts; None: all, and
              the end token
  terminator  the symbol after which the rest of an answer is padding of weight zero;
              None: all of the answer counts
  answers     number of symbols that each of the answer's may be; None: unknown
  fixed       train on exactly the task length; False: on lengths from 1 up to it
  curriculum  the share of training in which the longest length grows from 1 to the task
              length; 0: no curriculum

  >>> from transformer_jax.data.base import tasks
  >>> task = tasks.build("copy")
  >>> task.sizes(3), task.tokens(3), task.vocabulary
  ((3, 3), 8, 20)
  """

  if TYPE_CHECKING:  # a subclass declares each as a constant, a field or a property

    @property
    def symbols(self) -> int: ...
    @property
    def scored(self) -> int | None: ...
    @property
    def answers(self) -> int | None: ...
  else:
    symbols: ClassVar[int]
    scored: ClassVar[int | None] = None
    answers: ClassVar[int | None] = None
  stops: ClassVar[bool] = True
  terminator: ClassVar[int | None] = None
  fixed: bool = False
  curriculum: float = 0.0

  def __post_init__(self):
    name = type(self).__name__.lower()
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if type(value) is int and value < 1 and field.name != "curriculum":
        raise SpecError(f"{name}: {field.name} is {value}; it must be at least 1")
    if not 0 <= self.curriculum <= 1:
      raise SpecError(
        f"{name}: curriculum is {self.curriculum}; it is a share of training, 0 to 1"
      )
    if self.fixed and self.curriculum:
      raise SpecError(
        f"{name}: fixed trains on one length, curriculum on growing ones; drop one"
      )

  @property
  def vocabulary(self) -> int:
    """Number of tokens: four special ones and the symbols."""
    return FIRST + self.symbols

  def sizes(self, length: Any) -> tuple[Any, Any]:
    """Returns the numbers of symbols of the prompt and of the answer."""
    raise NotImplementedError

  def numbers(self, max_length: int) -> int:
    """Returns the number of random numbers of one row."""
    return max_length

  def strings(
    self, random_N: jax.Array, length: jax.Array, max_length: int
  ) -> tuple[jax.Array, jax.Array]:
    """Returns one prompt and its answer, padded with anything to `sizes(max_length)`.

    random_N: uint32; the n-th is independent of `max_length`
    """
    raise NotImplementedError

  def problem(self, length: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Returns the symbols of one prompt and of its answer, to look at.

    length   the task length
    seed     draws the problem; a batch of this seed has other ones

    Raises SpecError for a length or a seed that is impossible.
    """
    if not whole(length, 1):
      raise SpecError(f"length is {length!r}; write a whole number of at least 1")
    if not whole(seed, 0):
      raise SpecError(f"seed is {seed!r}; write a whole number of at least 0")
    check_seed(seed)
    draw = np.random.RandomState(seed).randint  # the same in every NumPy
    random_N = draw(2**32, size=self.numbers(length), dtype=np.uint32)

    def one(random_N):
      return self.strings(random_N, jnp.int32(length), length)

    prompt_P, answer_A = numpy_interpreter.evaluate(one, random_N)
    return prompt_P.tolist(), answer_A.tolist()

  def tokens(self, length: Any) -> Any:
    """[start] prompt [separator] answer: the end token is predicted, never read."""
    prompt, answer = self.sizes(length)
    return prompt + answer + 2

  def chance(self, measure: str, length: int) -> float | None:
    """Returns the score of guessing `answers` at each place, all equally likely.

    The end token, or the terminator, is one more where it counts.
    """
    return self.guess(measure, length, ends=self.stops and self.scored is None)

  def guess(self, measure: str, length: int, ends: bool) -> float | None:
    """Returns the score of guessing; `ends`: the end token counts."""
    if self.answers is None:
      return None
    share = 1 / (self.answers + (ends or self.terminator is not None))
    if measure == "accuracy":
      return share
    varies = self.terminator is not None or type(self).finish is not Strings.finish
    if measure != "exact_match" or varies:
      return None
    counted = self.sizes(length)[1]
    counted = counted if self.scored is None else min(self.scored, counted)
    return float(share ** (counted + ends))

  def ids(self, length: jax.Array, max_length: int) -> dict[str, jax.Array]:
    """Returns ids of one row's tokens, for encodings that read them; {}: no ids.

    Names end in BL; arrays are int32 over the `tokens(max_length) + 1` places of
    [start] prompt [separator] answer [end] padding. They become `Coords.data`.
    """
    return {}

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns strings of 1 to `length`, padded on the right.

    Padding needs no mask: under a causal mask no counted token attends to it.

    arrays       unused
    key          draws lengths and strings
    batch_size   rows
    length       the longest task length
    progress     the share of training that is over, 0 to 1, for `curriculum`
    """
    examples = self.examples(key, batch_size, length, progress=progress)
    token_BL, weight_BL = self._laid_out(examples, length, scored=None)
    ids = jax.vmap(lambda n: self.ids(n, length))(examples[2])
    at = coords.consecutive(1, self.tokens(length))
    at = at.replace(data={name: ids_BL[:, :-1] for name, ids_BL in ids.items()})
    return shifted(token_BL, weight_BL, at)

  def target_places(self, bucket: int) -> int | None:
    """Returns the answer's places at the end of a row, where all end in the same one.

    The end token's place is one of them, scored or not.
    """
    if type(self).finish is not Strings.finish:
      return None
    answer = self.sizes(bucket)[1]
    return 1 + (answer if self.scored is None else min(self.scored, answer))

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns strings of exactly `length`, aligned right in the bucket's tokens.

    arrays       unused
    key          draws the strings
    batch_size   rows
    length       int32 scalar, the task length
    bucket       the task length that sets the tokens of a row
    """
    L = self.tokens(bucket)
    absent = L - self.tokens(length)
    examples = self.examples(key, batch_size, bucket, length)
    token_BL, weight_BL = self._laid_out(examples, bucket, self.scored)
    token_BL = jnp.roll(token_BL, absent, axis=1)
    weight_BL = jnp.roll(weight_BL, absent, axis=1)
    ids = self.ids(length, bucket).items()
    data = {name: jnp.roll(ids_L, absent)[None, :-1] for name, ids_L in ids}
    at = coords.padded(jnp.arange(L)[None] >= absent)
    return shifted(token_BL, weight_BL, at.replace(data=data))

  def examples(
    self,
    key: jax.Array,
    rows: int,
    max_length: int,
    length: jax.Array | None = None,
    progress: float | jax.Array = 1.0,
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the tokens prompt_BP and answer_BA, padded with anything, and length_B.

    key          draws lengths and strings
    rows         B
    max_length   the task length that sets P and A
    length       of every row; None: each row draws one, as in training
    progress     the share of training that is over, 0 to 1, for `curriculum`
    """
    numbers = jnp.arange(1 + self.numbers(max_length))

    def draw(n):
      return jax.random.bits(jax.random.fold_in(key, n), (rows,))

    random_BN = jax.vmap(draw, out_axes=1)(numbers)
    shortest = max_length if self.fixed else 1
    limit: int | jax.Array = max_length
    if self.curriculum:
      limit = jnp.ceil(max_length * progress / self.curriculum).astype(jnp.int32)
      limit = jnp.clip(limit, 1, max_length)
    # The first number of a row draws its length; evaluation ignores it.
    length_B = shortest + below(limit + 1 - shortest, random_BN[:, 0])
    length_B = length_B if length is None else jnp.full(rows, length)
    strings = jax.vmap(lambda random_N, n: self.strings(random_N, n, max_length))
    prompt_BP, answer_BA = strings(random_BN[:, 1:], length_B)
    return FIRST + prompt_BP, FIRST + answer_BA, length_B

  def finish(
    self, row_L: jax.Array, end: jax.Array, answer: jax.Array, scored: int | None
  ) -> tuple[jax.Array, jax.Array]:
    """Returns a row with its end token and padding, and the weights of its tokens.

    row_L    tokens; its last string is the answer
    end      index of the end token
    answer   number of symbols of the answer
    scored   as the attribute; None: all
    """
    place_L = jnp.arange(row_L.shape[0])
    row_L = jnp.where(place_L == end, END, jnp.where(place_L < end, row_L, PAD))
    first = end - answer if scored is None else end - jnp.minimum(scored, answer)
    last = end if scored is None and self.stops else end - 1
    weight_L = (place_L >= first) & (place_L <= last)
    if self.terminator is not None:
      closes_L = weight_L & (row_L == FIRST + self.terminator)
      weight_L &= jnp.cumsum(closes_L) - closes_L == 0
    return row_L, weight_L.astype(jnp.float32)

  def _laid_out(
    self,
    examples: tuple[jax.Array, jax.Array, jax.Array],
    max_length: int,
    scored: int | None,
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the token_BL and weight_BL of `examples`, padded on the right."""
    prompt_BP, answer_BA, length_B = examples

    def lay_out(prompt_P, answer_A, length):
      return self._lay_out(prompt_P, answer_A, length, max_length, scored)

    return jax.vmap(lay_out)(prompt_BP, answer_BA, length_B)

  def _lay_out(self, prompt_P, answer_A, length, max_length, scored):
    """Returns the tokens and weights of one row, int32 and float32 [L], padded right.

    prompt_P     tokens of the prompt, with anything after its end
    answer_A     tokens of the answer, with anything after its end
    length       task length of this row
    max_length   the task length that sets L
    scored       as the attribute; None: all
    """
    prompt, answer = self.sizes(length)
    row_L = jnp.full(self.tokens(max_length) + 1, PAD, jnp.int32)
    # Each string overwrites the padding of the one before it.
    row_L = row_L.at[0].set(START)
    row_L = jax.lax.dynamic_update_slice(row_L, prompt_P, (1,))
    row_L = row_L.at[prompt + 1].set(SEPARATOR)
    row_L = jax.lax.dynamic_update_slice(row_L, answer_A, (prompt + 2,))
    return self.finish(row_L, prompt + answer + 2, answer, scored)


def shifted(token_BL: jax.Array, weight_BL: jax.Array, at: coords.Coords) -> Batch:
  """Returns the batch that reads all tokens but the last, and predicts the next."""
  return Batch(token_BL[:, :-1], token_BL[:, 1:], weight_BL[:, 1:], at)


def below(limit: int | jax.Array, random_N: jax.Array) -> jax.Array:
  """Returns int32 numbers below `limit`, equally likely up to limit / 2**32."""
  return (random_N % jnp.uint32(limit)).astype(jnp.int32)


def from_end(drawn_L: jax.Array, length: jax.Array) -> jax.Array:
  """Returns the first `length` in reverse: the n-th drawn is the n-th from the end."""
  return drawn_L[jnp.maximum(length - 1 - jnp.arange(drawn_L.shape[0]), 0)]
