"""Word problems of groups. Merrill et al., 2024. https://arxiv.org/abs/2404.08819"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.base import Batch, Task, tasks
from transformer_jax.data.tasks.algorithmic import finite_groups
from transformer_jax.data.tasks.algorithmic.base import FIRST, PAD, START, below
from transformer_jax.data.token_labels import TokenLabel
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError


@tasks.register("group_word")
@dataclasses.dataclass(frozen=True)
class GroupWord(Task):
  """Word problem of a group: at each element, predict the product of all so far.

  The input is [start] and elements of the group, equally likely; the length counts
  them. The target at the t-th is x_1 x_2 ... x_t, each new one multiplied on the right,
  so the task is state tracking: S5 and A5 are complete for NC1, Z60 and A4_x_Z5 are
  not. Every row has exactly the length, as each of its beginnings is a problem as well.

  group    S5 (all permutations), A5 (the even ones), Z60 (sums modulo 60), A4_x_Z5, ...
  moved    draw only elements that move at most so many points: 2 has swaps and the
           identity alone (Grazzi et al., 2024, https://arxiv.org/abs/2411.12537)
  scored   number of the last elements that evaluation counts; None: all

  >>> import transformer_jax as tj
  >>> task = tj.tasks.build("group_word('Z60')")
  >>> task.vocabulary, task.tokens(3)
  (64, 4)
  >>> task.products(np.array([50, 20, 5])).tolist()
  [50, 10, 15]
  """

  group: str = "S5"
  moved: int | None = None
  scored: int | None = None

  kind: ClassVar[str] = "decoder"

  def __post_init__(self):
    finite_groups.build(self.group)
    if self.scored is not None and self.scored < 1:
      raise SpecError(f"group_word: scored is {self.scored}; it must be at least 1")
    if len(self._drawn_N) < 2:
      raise SpecError(
        f"group_word: moved={self.moved} leaves only the identity of {self.group};"
        " raise it, or leave it out to draw all elements"
      )

  @property
  def _group(self) -> finite_groups.FiniteGroup:
    return finite_groups.build(self.group)

  @property
  def _drawn_N(self) -> np.ndarray:
    """The elements that inputs are drawn from."""
    moved_N = self._group.moved_N
    return np.flatnonzero(moved_N <= (np.inf if self.moved is None else self.moved))

  @property
  def vocabulary(self) -> int:
    """Number of tokens: four special ones and the elements."""
    return FIRST + self._group.order

  def tokens(self, length: int) -> int:
    return length + 1

  def chance(self, measure: str, length: int) -> float | None:
    """Returns the score of guessing among all elements, equally likely."""
    counted = length if self.scored is None else min(self.scored, length)
    power = {"accuracy": 1, "exact_match": counted}.get(measure)
    return None if power is None else float(self._group.order) ** -power

  def products(self, element_L: Any) -> jax.Array:
    """Returns the product of all elements up to each, int32, over the last axis."""
    table_NN = jnp.asarray(self._group.table_NN)

    def multiply(first, second):
      return table_NN[first, second]

    return jax.lax.associative_scan(multiply, jnp.asarray(element_L), axis=-1)

  def probe_labels(self) -> dict[str, TokenLabel]:
    """Returns `state`: the product so far."""

    def compute(batch):
      real_BL = batch.input_BL >= FIRST
      label_BL = jnp.where(real_BL, batch.target_BL - FIRST, 0)
      return label_BL, real_BL.astype(jnp.float32)

    return {"state": TokenLabel(self._group.order, compute)}

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns words of exactly `length` elements. Arguments: see `Task.batch`."""
    input_BL, target_BL = self._words(key, batch_size, length)
    weight_BL = (input_BL >= FIRST).astype(jnp.float32)
    return Batch(input_BL, target_BL, weight_BL, coords.consecutive(1, length + 1))

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns words of exactly `length`, padded left. Arguments: see `Task.score`."""
    input_BL, target_BL = self._words(key, batch_size, bucket)
    absent, place_L = bucket - length, jnp.arange(bucket + 1)
    real_L = place_L >= absent
    input_BL = jnp.where(real_L, jnp.roll(input_BL, absent, axis=1), PAD)
    target_BL = jnp.where(real_L, jnp.roll(target_BL, absent, axis=1), PAD)
    counted = length if self.scored is None else jnp.minimum(self.scored, length)
    weight_L = (place_L > bucket - counted).astype(jnp.float32)
    weight_BL = jnp.broadcast_to(weight_L, input_BL.shape)
    return Batch(input_BL, target_BL, weight_BL, coords.padded(real_L[None]))

  def _words(self, key, rows, length):
    """Returns [start] and elements, and what is predicted at each, as tokens.

    The n-th element does not depend on `length`.
    """

    def draw(n):
      return jax.random.bits(jax.random.fold_in(key, n), (rows,))

    random_BL = jax.vmap(draw, out_axes=1)(jnp.arange(length))
    drawn_N = jnp.asarray(self._drawn_N, jnp.int32)
    element_BL = drawn_N[below(len(drawn_N), random_BL)]

    def marked(token_BL, mark):
      return jnp.pad(FIRST + token_BL, ((0, 0), (1, 0)), constant_values=mark)

    # What the start predicts, the identity, does not count.
    return marked(element_BL, START), marked(self.products(element_BL), FIRST)
