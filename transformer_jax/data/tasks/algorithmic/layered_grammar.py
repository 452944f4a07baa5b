"""Context-free grammars in levels: a rule has symbols of the next level alone.

Allen-Zhu and Li, 2023: Physics of Language Models, part 1, learning hierarchical
language structures. https://arxiv.org/abs/2305.13673
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.tasks.algorithmic.base import below
from transformer_jax.data.tasks.algorithmic.ragged import joined

Production = tuple[int, ...]
Level = tuple[tuple[Production, ...], ...]  # the rules of each symbol
SpanWeights = dict[int, dict[int, float]]  # weights by start and end


@dataclasses.dataclass(frozen=True)
class LayeredGrammar:
  """Grammar of sentences that are as many levels deep everywhere.

  All rules of a symbol are equally likely. The root is symbol 0 of the first level.

  levels   rules of each symbol of each level, from the root; a rule has the symbols of
           the next level, those of the last one terminals

  >>> root, words = [[(0, 1), (1, 1, 0)]], [[(0,)], [(0, 1), (1,)]]
  >>> grammar = LayeredGrammar(tuple(tuple(map(tuple, x)) for x in (root, words)))
  >>> grammar.terminals, grammar.shortest, grammar.longest
  (2, 2, 5)
  >>> round(math.exp(grammar.log_probability([0, 0, 1])), 3)
  0.25
  >>> grammar.next_tokens([0, 0]).round(3).tolist()  # 0, 1 or the end
  [[0.75, 0.25, 0.0], [0.333, 0.667, 0.0], [0.0, 1.0, 0.0]]
  """

  levels: tuple[Level, ...]

  @functools.cached_property
  def terminals(self) -> int:
    """Number of terminals."""
    return 1 + max(max(rule) for rules in self.levels[-1] for rule in rules)

  @property
  def shortest(self) -> int:
    """Tokens of the shortest sentence."""
    return self._sizes(min, len(self.levels))

  @property
  def longest(self) -> int:
    """Tokens of the longest sentence."""
    return self._sizes(max, len(self.levels))

  def _sizes(self, choose, depth: int) -> int:
    """Returns the fewest or the most symbols that the root becomes at a depth."""
    if not depth:
      return 1
    sizes = [1] * (1 + max(max(r) for rules in self.levels[depth - 1] for r in rules))
    for level in self.levels[:depth][::-1]:
      sizes = [
        choose(sum(sizes[child] for child in rule) for rule in rules) for rules in level
      ]
    return int(sizes[0])

  @functools.cached_property
  def expected(self) -> tuple[float, float]:
    """Entropy of the choice of all rules of a sentence, nats, and its mean length.

    The entropy is that of sentences where each has one derivation, and above it
    elsewhere.
    """
    below_S = np.zeros((self.terminals, 2))
    below_S[:, 1] = 1
    for level in reversed(self.levels):
      below_S = np.array(
        [
          np.array([math.log(len(rules)), 0])
          + np.mean([below_S[list(rule)].sum(axis=0) for rule in rules], axis=0)
          for rules in level
        ]
      )
    return float(below_S[0, 0]), float(below_S[0, 1])

  def draw(self, key: jax.Array) -> jax.Array:
    """Returns a sentence, [longest], padded on the right with -1."""
    symbol_T = jnp.zeros(1, jnp.int32)
    for depth, level in enumerate(self.levels):
      child_SRC, count_S = map(jnp.asarray, _table(level))
      random_T = jax.random.bits(jax.random.fold_in(key, depth), symbol_T.shape)
      child_TC = child_SRC[symbol_T, below(count_S[symbol_T], random_T)]
      child_TC = jnp.where(symbol_T[:, None] < 0, -1, child_TC)
      (symbol_T,) = joined(self._sizes(max, depth + 1), 1 + child_TC.ravel())
      symbol_T = symbol_T - 1
    return symbol_T

  def log_probability(self, sentence: Sequence[int]) -> float:
    """Returns the log probability of a sentence, nats; -inf: it is none."""
    scale, inside = self._inside(sentence)
    whole = inside[0][0].get(0, {}).get(len(sentence), 0.0)
    return math.log(whole) - scale * len(sentence) if whole else -math.inf

  def next_tokens(self, sentence: Sequence[int]) -> np.ndarray:
    """Returns the probabilities of each next terminal, and of the end, [n + 1, V + 1].

    Of row n, after the first n tokens; zeros after tokens that begin no sentence.
    """
    _, inside = self._inside(sentence)
    start: list[dict[int, float]] = [{0: 1.0}]
    for depth, level in enumerate(self.levels):
      symbols = (
        self.terminals if level is self.levels[-1] else len(self.levels[depth + 1])
      )
      after: list[dict[int, float]] = [{} for _ in range(symbols)]
      for rules, begins in zip(level, start, strict=True):
        for rule in rules:
          weights = {at: x / len(rules) for at, x in begins.items()}
          for child in rule:
            _add(after[child], weights)
            weights = _moved(weights, inside[depth + 1][child])
      start = after
    probability = np.zeros((len(sentence) + 1, self.terminals + 1))
    for terminal, begins in enumerate(start):
      for at, x in begins.items():
        probability[at, terminal] = x
    for end, x in inside[0][0].get(0, {}).items():
      probability[end, -1] = x
    total = probability.sum(axis=1, keepdims=True)
    return np.divide(
      probability, total, out=np.zeros_like(probability), where=total > 0
    )

  def _inside(self, sentence: Sequence[int]) -> tuple[float, list[list[SpanWeights]]]:
    """Returns the weights of the spans of each symbol of each level, terminals last.

    A weight is the probability that the symbol becomes the span, times exp(scale) for
    each of its tokens, so that long sentences have weights near one.
    """
    entropy, length = self.expected
    scale = entropy / length
    spans: list[SpanWeights] = [{} for _ in range(self.terminals)]
    for at, token in enumerate(sentence):
      if 0 <= token < self.terminals:
        spans[token][at] = {at + 1: math.exp(scale)}
    found = [spans]
    for level in reversed(self.levels):
      found.append([_spans(rules, found[-1]) for rules in level])
    return scale, found[::-1]


def _spans(rules: Sequence[Production], below_S: list[SpanWeights]) -> SpanWeights:
  """Returns the spans of a symbol from those of the next level."""
  found: SpanWeights = {}
  for rule in rules:
    for start in below_S[rule[0]]:
      ends = {start: 1 / len(rules)}
      for child in rule:
        ends = _moved(ends, below_S[child])
      if ends:
        _add(found.setdefault(start, {}), ends)
  return found


def _moved(weights: dict[int, float], spans: SpanWeights) -> dict[int, float]:
  """Returns the weights of the ends of spans that start where these are."""
  found: dict[int, float] = {}
  for start, weight in weights.items():
    _add(found, {end: weight * x for end, x in spans.get(start, {}).items()})
  return found


def _add(total: dict[int, float], more: dict[int, float]) -> None:
  for at, x in more.items():
    total[at] = total.get(at, 0.0) + x


@functools.cache
def _table(level: Level) -> tuple[np.ndarray, np.ndarray]:
  """Returns the children of each rule of each symbol, padded with -1, and their number.

  The number is that of the rules of a symbol.
  """
  most = max(len(rules) for rules in level)
  width = max(len(rule) for rules in level for rule in rules)
  child_SRC = np.full((len(level), most, width), -1, np.int32)
  for symbol, rules in enumerate(level):
    for n, rule in enumerate(rules):
      child_SRC[symbol, n, : len(rule)] = rule
  return child_SRC, np.array([len(rules) for rules in level], np.int32)
