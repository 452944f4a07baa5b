"""Integer ids that relate tokens of a string, as inputs of positional encodings.

Coupled ids start at 1: a mark before a string that is written forwards has id 1 and the
string's places have 2, 3, ...; encodings may shift them. Other tokens have id 0.
"""

from typing import Any

import jax
import jax.numpy as jnp


def row(prompt_P: Any, separator: Any, answer_A: Any, sizes: tuple) -> jax.Array:
  """Returns the ids of [start] prompt [separator] answer [end], 0 for start and end.

  prompt_P, answer_A: padded with anything to the size at max_length
  sizes: numbers of symbols of the prompt and of the answer
  """
  prompt, answer = sizes
  P, A = prompt_P.shape[0], answer_A.shape[0]
  row_L = jnp.zeros(P + A + 3, jnp.int32)
  row_L = row_L.at[1 : P + 1].set(prompt_P)
  row_L = row_L.at[prompt + 1].set(separator)
  row_L = jax.lax.dynamic_update_slice(row_L, answer_A, (prompt + 2,))
  return jnp.where(jnp.arange(P + A + 3) < prompt + answer + 2, row_L, 0)


def joined(part_TL: Any, length: Any, mark: Any) -> jax.Array:
  """Returns the first `length` of each part, one after another, with marks between.

  mark: the mark after each part, or one for all
  """
  part_TL = jnp.stack(part_TL)
  T, L = part_TL.shape
  part_A, place_A = jnp.divmod(jnp.arange(T * (L + 1) - 1), length + 1)
  # Beyond the last part indices are clamped: those places are padding.
  mark_A = jnp.broadcast_to(jnp.asarray(mark), (T,))[part_A]
  return jnp.where(place_A == length, mark_A, part_TL[part_A, place_A])
