"""Layout of labelled texts: [start] a [end], or [start] a [end] b [end].

[CLS] and [SEP] of BERT: Devlin et al., 2019, figure 2. https://arxiv.org/abs/1810.04805
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.readers.labelled_text import Example
from transformer_jax.data.tokenizers import PAD

NONE = -1  # the class of a token that has none


@dataclasses.dataclass(frozen=True)
class Places:
  """Layout of rows: indices of their tokens in the arrays of `laid_end_to_end`.

  index_BL   the token of each place
  place_BL   0 at the start token, size + 1 at the end token, below 0 at padding
  first_B1   the first token of the example
  size_B1    number of places between the start and the end token
  second_BL  whether a place belongs to the second text of a pair, its end included
  end_BL     whether an end token is there

  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> data = {name: np.array([3]) for name in ("size_E", "before_E")}
  >>> data["start_E"] = np.array([0])
  >>> found = evaluate(lambda: vars(places(data, np.array([0]), 5, 6, pairs=False)))
  >>> found["place_BL"].tolist(), found["end_BL"].astype(int).tolist()
  ([[-1, 0, 1, 2, 3, 4]], [[0, 0, 0, 0, 0, 1]])
  """

  index_BL: jax.Array
  place_BL: jax.Array
  first_B1: jax.Array
  size_B1: jax.Array
  second_BL: jax.Array
  end_BL: jax.Array

  @property
  def real_BL(self) -> jax.Array:
    """Mask of tokens; False: padding."""
    return self.place_BL >= 0

  def tokens(self, token_N: jax.Array, frame_2: jax.Array) -> jax.Array:
    """Returns token_BL; frame_2: the start and the end token."""
    token_BL = jnp.where(self.end_BL, frame_2[1], token_N[self.index_BL])
    token_BL = jnp.where(self.place_BL == 0, frame_2[0], token_BL)
    return jnp.where(self.real_BL, token_BL, PAD)


def places(
  data: Mapping[str, Any], chosen_B: Any, length: Any, L: int, pairs: bool
) -> Places:
  """Returns the layout of examples, aligned right in rows of L tokens.

  Examples longer than `length` are truncated. The longer text of a pair loses tokens
  first; the second text does where both are equally long, as in
  https://github.com/google-research/bert.

  data       arrays of `laid_end_to_end`
  chosen_B   int32, numbers of the examples
  length     the most tokens of an example, special ones included; may be traced
  L          tokens of a row
  pairs      whether examples have a second text
  """
  names = "start_E", "size_E", "before_E"
  first_B1, size_B1, all_a_B1 = (data[name][chosen_B][:, None] for name in names)
  room = length - 2 - pairs
  b_B1 = jnp.minimum(size_B1 - all_a_B1, jnp.maximum(room // 2, room - all_a_B1))
  a_B1 = jnp.minimum(all_a_B1, room - b_B1)
  between_B1 = a_B1 + b_B1 + pairs
  place_BL = jnp.arange(L) - (L - 2 - between_B1)
  second_BL = place_BL > a_B1 + 1
  in_a_BL = jnp.clip(place_BL - 1, 0, a_B1 - 1)
  in_b_BL = all_a_B1 + jnp.clip(place_BL - a_B1 - 2, 0, b_B1 - 1)
  end_BL = (place_BL == a_B1 + 1) | (place_BL > between_B1)
  index_BL = first_B1 + jnp.where(second_BL, in_b_BL, in_a_BL)
  return Places(index_BL, place_BL, first_B1, between_B1, second_BL, end_BL)


def laid_end_to_end(
  some: list[Example], pieces: Iterable[list[int]], labels: Sequence[str]
) -> tuple[list[Example], dict[str, np.ndarray]]:
  """Returns the examples that have tokens, and their arrays.

  token_N, and label_N: the class of the first token of each part, else NONE; start_E
  and size_E: where in token_N an example is; before_E: how many of its tokens come
  before the second text.

  pieces   the tokens of each text of each example, one after another
  """
  number = {label: n for n, label in enumerate(labels)}
  turn = iter(pieces)
  kept: list[Example] = []
  tokens: list[int] = []
  classes: list[int] = []
  sizes: list[int] = []
  before: list[int] = []
  for example in some:
    own: list[int] = []
    marks: list[int] = []
    for _, label in zip(example.parts, example.labels, strict=True):
      piece = next(turn)
      own += piece
      marks += [number[label], *[NONE] * (len(piece) - 1)] if piece else []
    second = [token for _ in example.second for token in next(turn)]
    if not own or bool(second) != bool(example.second):
      continue
    kept.append(example)
    tokens += own + second
    classes += marks + [NONE] * len(second)
    sizes.append(len(own) + len(second))
    before.append(len(own))
  arrays = {
    "token_N": tokens,
    "label_N": classes,
    "size_E": sizes,
    "before_E": before,
    "start_E": np.cumsum([0, *sizes[:-1]]),
  }
  return kept, {name: np.array(x, np.int32) for name, x in arrays.items()}
