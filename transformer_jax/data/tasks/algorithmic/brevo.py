"""Breadth of reasoning. Allen-Zhu, 2025: Canon layers. https://arxiv.org/abs/2512.17351"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic import dependency_graphs as graphs
from transformer_jax.data.tasks.algorithmic.base import (
  END,
  FIRST,
  PAD,
  SEPARATOR,
  START,
)
from transformer_jax.data.tasks.algorithmic.permutation import shuffled
from transformer_jax.data.tasks.algorithmic.ragged import RaggedTask, joined, numbers
from transformer_jax.data.tasks.algorithmic.token_words import TokenWords
from transformer_jax.spec import SpecError


@tasks.register("brevo")
@dataclasses.dataclass(frozen=True)
class Brevo(RaggedTask):
  """Brevo: all that a node depends on, each after what it depends on itself.

  [start] edges, the mark of a query, a node, [separator] answer [end]. An edge is a
  node and another one that depends on it; the length counts the nodes, of which each
  depends on up to 4 and up to 4 on each. The answer is the query's ancestors and itself
  in an order in which nodes follow their parents: a random one of many, so that even
  a perfect model has a loss. What counts is the share of orders that a trained model
  writes and that are right (`valid`), of texts of the trained length. Training draws
  lengths of 3 or more, `fixed=True` only the longest.

  Coordinates of scored batches hold `depth_BL`, the edges from the query to the nearest
  node without parents, on the tokens of the answer. Symbols: nodes, or letters and last
  letters of words; the mark. Brevo1 of the paper is `brevo` with lengths of 70 to 110,
  Brevo2 `brevo(letters=4)` with 30 to 50.

  names      that nodes have, one token each
  letters    of words that nodes are instead of names; None: names
  shortest   letters of a word, at least
  longest    letters of a word, at most

  >>> import transformer_jax as tj
  >>> task = tj.tasks.build("brevo(names=4)")
  >>> task.vocabulary, task.tokens(3)
  (9, 13)
  >>> a, b, c, mark = 4, 5, 6, 8
  >>> edges = [1, a, c, b, c]
  >>> task.accepts([*edges, mark, c, 2, b, a, c, 3])
  True
  >>> task.accepts([*edges, mark, c, 2, b, c, a, 3])
  False
  """

  names: int = 110
  letters: int | None = None
  shortest: int = 2
  longest: int = 4

  measures: ClassVar[tuple[str, ...]] = ("loss", "accuracy")
  length_name: ClassVar[str] = "nodes"
  generation: ClassVar[Any] = "valid_texts"
  end: ClassVar[int] = END
  temperature: ClassVar[float] = 0.0

  def __post_init__(self):
    for name in ("names", "letters", "shortest", "longest"):
      if getattr(self, name) is not None and getattr(self, name) < 1:
        raise SpecError(
          f"brevo: {name} is {getattr(self, name)}; it must be at least 1"
        )
    if self._words:
      self._words.check("brevo")

  @property
  def _words(self) -> TokenWords | None:
    if self.letters is None:
      return None
    return TokenWords(self.letters, self.shortest, self.longest)

  @property
  def _symbols(self) -> int:
    return self._words.symbols if self._words else self.names

  @property
  def _mark(self) -> int:
    """Token before the query."""
    return FIRST + self._symbols

  @property
  def vocabulary(self) -> int:
    """Number of tokens: four special ones and the symbols."""
    return FIRST + self._symbols + 1

  def size(self, length):
    nodes = self._words.count if self._words else self.names
    if length > nodes:
      raise SpecError(
        f"brevo: {length} nodes need as many names, and there are {nodes}; raise"
        f" {'letters or longest' if self._words else 'names'}"
      )
    return 1 + self._node * (2 * edges(length) + 1) + 2 + self.answer_size(length)

  @property
  def _node(self) -> int:
    """The most tokens of a node."""
    return self.longest if self._words else 1

  def answer_size(self, length: int) -> int:
    """Returns the most tokens of an answer, the end token included."""
    return self._node * length + 1

  def row(self, key, length, max_length, scored):
    name_key, graph_key, edge_key, order_key = jax.random.split(key, 4)
    parent_NP = graphs.draw_graph(graph_key, length, max_length)
    depends_NN = graphs.adjacency(parent_NP)
    member_N = graphs.ancestors(depends_NN, length - 1)
    order_N = graphs.draw_order(order_key, depends_NN, member_N)
    name_NK = self._draw_names(name_key, max_length)

    def named(node_M):
      return jnp.where(node_M[:, None] < 0, PAD, name_NK[node_M])

    edge_MT = self._edges(edge_key, parent_NP, named)
    query = jnp.array([length - 1])
    mark, separator = jnp.array([self._mark]), jnp.array([SEPARATOR])
    asked = mark, named(query).ravel(), separator
    prompt_T = jnp.concatenate([jnp.array([START]), edge_MT.ravel(), *asked])
    answer_T = jnp.append(named(order_N).ravel(), END)
    depth = graphs.depth_of(depends_NN, member_N, length - 1)
    counts_T = jnp.repeat(
      jnp.arange(2),
      jnp.array([prompt_T.size, answer_T.size]),
      total_repeat_length=prompt_T.size + answer_T.size,
    )
    token_T = jnp.concatenate([prompt_T, answer_T])
    token_L, counts_L = joined(self.size(max_length), token_T, counts_T)
    ids = {"answer": counts_L, "depth": counts_L * depth}
    return token_L, counts_L.astype(jnp.float32), ids

  def _draw_names(self, key: jax.Array, number: int) -> jax.Array:
    """Returns the tokens of different nodes, [number, tokens]."""
    if self._words:
      return self._words.draw(key, number)
    return FIRST + shuffled(numbers(key, self.names), self.names)[:number, None]

  def _edges(self, key, parent_NP, named):
    """Returns the tokens of all edges in random order, padded anywhere."""
    child_M = jnp.repeat(jnp.arange(parent_NP.shape[0]), parent_NP.shape[1])
    parent_M = parent_NP.ravel()
    # A node's places do not depend on the number of nodes, so neither does the order.
    random_M = numbers(key, graphs.MOST * parent_NP.shape[0])
    random_M = random_M.reshape(-1, graphs.MOST)[:, : parent_NP.shape[1]].ravel()
    order_M = jnp.argsort(random_M)
    child_M, parent_M = child_M[order_M], parent_M[order_M]
    child_M = jnp.where(parent_M < 0, graphs.NONE, child_M)
    return jnp.concatenate([named(parent_M), named(child_M)], axis=1)

  def generation_set(self, fitted):
    """Returns the task itself, which draws prompts and accepts texts."""
    return self

  def prompts(self, length: int, count: int) -> tuple[jax.Array, jax.Array]:
    """Returns texts up to the separator, padded right, and whole ones, as tokens."""
    keys = jax.random.split(jax.random.key(0), count)
    text_BL = jax.vmap(lambda key: self.row(key, length, length, scored=True)[0])(keys)
    before_BL = jnp.cumsum(text_BL == SEPARATOR, axis=1) - (text_BL == SEPARATOR) == 0
    return jnp.where(before_BL, text_BL, PAD), text_BL

  def accepts(self, tokens: Sequence[int]) -> bool:
    """Returns whether tokens are a text of this task with a right answer.

    tokens   [start] edges, mark, query, [separator] answer [end], without padding
    """
    marks = START, self._mark, SEPARATOR, END
    text = [*tokens]
    if any(text.count(mark) != 1 for mark in marks):
      return False
    places = [text.index(mark) for mark in marks]
    if places != sorted(places) or places[0] or places[-1] != len(text) - 1:
      return False
    parts = zip(places, places[1:], strict=False)
    found = [self._nodes(text[start + 1 : end]) for start, end in parts]
    if any(nodes is None for nodes in found):
      return False
    edge, query, answer = (nodes or [] for nodes in found)
    if len(edge) % 2 or len(query) != 1:
      return False
    parents: dict[Any, list[Any]] = {}
    for parent, child in zip(edge[::2], edge[1::2], strict=True):
      parents.setdefault(child, []).append(parent)
    return graphs.is_order(answer, parents, query[0])

  def _nodes(self, tokens: Sequence[int]) -> list[tuple[int, ...]] | None:
    """Returns the nodes of a part of a text; None if it has anything else."""
    if self._words:
      return self._words.split(tokens)
    known = all(FIRST <= token < self._mark for token in tokens)
    return [(token,) for token in tokens] if known else None


def edges(length: int) -> int:
  """Returns the most edges of a graph."""
  return sum(min(node, graphs.MOST) for node in range(length))
