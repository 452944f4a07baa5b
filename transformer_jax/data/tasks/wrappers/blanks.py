"""Algorithmic tasks for encoders: all answer symbols are predicted at once.

Delétang et al., 2022. https://arxiv.org/abs/2207.02098
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch, tasks
from transformer_jax.data.tasks.algorithmic.base import PAD, SEPARATOR, Strings
from transformer_jax.data.tasks.wrappers.base import Posed
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError

BLANK = SEPARATOR  # this layout has no separator


@tasks.register("blanks")
@dataclasses.dataclass(frozen=True)
class Blanks(Posed):
  """Wrapper with prompt and blanks as input, one blank per answer symbol.

  With the same key both tasks pose the same problems. The model reads everything at
  once and predicts an answer symbol at each blank, so there are no shift, no end token,
  and no answer symbols to attend to. As published, training counts every blank and
  evaluation those up to a terminator.

  task   an algorithmic task: reverse, parity, binary_addition, ...

  >>> import transformer_jax as tj
  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> task = tj.tasks.build("blanks(repeat(symbols=1, fixed=True))")
  >>> batch = evaluate(lambda: task.batch((), jax.random.key(0), 1, length=2))
  >>> batch.input_BL.tolist(), batch.target_BL.tolist()
  ([[4, 4, 2, 2]], [[0, 0, 4, 4]])
  """

  kind: ClassVar[str] = "encoder"

  def __post_init__(self):
    super().__post_init__()
    if type(self.task).finish is not Strings.finish:
      name = type(self.task).__name__.lower()
      raise SpecError(
        f"blanks: part of the answer of {name} is the question, which blanks would"
        " hide; use it in a decoder"
      )

  def tokens(self, length: Any) -> Any:
    """Returns the symbols of prompt and answer."""
    return sum(self.task.sizes(length))

  def chance(self, measure: str, length: int) -> float | None:
    """Returns the score of guessing; no end token counts."""
    return self.task.guess(measure, length, ends=False)

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns the problems of 1 to `length`, padded on the right.

    Arguments are those of `Task.batch`.
    """
    examples = self.task.examples(key, batch_size, length, progress=progress)
    input_BL, target_BL, _, blank_BL = self._laid_out(examples, length)
    at = coords.padded(input_BL != PAD)
    return Batch(input_BL, target_BL, blank_BL.astype(jnp.float32), at)

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns problems of exactly `length`, padded on the left.

    Arguments are those of `Task.score`.
    """
    absent = self.tokens(bucket) - self.tokens(length)
    examples = self.task.examples(key, batch_size, bucket, length)
    input_BL, target_BL, weight_BL, _ = (
      jnp.roll(x_BL, absent, axis=1) for x_BL in self._laid_out(examples, bucket)
    )
    real_1L = jnp.arange(self.tokens(bucket))[None] >= absent
    return Batch(input_BL, target_BL, weight_BL, coords.padded(real_1L))

  def _laid_out(
    self, examples: tuple[jax.Array, jax.Array, jax.Array], max_length: int
  ) -> tuple[jax.Array, ...]:
    """Returns input_BL, target_BL, weight_BL and blank_BL, padded on the right."""
    prompt_BP, answer_BA, length_B = examples

    def lay_out(prompt_P, answer_A, length):
      return self._lay_out(prompt_P, answer_A, length, max_length)

    return jax.vmap(lay_out)(prompt_BP, answer_BA, length_B)

  def _lay_out(self, prompt_P, answer_A, length, max_length):
    """Returns inputs, targets and weights of a row, and a mask of its blanks."""
    prompt, answer = self.task.sizes(length)
    row_L = jnp.full(self.tokens(max_length) + 1, PAD, jnp.int32)
    row_L = jax.lax.dynamic_update_slice(row_L, prompt_P, (0,))
    row_L = jax.lax.dynamic_update_slice(row_L, answer_A, (prompt,))
    row_L, weight_L = self.task.finish(row_L, prompt + answer, answer, self.task.scored)
    place_L = jnp.arange(row_L.size)
    blank_L = (place_L >= prompt) & (place_L < prompt + answer)
    input_L = jnp.where(blank_L, BLANK, jnp.where(place_L < prompt, row_L, PAD))
    target_L = jnp.where(blank_L, row_L, PAD)
    row = input_L, target_L, weight_L * blank_L, blank_L
    return tuple(array_L[:-1] for array_L in row)
