"""Algorithmic tasks for encoder-decoders: prompt as source, answer as target."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch, tasks
from transformer_jax.data.tasks.algorithmic.base import PAD, START, shifted
from transformer_jax.data.tasks.wrappers.base import Posed
from transformer_jax.positions import coords


@tasks.register("pairs")
@dataclasses.dataclass(frozen=True)
class Seq2Seq(Posed):
  """Wrapper for encoder-decoders: the source is the prompt, the target its answer.

  With the same key both tasks pose the same problems and count the same targets. The
  decoder reads [start] answer and predicts answer [end].

  task   an algorithmic task: copy, reverse, sort, addition, ...

  >>> import transformer_jax as tj
  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> task = tj.tasks.build("pairs(repeat(symbols=1, fixed=True))")
  >>> batch = evaluate(lambda: task.batch((), jax.random.key(0), 1, length=2))
  >>> batch.source_BL.tolist(), batch.input_BL.tolist(), batch.target_BL.tolist()
  ([[4, 4]], [[1, 4, 4]], [[4, 4, 3]])
  """

  kind: ClassVar[str] = "encoder_decoder"

  def tokens(self, length: int) -> int:
    """Returns the longer of prompt and [start] answer."""
    prompt, answer = self.task.sizes(length)
    return max(prompt, answer + 1)

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns the problems of 1 to `length`, both sides padded on the right.

    Arguments are those of `Task.batch`.
    """
    examples = self.task.examples(key, batch_size, length, progress=progress)
    prompt_BP, answer_BA, length_B = examples
    lay_out = jax.vmap(lambda answer_A, n: self._lay_out(answer_A, n, None))
    ids, source_ids = jax.vmap(lambda n: self._ids(n, length))(length_B)
    at = coords.consecutive(1, answer_BA.shape[1] + 1).replace(data=ids)
    token_BL, weight_BL = lay_out(answer_BA, length_B)
    text = shifted(token_BL, weight_BL, at)
    place_P = jnp.arange(prompt_BP.shape[1])
    # Padding is on the right of the target, but the source's needs a mask.
    real_BP = jax.vmap(lambda n: place_P < self.task.sizes(n)[0])(length_B)
    source_BP = jnp.where(real_BP, prompt_BP, PAD)
    source_at = coords.padded(real_BP).replace(data=source_ids)
    return dataclasses.replace(text, source_BL=source_BP, source_at=source_at)

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns problems of exactly `length`, both sides aligned right.

    Arguments are those of `Task.score`.
    """
    prompt_BP, answer_BA, length_B = self.task.examples(key, batch_size, bucket, length)
    lay_out = jax.vmap(lambda answer_A, n: self._lay_out(answer_A, n, self.task.scored))
    P, A = prompt_BP.shape[1], answer_BA.shape[1]
    prompt, answer = self.task.sizes(length)
    token_BL, weight_BL = (
      jnp.roll(x_BL, A - answer, axis=1) for x_BL in lay_out(answer_BA, length_B)
    )
    ids, source_ids = self._ids(length, bucket)

    def rolled(ids, absent):
      return jax.tree.map(lambda x: jnp.roll(x, absent)[None], ids)

    at = coords.padded(jnp.arange(A + 1)[None] >= A - answer)
    at = at.replace(data=rolled(ids, A - answer))
    text = shifted(token_BL, weight_BL, at)
    real_1P = jnp.arange(P)[None] >= P - prompt
    source_BP = jnp.where(real_1P, jnp.roll(prompt_BP, P - prompt, axis=1), PAD)
    source_at = coords.padded(real_1P).replace(data=rolled(source_ids, P - prompt))
    return dataclasses.replace(text, source_BL=source_BP, source_at=source_at)

  def _ids(self, length, max_length):
    """Returns the ids of one [start] answer, and of its prompt, padded on the right.

    The separator's place in the text is that of its start.
    """
    prompt, (P, A) = self.task.sizes(length)[0], self.task.sizes(max_length)
    whole = self.task.ids(length, max_length)

    def cut(id_L):
      return jax.lax.dynamic_slice(id_L, (prompt + 1,), (A + 1,))

    def source(id_L):
      return jnp.where(jnp.arange(P) < prompt, id_L[1 : P + 1], 0)

    return jax.tree.map(cut, whole), jax.tree.map(source, whole)

  def _lay_out(self, answer_A, length, scored):
    """Returns [start] answer [end] and its weights, padded on the right."""
    row_L = jnp.append(START, jnp.append(answer_A, PAD))
    answer = self.task.sizes(length)[1]
    return self.task.finish(row_L, answer + 1, answer, scored)
