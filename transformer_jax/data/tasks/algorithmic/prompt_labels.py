"""Labels of the symbols of a prompt, for probes of algorithmic tasks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch
from transformer_jax.data.tasks.algorithmic.base import FIRST, SEPARATOR, START
from transformer_jax.data.token_labels import TokenLabel


def of_prompt(
  classes: int,
  label: Callable[[jax.Array, jax.Array], jax.Array],
  ordered: bool = False,
) -> TokenLabel:
  """Returns a label of each symbol of the prompt; other tokens have none.

  classes   number of classes
  label     from symbol_BL and inside_BL, true within the prompt, to label_BL; larger
            ones count as the last class
  ordered   whether classes are numbers

  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> ones = of_prompt(9, lambda x_BL, inside_BL: jnp.cumsum(x_BL * inside_BL, axis=1))
  >>> import transformer_jax as tj
  >>> key, task = jax.random.key(0), tj.tasks.build("parity")
  >>> batch = evaluate(lambda: task.score((), key, 1, jnp.int32(3), 3))
  >>> label_BL, weight_BL = evaluate(lambda: ones.compute(batch))
  >>> weight_BL.tolist()
  [[0.0, 1.0, 1.0, 1.0, 0.0, 0.0]]
  """

  def compute(batch: Batch) -> tuple[jax.Array, jax.Array]:
    token_BL = batch.input_BL
    opened_BL = jnp.cumsum(token_BL == START, axis=1)
    closed_BL = jnp.cumsum(token_BL == SEPARATOR, axis=1)
    inside_BL = (opened_BL > closed_BL) & (token_BL >= FIRST)
    label_BL = label(token_BL - FIRST, inside_BL)
    label_BL = jnp.where(inside_BL, jnp.minimum(label_BL, classes - 1), 0)
    return label_BL.astype(jnp.int32), inside_BL.astype(jnp.float32)

  return TokenLabel(classes, compute, ordered)


def depth(opens: int, closes: int, classes: int = 8) -> TokenLabel:
  """Returns the number of open brackets after each symbol of the prompt.

  opens, closes   symbols of the brackets
  classes         deeper places count as the last one
  """

  def label(symbol_BL: jax.Array, inside_BL: jax.Array) -> jax.Array:
    step_BL = (symbol_BL == opens).astype(jnp.int32) - (symbol_BL == closes)
    return jnp.cumsum(jnp.where(inside_BL, step_BL, 0), axis=1)

  return of_prompt(classes, label, ordered=True)
