"""Flip-flop language. Liu et al., 2023. https://arxiv.org/abs/2306.00946"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import FIRST, Strings, below
from transformer_jax.spec import SpecError

WRITE, READ, IGNORE = 2, 3, 4  # after the bits


@tasks.register("flip_flop")
@dataclasses.dataclass(frozen=True)
class FlipFlop(Strings):
  """Flip-flop language: `write` a bit, `ignore` a bit, `read` the last one written.

  The prompt is the first instruction, a write, and its bit. The rest is the answer;
  only its bits after reads count. The length counts its instructions, and the last one
  is a read: the paper's 512 tokens have a length of 255.

  ignore   the share of ignore instructions; half of the others write
  tested   that share in evaluation (the paper: 0.98 and 0.1); None: the same

  >>> import transformer_jax as tj
  >>> tj.tasks.build("flip_flop(ignore=0.5)").problem(8)  # 2 write, 3 read, 4 ignore
  ([2, 0], [2, 1, 3, 1, 3, 1, 3, 1, 2, 1, 4, 0, 4, 0, 3, 1])
  """

  ignore: float = 0.8
  tested: float | None = None

  symbols: ClassVar[int] = 5
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = 2

  def __post_init__(self):
    super().__post_init__()
    for name in ("ignore", "tested"):
      share = getattr(self, name)
      if share is not None and not 0 <= share <= 1:
        raise SpecError(f"flip_flop: {name} is {share}; it is a share, 0 to 1")

  def sizes(self, length):
    return 2, 2 * length

  def numbers(self, max_length):
    return 1 + 2 * max_length

  def strings(self, random_N, length, max_length):
    random_LT, place_L = random_N[1:].reshape(max_length, 2), jnp.arange(max_length)
    share_L = random_LT[:, 0] / 2.0**32
    acts_L = jnp.where(share_L < (1 + self.ignore) / 2, WRITE, READ)
    do_L = jnp.where(share_L < self.ignore, IGNORE, acts_L).at[length - 1].set(READ)
    # The prompt's bit precedes the others, at place 0.
    bit_L = below(2, jnp.append(random_N[0], random_LT[:, 1]))
    written_L = jax.lax.cummax(jnp.where(do_L == WRITE, 1 + place_L, 0))
    bits_L = jnp.where(do_L == READ, bit_L[written_L], bit_L[1:])
    answer_A = jnp.stack([do_L, bits_L], axis=1).reshape(-1)
    return jnp.stack([WRITE, bit_L[0]]), answer_A

  def finish(self, row_L, end, answer, scored):
    """Gives weight only to bits after a read."""
    row_L, weight_L = super().finish(row_L, end, answer, scored)
    after_L = jnp.roll(row_L, 1)
    return row_L, weight_L * (after_L == FIRST + READ)

  def score(self, arrays, key, batch_size, length, bucket):
    ignore = self.ignore if self.tested is None else self.tested
    posed = dataclasses.replace(self, ignore=ignore)
    return super(FlipFlop, posed).score(arrays, key, batch_size, length, bucket)
