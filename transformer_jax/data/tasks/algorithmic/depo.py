"""Depth of reasoning. Allen-Zhu, 2025: Canon layers. https://arxiv.org/abs/2512.17351"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import (
  FIRST,
  PAD,
  SEPARATOR,
  START,
  below,
)
from transformer_jax.data.tasks.algorithmic.permutation import shuffled
from transformer_jax.data.tasks.algorithmic.ragged import RaggedTask, joined, numbers
from transformer_jax.data.tasks.algorithmic.token_words import TokenWords
from transformer_jax.spec import SpecError

MEASURE = "answers"  # of evaluation/answer_measure.py
Edges = dict[tuple[int, ...], tuple[int, ...]]


@tasks.register("depo")
@dataclasses.dataclass(frozen=True)
class Depo(RaggedTask):
  """Depo: the k-th successor of a word on a cycle, whose edges stand in random order.

  [start] edges questions. Nodes of one cycle are different words, and the length counts
  them. An edge is two words; a question is the symbol of its number of hops k, a word,
  [separator] and the answer, which alone counts. Training draws k from 1 to `hops` and
  a length of 3 or more, `fixed=True` only the longest; evaluation has the length
  itself, and powers of two for k, with `hops` and for 32 hops 24. The report has the
  share of right answers for each k.

  Symbols: letters, last letters of a word, numbers of hops, the mark of an edge. Depo1
  of the paper is `depo` with lengths of 225 to 375, Depo2
  `depo(hops=16, letters=3, shortest=5, longest=7)` with 75 to 125.

  hops        the most hops of a question
  questions   in a text, on different words; fewer where there are fewer words
  letters     of the alphabet of words
  shortest    letters of a word, at least
  longest     letters of a word, at most
  separated   whether a mark stands before each edge

  >>> import transformer_jax as tj
  >>> task = tj.tasks.build("depo(hops=4, letters=2)")
  >>> task.vocabulary, task.tokens(3)  # 6 words; 3 edges and 3 questions
  (12, 30)
  >>> a, b, c = [6], [7], [4, 6]
  >>> edges = [1, *b, *c, *a, *b, *c, *a]
  >>> task.accepts([*edges, 9, *a, 2, *c]), task.accepts([*edges, 9, *a, 2, *b])
  (True, False)
  """

  hops: int = 8
  questions: int = 10
  letters: int = 50
  shortest: int = 1
  longest: int = 2
  separated: bool = False

  length_name: ClassVar[str] = "nodes"

  def __post_init__(self):
    for name in ("hops", "questions", "letters", "shortest", "longest"):
      if getattr(self, name) < 1:
        raise SpecError(f"depo: {name} is {getattr(self, name)}; it must be at least 1")
    self._words.check("depo")

  @property
  def _words(self) -> TokenWords:
    return TokenWords(self.letters, self.shortest, self.longest)

  @property
  def vocabulary(self) -> int:
    """Number of tokens: four special ones and the symbols."""
    return FIRST + self._words.symbols + self.hops + self.separated

  @property
  def _first_hop(self) -> int:
    """Token of one hop."""
    return FIRST + self._words.symbols

  @property
  def scored_hops(self) -> tuple[int, ...]:
    """Numbers of hops of evaluation."""
    powers = {2**n for n in range(self.hops.bit_length())}
    return tuple(sorted(powers | {self.hops} | ({24} if self.hops == 32 else set())))

  @property
  def measures(self) -> tuple[str, ...]:
    each = (f"{MEASURE}('hops', {k})" for k in self.scored_hops)
    return (MEASURE, *each, "accuracy")

  def size(self, length):
    if length > self._words.count:
      raise SpecError(
        f"depo: {length} nodes need as many words, and there are {self._words.count};"
        " raise letters or longest"
      )
    edge, question = 2 * self.longest + self.separated, 2 * self.longest + 2
    return 1 + length * edge + min(length, self.questions) * question

  def chance(self, measure: str, length: int) -> float | None:
    """Returns the score of guessing among the words of the text."""
    return 1 / length if measure.startswith(MEASURE) else None

  def row(self, key, length, max_length, scored):
    word_key, node_key, edge_key, ask_key, hop_key = jax.random.split(key, 5)
    size = self.size(max_length)

    def order(key):
      return shuffled(numbers(key, max_length), length)

    # The words drawn first tend to be short: their places on the cycle are random.
    word_NK = self._words.draw(word_key, max_length)[order(node_key)]
    place_N, asked_Q = order(edge_key), order(ask_key)[: self.questions]
    edge_NT = self._edges(word_NK[place_N], word_NK[(place_N + 1) % length])
    edge_NT = jnp.where(jnp.arange(max_length)[:, None] < length, edge_NT, PAD)

    choices = self.scored_hops if scored else range(1, self.hops + 1)
    choice_Q = below(len(choices), numbers(hop_key, len(asked_Q)))
    hops_Q = jnp.asarray(np.array(choices))[choice_Q]
    answer_QK = word_NK[(asked_Q + hops_Q) % length]
    ask_QT = self._asks(hops_Q, word_NK[asked_Q])
    question_QT = jnp.concatenate([ask_QT, answer_QK], axis=1)
    number_Q = jnp.arange(len(asked_Q))
    question_QT = jnp.where(number_Q[:, None] < length, question_QT, PAD)

    def of_answers(x_Q):
      """Returns numbers of the answers on their tokens, zeros elsewhere."""
      x_QT = jnp.where(
        jnp.arange(question_QT.shape[1]) < ask_QT.shape[1], 0, x_Q[:, None]
      )
      return jnp.pad(x_QT.ravel(), (1 + edge_NT.size, 0))

    start = jnp.full(1, START)
    token_T = jnp.concatenate([start, edge_NT.ravel(), question_QT.ravel()])
    ids = of_answers(number_Q + 1), of_answers(hops_Q)
    token_L, answer_L, hops_L = joined(size, token_T, *ids)
    weight_L = (answer_L > 0).astype(jnp.float32)
    return token_L, weight_L, {"answer": answer_L, "hops": hops_L}

  def _edges(self, first_NK, second_NK):
    """Returns the tokens of edges."""
    edge_NT = jnp.concatenate([first_NK, second_NK], axis=1)
    mark = self._first_hop + self.hops
    return jnp.pad(edge_NT, ((0, 0), (int(self.separated), 0)), constant_values=mark)

  def _asks(self, hops_Q, word_QK):
    """Returns the tokens of questions, without their answers."""
    hop_Q1 = self._first_hop + hops_Q[:, None] - 1
    asks_QT = jnp.concatenate([hop_Q1, word_QK], axis=1)
    return jnp.pad(asks_QT, ((0, 0), (0, 1)), constant_values=SEPARATOR)

  def accepts(self, tokens: Sequence[int]) -> bool:
    """Returns whether tokens are a text of this task with right answers.

    tokens   [start] edges questions, without padding
    """
    marks = [n for n, x in enumerate(tokens) if 0 <= x - self._first_hop < self.hops]
    ends = [*marks, len(tokens)]
    if not tokens or tokens[0] != START or not marks:
      return False
    edges = self._cycle(tokens[1 : marks[0]])
    questions = zip(ends, ends[1:], strict=False)
    return edges is not None and all(
      self._is_right(tokens[start], tokens[start + 1 : end], edges)
      for start, end in questions
    )

  def _cycle(self, tokens: Sequence[int]) -> Edges | None:
    """Returns the successor of each word; None unless they form one cycle."""
    mark = self._first_hop + self.hops
    words = self._words.split(x for x in tokens if not (self.separated and x == mark))
    if not words or len(words) % 2:
      return None
    edges = dict(zip(words[::2], words[1::2], strict=True))
    seen, word = {words[0]}, edges[words[0]]
    while word in edges and word not in seen:
      seen.add(word)
      word = edges[word]
    whole = word == words[0] and 2 * len(seen) == len(words)
    return edges if whole else None

  def _is_right(self, mark: int, tokens: Sequence[int], edges: Edges) -> bool:
    """Returns whether `word [separator] answer` is right after the mark of its hops."""
    if list(tokens).count(SEPARATOR) != 1:
      return False
    middle = list(tokens).index(SEPARATOR)
    asked, answer = (
      self._words.split(x) for x in (tokens[:middle], tokens[middle + 1 :])
    )
    if not asked or not answer or len(asked) + len(answer) > 2 or asked[0] not in edges:
      return False
    word = asked[0]
    for _ in range(mark - self._first_hop + 1):
      word = edges[word]
    return answer[0] == word
