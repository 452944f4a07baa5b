"""Language modelling of tokens: causal, with a prefix, or masked."""

import dataclasses
import functools
import pathlib
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import xxhash

from transformer_jax.data import corpora, document_tokens, token_cache, windows
from transformer_jax.data.base import (
  MANY,
  Batch,
  TaskData,
  check_fitted,
  note,
  shape,
  tasks,
)
from transformer_jax.data.corpora import Corpus
from transformer_jax.data.files import DataError, Document
from transformer_jax.data.tasks.language.text import Text
from transformer_jax.data.token_cache import Tokenized
from transformer_jax.data.tokenizers import Tokenizer, tokenizers
from transformer_jax.positions import coords

LEAST = 2_000_000  # bytes of text; smaller ones are not cached on disk
VERSION = 1  # of the tokenization of documents; part of the cache key
MEMORY = 4  # memoized vocabularies


@tasks.register("tokens")
@dataclasses.dataclass(frozen=True)
class Tokens(Text):
  """Language modelling of tokens. The length counts the input tokens.

  window and scored count tokens; limit counts bytes, as in `text`. An end token follows
  each document. Windows that repeat 64 tokens of the training split are left out.

  tokenizer   byte, char(size=512), word(size=16000) or subword(size=8000), trained on
              the training text; or existing ones, unchanged:
              huggingface('FOLDER/tokenizer.json'), kept('runs/.../ID')
  packed      whether a row's documents are separate: tokens attend to their own one
              alone, positions restart in each, and its first token is no target

  >>> import transformer_jax as tj
  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> task = tj.tasks.build("tokens(tokenizer='word(size=8)')")
  >>> words = tokenizers.build("word(size=8)").train(["the cat sat"])
  >>> arrays = {"train_N": np.array(words.encode("the cat sat"))}
  >>> batch = evaluate(lambda: task.batch(arrays, jax.random.key(0), 1, length=2))
  >>> words.decode(batch.input_BL[0]), words.decode(batch.target_BL[0])
  ('the cat', 'cat sat')
  """

  tokenizer: str = "subword(size=8000)"
  packed: bool = False

  unit: ClassVar[str] = "tokens"
  measures: ClassVar[tuple[str, ...]] = ("accuracy",)

  def __post_init__(self):
    super().__post_init__()
    tokenizers.build(self.tokenizer)

  @property
  def vocabulary(self) -> int:
    return tokenizers.build(self.tokenizer).vocabulary

  def load(self) -> TaskData:
    """Returns train_N and scored_N (int32), end_W, pieces, facts, and the tokenizer.

    pieces   number of tokens that stand for text
    """
    if prepared := corpora.opened(self.source):
      return self._of_prepared(*prepared)
    documents, facts = self._read()
    documents = {name: self._keep(documents[name]) for name in documents}
    found = self._found(documents)
    tokenizer = found.tokenizer
    facts["tokens"] = {name: x_N.size for name, x_N in found.token_N.items()}
    sizes = found.size_D[self.split].tolist()
    end_W = self._ends(sizes, sum(facts["tokens"].values()))
    train_N, scored_N = (found.token_N[x] for x in ("train", self.split))
    end_W = self._distinct(train_N, scored_N, end_W, facts)
    facts |= tokenizer.facts
    note(facts, *tokenizer.notes)
    arrays = {
      "train_N": train_N,
      "scored_N": scored_N,
      "end_W": end_W,
      "pieces": np.int32(len(tokenizer.pieces)),
    }
    return TaskData(arrays, {"source": self.source, **facts}, tokenizer)

  def _of_prepared(self, parts: list[Corpus], weights: tuple[float, ...]) -> TaskData:
    """Returns the data of corpora, whose tokenizer the spec of this task names."""
    arrays, facts = self._of_corpora(parts, weights)
    spec, tokenizer = parts[0].listing["tokenizer"], parts[0].tokenizer
    if tokenizers.build(spec) != tokenizers.build(self.tokenizer):
      raise DataError(
        f"'{parts[0].folder}' holds the tokens of {spec}, and this task asks for"
        f" {self.tokenizer}: write tokenizer={spec!r}"
      )
    note(facts, *tokenizer.notes)
    arrays["pieces"] = np.int32(len(tokenizer.pieces))
    return TaskData(arrays, facts | tokenizer.facts, tokenizer)

  def _windows(self, arrays, starts, length):
    """Returns windows; with `packed`, a segment for each document of a row."""
    text = super()._windows(arrays, starts, length)
    if not self.packed:
      return text
    end = tokenizers.build(self.tokenizer).end
    ends_BL = text.input_BL == end
    segment_BL = 1 + jnp.cumsum(ends_BL, axis=1) - ends_BL
    weight_BL = jnp.where(ends_BL, 0.0, text.weight_BL)
    return dataclasses.replace(
      text, weight_BL=weight_BL, at=coords.packed(segment_BL.astype(jnp.int32))
    )

  def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
    names = "train_N", "scored_N", "end_W"
    return {name: shape(MANY) for name in names} | {"pieces": shape()}

  def keep(self, folder: pathlib.Path, fitted: Tokenizer) -> None:
    """Saves the vocabulary with a run. Raises DataError if another is there."""
    check_fitted(self, fitted, Tokenizer)
    fitted.save(folder / "tokenizer")

  def _found(self, documents: dict[str, list[Document]]) -> Tokenized:
    """Returns the tokens of all documents; large texts are cached on disk."""
    make = functools.partial(_tokenized, self.tokenizer, documents)
    recipe = tokenizers.build(self.tokenizer).recipe
    size = sum(len(x.content) for some in documents.values() for x in some)
    if recipe is None or size < LEAST:
      return make()
    texts = {name: _digest(some) for name, some in documents.items()}
    return token_cache.kept(
      token_cache.key_of(VERSION, document_tokens.CHUNK, recipe, texts), make
    )


@tasks.register("prefix_tokens")
@dataclasses.dataclass(frozen=True)
class PrefixTokens(Tokens):
  """Prefix language modelling, bidirectional in the prefix. Raffel et al., 2020.

  https://arxiv.org/abs/1910.10683, section 3.2.3. In training the prefix ends anywhere;
  in evaluation it is all but the scored tokens.

  >>> import transformer_jax as tj
  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> task = tj.tasks.build("prefix_tokens(window=5, scored=2, tokenizer='byte')")
  >>> arrays = {"scored_N": np.arange(5, 11), "end_W": np.array([6])}
  >>> batch = evaluate(
  ...   lambda: task.score(arrays, jax.random.key(0), 1, jnp.int32(5), bucket=5)
  ... )
  >>> batch.at.horizon_BL.tolist(), batch.weight_BL.tolist()
  ([[3, 3, 3, 3, 4]], [[0.0, 0.0, 0.0, 1.0, 1.0]])
  """

  kind: ClassVar[str] = "prefix_decoder"

  def __post_init__(self):
    super().__post_init__()
    if self.packed is True:  # the registry names values of other types
      raise DataError("prefix_tokens: a row has one prefix; leave out packed")

  def batch(self, arrays, key, batch_size, length, progress=1.0):
    """Returns windows with prefixes of 1 to length - 1 tokens, of weight zero.

    Arguments are those of `Task.batch`.
    """
    text = super().batch(arrays, key, batch_size, length, progress)
    prefix_key = jax.random.fold_in(key, 1)
    size_B1 = jax.random.randint(prefix_key, (batch_size, 1), 1, max(2, length))
    # The last token of the prefix predicts the first one after it.
    weight_BL = (jnp.arange(length) >= size_B1 - 1).astype(jnp.float32)
    at = coords.consecutive(batch_size, length).prefix(size_B1)
    return dataclasses.replace(text, weight_BL=weight_BL, at=at)

  def score(self, arrays, key, batch_size, length, bucket):
    """Returns windows with prefixes up to the scored tokens.

    Arguments are those of `Task.score`.
    """
    text = super().score(arrays, key, batch_size, length, bucket)
    size_11 = jnp.maximum(length - self.scored + 1, 1)[None, None]
    return dataclasses.replace(text, at=text.at.prefix(size_11))


@tasks.register("masked")
@dataclasses.dataclass(frozen=True)
class Masked(Tokens):
  """Masked language modelling. Devlin et al., 2019.

  https://arxiv.org/abs/1810.04805, section 3.1: 80% of the chosen tokens are masked,
  10% become random tokens and 10% stay. Masks are dynamic: Liu et al., 2019,
  https://arxiv.org/abs/1907.11692, section 4.1.

  rate   share of the tokens that are chosen
  nsp    next-sentence prediction: a training row is [start] A [end] B [end]. In half of
         the rows B follows A in the text; there the first target is the start token,
         else the end token. It weighs as much as all hidden tokens together. Scored
         rows are one text, as without it

  >>> import transformer_jax as tj
  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> task = tj.tasks.build("masked(rate=0.5, tokenizer='byte')")
  >>> arrays = {"train_N": np.arange(5, 12), "pieces": np.int32(task.vocabulary)}
  >>> batch = evaluate(lambda: task.batch(arrays, jax.random.key(0), 1, length=6))
  >>> batch.target_BL.tolist()
  [[5, 6, 7, 8, 9, 10]]
  >>> batch.input_BL.tolist()  # 4 is the mask; the 6 became random, the 8 stays
  [[5, 191, 4, 8, 4, 4]]
  >>> batch.weight_BL.tolist()  # of the chosen tokens
  [[0.0, 1.0, 1.0, 1.0, 1.0, 1.0]]
  """

  rate: float = 0.15
  nsp: bool = False

  kind: ClassVar[str] = "encoder"

  def __post_init__(self):
    super().__post_init__()
    if not 0 < self.rate < 1:
      raise DataError(f"masked: rate is {self.rate}; it must be between 0 and 1")
    if self.nsp and self.packed:
      raise DataError("masked: a row of nsp is a pair; leave out packed, or nsp")

  def batch(self, arrays, key, batch_size, length, progress=1.0):
    """Returns training windows with hidden tokens, whose weight is 1.

    Arguments are those of `Task.batch`.
    """
    text = super().batch(arrays, key, batch_size, length, progress)
    if self.nsp:
      text, follows_B = self._pairs(arrays, key, text)
    chosen_BL, *drawn = self._draw(jax.random.fold_in(key, 1), batch_size, length)
    batch = self._hide(arrays, text, chosen_BL < self.rate, *drawn)
    return self._ask(batch, follows_B) if self.nsp else batch

  def score(self, arrays, key, batch_size, length, bucket):
    """Returns windows whose hidden tokens are the same at every length.

    Hidden tokens among the last `scored` have weight 1; there is always one of them.

    Arguments are those of `Task.score`.
    """
    text = super().score(arrays, key, batch_size, length, bucket)
    drawn = self._draw(jax.random.fold_in(key, 1), len(text.input_BL), self.window)
    chosen_BL, *others = (x_BL[:, self.window - bucket :] for x_BL in drawn)
    ranked_BL = jnp.where(text.weight_BL > 0, chosen_BL, 2.0)
    first_BL = ranked_BL == jnp.min(ranked_BL, axis=1, keepdims=True)
    return self._hide(arrays, text, (chosen_BL < self.rate) | first_BL, *others)

  def _pairs(self, arrays, key, text: Batch) -> tuple[Batch, jax.Array]:
    """Returns framed pairs of texts, and whether the second follows the first.

    Devlin et al., section 3.1, task 2; here the first text is half of the row, and both
    may cross documents.
    """
    rows, length = text.input_BL.shape
    if length < 5:
      raise DataError(
        f"masked: {length} tokens have no room for a pair; write 5 or more"
      )
    tokenizer, a = tokenizers.build(self.tokenizer), (length - 3) // 2
    keys = [jax.random.fold_in(key, n) for n in (2, 3)]
    follows_B1 = jax.random.bernoulli(keys[0], 0.5, (rows, 1))
    starts = windows.random_starts(arrays["train_N"], keys[1], rows, length + 1)
    other_BL = self._windows(arrays, starts, length).input_BL
    second_BL = jnp.where(follows_B1, text.input_BL[:, a:-3], other_BL[:, a:-3])

    def column(token):
      return jnp.full((rows, 1), token, jnp.int32)

    start_B1, end_B1 = column(tokenizer.start), column(tokenizer.end)
    parts = start_B1, text.input_BL[:, :a], end_B1, second_BL, end_B1
    type_1L = (jnp.arange(length) > a + 1).astype(jnp.int32)[None]
    at = text.at.replace(data={"type_BL": type_1L})
    token_BL = jnp.concatenate(parts, axis=1)
    return dataclasses.replace(text, input_BL=token_BL, at=at), follows_B1[:, 0]

  def _ask(self, batch: Batch, follows_B: jax.Array) -> Batch:
    """Adds the next-sentence target at the first token."""
    tokenizer = tokenizers.build(self.tokenizer)
    answer_B = jnp.where(follows_B, tokenizer.start, tokenizer.end)
    each = jnp.sum(batch.weight_BL) / len(follows_B)
    return dataclasses.replace(
      batch,
      target_BL=batch.target_BL.at[:, 0].set(answer_B),
      weight_BL=batch.weight_BL.at[:, 0].set(each),
    )

  def _draw(self, key: jax.Array, rows: int, length: int) -> tuple[jax.Array, ...]:
    """Returns uniform [B, L] numbers: choice of tokens, replacement kind, token."""
    keys = jax.random.split(key, 3)
    return tuple(jax.random.uniform(each, (rows, length)) for each in keys)

  def _hide(self, arrays, text: Batch, hidden_BL, fate_BL, any_BL) -> Batch:
    # Targets are the window's tokens, not the next ones.
    token_BL, tokenizer = text.input_BL, tokenizers.build(self.tokenizer)
    framing_BL = (token_BL == tokenizer.start) | (token_BL == tokenizer.end)
    hidden_BL &= text.at.real_BL & ~framing_BL
    first = len(tokenizer.special)
    other_BL = first + (any_BL * (arrays["pieces"] - first)).astype(jnp.int32)
    fate_BL = jnp.where(hidden_BL, fate_BL, 1.0)
    input_BL = jnp.where(fate_BL < 0.9, other_BL, token_BL)
    input_BL = jnp.where(fate_BL < 0.8, tokenizer.mask, input_BL)
    weight_BL = text.weight_BL * hidden_BL
    return dataclasses.replace(
      text, input_BL=input_BL, target_BL=token_BL, weight_BL=weight_BL
    )


# Memo of `_train`, {(spec, hash of the texts): tokenizer}: runs of a sweep share one.
train_memo: dict[tuple[str, str], Tokenizer] = {}


def _train(spec: str, documents: list[Document]) -> Tokenizer:
  """Returns the tokenizer trained on texts; the newest ones are memoized."""
  key = spec, _digest(documents)
  if key not in train_memo:
    lines = (line for x in documents for line in x.content.decode().split("\n"))
    train_memo[key] = tokenizers.build(spec).train(lines)
    for old in [*train_memo][:-MEMORY]:
      del train_memo[old]
  return train_memo[key]


def _digest(documents: list[Document]) -> str:
  """Returns a hash of the contents, in order."""
  digest = xxhash.xxh3_128()
  for document in documents:
    # The size separates consecutive documents.
    digest.update(len(document.content).to_bytes(8, "little"))
    digest.update(document.content)
  return digest.hexdigest()


def _tokenized(spec: str, documents: dict[str, list[Document]]) -> Tokenized:
  """Returns the tokens of all documents, each with an end token."""
  tokenizer = _train(spec, documents["train"])
  token_N, size_D = {}, {}
  for split, some in documents.items():
    pieces = [_tokens(tokenizer, document) for document in some]
    size_D[split] = np.array([len(x_N) for x_N in pieces], np.int64)
    token_N[split] = np.concatenate([*pieces, np.zeros(0, np.int32)])
  return Tokenized(tokenizer, token_N, size_D)


def _tokens(tokenizer: Tokenizer, document: Document) -> np.ndarray:
  """Returns the tokens of a document and an end token, int32 [N]."""
  lines = document.content.decode().splitlines(keepends=True)
  return np.concatenate([*document_tokens.pieces(tokenizer, lines)])
