"""Hierarchical language. Allen-Zhu, 2025: Canon layers. https://arxiv.org/abs/2512.17351"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch, Task, tasks
from transformer_jax.data.tasks.algorithmic.base import (
  END,
  FIRST,
  PAD,
  START,
  shifted,
)
from transformer_jax.data.tasks.algorithmic.layered_grammar import LayeredGrammar
from transformer_jax.data.tasks.algorithmic.ragged import joined, row_keys
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError, nearest

RULES = pathlib.Path(__file__).parent / "lano_grammars.tsv"


@tasks.register("lano")
@dataclasses.dataclass(frozen=True)
class Lano(Task):
  """Lano: sentences of a context-free grammar, whose rules the model has to find out.

  [start] and sentences, each with [end], up to the length, which counts tokens. All
  are predicted, as in text. A sentence is drawn from the root, all rules of a symbol
  equally likely. Trained models also write sentences, of which the share counts that
  the grammar has (`valid`); they end within the trained length. `entropy` is the loss
  that a model cannot beat, in nats per token, where no sentence has two derivations,
  and where texts have whole sentences; `grammar_of(name).next_tokens` says what comes
  next with what probability.

  grammar       cfg3b, cfg3e1, cfg3e2 or cfg3f to cfg3k; the paper has cfg3f, whose
                sentences have 64 to 729 tokens, and cfg3j and cfg3k, twice as long
  prompt        tokens of a sentence that a model continues; 0: it begins
  temperature   of the tokens that it writes; 0: the most likely ones

  >>> import transformer_jax as tj
  >>> task = tj.tasks.build("lano('cfg3b')")
  >>> task.vocabulary, task.tokens(512), round(task.entropy, 2)
  (7, 512, 0.42)
  >>> task.accepts([1, 4, 5, 6, 3])
  False
  """

  grammar: str = "cfg3f"
  prompt: int = 0
  temperature: float = 1.0

  measures: ClassVar[tuple[str, ...]] = ("loss", "accuracy")
  generation: ClassVar[Any] = "valid_texts"
  end: ClassVar[int] = END

  def __post_init__(self):
    grammar = grammar_of(self.grammar)
    if not 0 <= self.prompt < grammar.shortest:
      raise SpecError(
        f"lano: prompt is {self.prompt}; sentences of {self.grammar} have"
        f" {grammar.shortest} tokens or more, so write 0 to {grammar.shortest - 1}"
      )
    if not 0 <= self.temperature < math.inf:
      raise SpecError(f"lano: temperature is {self.temperature}; write 0 or more")

  @property
  def _grammar(self) -> LayeredGrammar:
    return grammar_of(self.grammar)

  @property
  def vocabulary(self) -> int:
    """Number of tokens: four special ones and the terminals."""
    return FIRST + self._grammar.terminals

  @property
  def entropy(self) -> float:
    """Entropy of the rules of a sentence, in nats per token, its end included."""
    nats, length = self._grammar.expected
    return nats / (length + 1)

  def tokens(self, length: int) -> int:
    return length

  def chance(self, measure: str, length: int) -> float | None:
    """Returns the score of guessing among all terminals and the end, equally likely."""
    choices = self._grammar.terminals + 1
    return {"accuracy": 1 / choices, "loss": math.log(choices)}.get(measure)

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns texts of exactly `length` tokens. Arguments: see `Task.batch`."""
    token_BL = self._texts(key, batch_size, length)
    weight_BL = jnp.ones(token_BL.shape)
    return shifted(token_BL, weight_BL, coords.consecutive(1, length))

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns texts of exactly `length`, padded left. Arguments: see `Task.score`."""
    absent = bucket - length
    real_L = jnp.arange(bucket + 1) >= absent
    token_BL = jnp.roll(self._texts(key, batch_size, bucket), absent, axis=1)
    token_BL = jnp.where(real_L, token_BL, PAD)
    weight_BL = jnp.broadcast_to(real_L.astype(jnp.float32), token_BL.shape)
    # The first token of a text is read, and nothing before it predicts it.
    weight_BL = weight_BL.at[:, absent].set(0.0)
    return shifted(token_BL, weight_BL, coords.padded(real_L[None, :-1]))

  def _texts(self, key: jax.Array, rows: int, length: int) -> jax.Array:
    """Returns tokens [rows, length + 1]; the n-th do not depend on `length`."""
    sentences = -(-length // (self._grammar.shortest + 1))

    def one(key):
      token_ST = jax.vmap(self._sentence)(row_keys(key, sentences))
      return joined(length + 1, jnp.append(START, token_ST.ravel()))[0]

    return jax.vmap(one)(row_keys(key, rows))

  def _sentence(self, key: jax.Array) -> jax.Array:
    """Returns the tokens of a sentence, padding, and its end."""
    symbol_T = self._grammar.draw(key)
    return jnp.append(jnp.where(symbol_T < 0, PAD, FIRST + symbol_T), END)

  def generation_set(self, fitted):
    """Returns the task itself, which draws prompts and accepts texts."""
    return self

  def answer_size(self, length: int) -> int:
    """Returns the most tokens that a model writes: a text has the length at most."""
    return max(1, min(self._grammar.longest + 1, length) - self.prompt)

  def prompts(self, length: int, count: int) -> tuple[jax.Array, jax.Array]:
    """Returns beginnings of texts of a sentence, padded right, and the texts."""
    keys = jax.random.split(jax.random.key(0), count)

    def one(key):
      token_T = jnp.append(START, self._sentence(key))
      return joined(token_T.size, token_T)[0]

    text_BL = jax.vmap(one)(keys)
    return text_BL[:, : 1 + self.prompt], text_BL

  def accepts(self, tokens: Sequence[int]) -> bool:
    """Returns whether tokens are [start], a sentence of the grammar and [end]."""
    if len(tokens) < 2 or tokens[0] != START or tokens[-1] != END:
      return False
    sentence = [token - FIRST for token in tokens[1:-1]]
    return self._grammar.log_probability(sentence) > -math.inf


def grammar_of(name: str) -> LayeredGrammar:
  """Returns a grammar by its name; raises SpecError if there is none."""
  if name not in grammars():
    raise SpecError(
      f"lano: grammar is {name!r}.{nearest(name, grammars())} Choose from"
      f" {', '.join(grammars())}"
    )
  return grammars()[name]


@functools.cache
def grammars() -> dict[str, LayeredGrammar]:
  """Returns the grammars of the paper, by name."""
  found: dict[str, list[Any]] = {}
  for line in RULES.read_text(encoding="utf-8").splitlines():
    if line.startswith("cfg"):
      found[line] = []
    elif not line.startswith("#"):
      found[[*found][-1]].append(_level(line))
  return {name: LayeredGrammar(tuple(levels)) for name, levels in found.items()}


def _level(line: str) -> tuple[tuple[tuple[int, ...], ...], ...]:
  """Returns the rules of a level's symbols, which tabs separate."""
  return tuple(
    tuple(tuple(map(int, rule.split())) for rule in symbol.split("|"))
    for symbol in line.split("\t")
  )
