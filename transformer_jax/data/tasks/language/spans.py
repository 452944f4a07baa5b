"""Span corruption: an encoder reads a text with gaps, a decoder fills them.

Raffel et al., 2020. https://arxiv.org/abs/1910.10683, section 3.1.4
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch, tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.tasks.language.tokens import Tokens
from transformer_jax.data.tokenizers import PAD, tokenizers
from transformer_jax.positions import coords


@tasks.register("spans")
@dataclasses.dataclass(frozen=True)
class Spans(Tokens):
  """Span corruption: predicts removed spans. The length is that of the whole text.

  Of a text a b ... o with two gaps the encoder reads a b c <extra_0> f g h i j k l m
  <extra_1> and an end; the decoder writes <extra_0> d e <extra_1> n o and an end. As
  published, the last token is always in a gap and the first one never.

  rate   share of removed tokens
  mean   mean number of tokens in a gap

  >>> import transformer_jax as tj
  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> task = tj.tasks.build("spans(tokenizer='byte(sentinels=1)', rate=0.4)")
  >>> arrays = {"train_N": jnp.array([10, 11, 12, 13, 14, 15])}
  >>> batch = evaluate(lambda: task.batch(arrays, jax.random.key(0), 1, length=5))
  >>> batch.source_BL.tolist(), batch.target_BL.tolist()  # 5: <extra_0>, 2: </s>
  ([[10, 11, 12, 5, 2]], [[5, 13, 14, 2]])
  """

  tokenizer: str = "subword(size=8000, sentinels=100)"
  rate: float = 0.15
  mean: float = 3.0

  kind: ClassVar[str] = "encoder_decoder"

  def __post_init__(self):
    super().__post_init__()
    if not (0 < self.rate < 1 and self.mean >= 1):
      raise DataError(
        f"spans: rate is {self.rate} and mean {self.mean}; write a rate between 0 and 1"
        " and a mean of at least 1"
      )
    if self.packed is True:  # the registry names values of other types
      raise DataError("spans: a row is one text with gaps; leave out packed")

  def tokens(self, length: int) -> int:
    """Returns the number of tokens of the longer side."""
    return max(self.sides(length))

  @property
  def _frame(self) -> tuple[int, int]:
    """Start and end token of a side."""
    tokenizer = tokenizers.build(self.tokenizer)
    return tokenizer.start, tokenizer.end

  def counts(self, length: Any) -> tuple[Any, Any]:
    """Returns the numbers of removed tokens and of gaps of a text."""
    gone = jnp.clip(jnp.round(length * self.rate), 1, jnp.maximum(length - 1, 1))
    gaps = jnp.clip(jnp.round(gone / self.mean), 1, jnp.maximum(length - gone, 1))
    return gone.astype(jnp.int32), gaps.astype(jnp.int32)

  def sides(self, length: int) -> tuple[int, int]:
    """Returns the numbers of tokens of source and target, end tokens included."""
    with jax.ensure_compile_time_eval():
      gone, gaps = map(int, self.counts(length))
    have = sum(
      x.startswith("<extra_") for x in tokenizers.build(self.tokenizer).special
    )
    if gaps > have:
      raise DataError(
        f"spans: a text of {length} tokens has {gaps} gaps and the tokenizer {have}"
        f" sentinels; write sentinels={gaps} in tokenizer={self.tokenizer!r}"
      )
    return length - gone + gaps + 1, gone + gaps + 1

  def batch(self, arrays, key, batch_size, length, progress=1.0):
    """Returns windows of the training text with gaps.

    Arguments are those of `Task.batch`.
    """
    text = super().batch(arrays, key, batch_size, length, progress)
    return self._batch(text.input_BL, key, length, length)

  def score(self, arrays, key, batch_size, length, bucket):
    """Returns windows with gaps, both sides aligned right; all gaps count.

    Arguments are those of `Task.score`.
    """
    text = super().score(arrays, key, batch_size, length, bucket)
    # The rolled text is aligned left.
    return self._batch(jnp.roll(text.input_BL, length, axis=1), key, length, bucket)

  def _batch(self, token_BL: jax.Array, key: jax.Array, length: Any, L: int) -> Batch:
    """Returns the batch with gaps in the first `length` tokens, aligned right."""
    keys = jax.random.split(jax.random.fold_in(key, 1), token_BL.shape[0])
    gone, gaps = self.counts(length)

    def cut(token_L, key):
      return self._cut(token_L, gaps_of(key, length, gone, gaps, L), length, L)

    source_BL, target_BL = jax.vmap(cut)(token_BL, keys)

    def place(x_BL):
      return jnp.arange(x_BL.shape[1])[None]

    full, answer = self.sides(L)
    missing = full - (length - gone + gaps + 1), answer - (gone + gaps + 1)
    source_BL = jnp.roll(source_BL, missing[0], axis=1)
    target_BL = jnp.roll(target_BL, missing[1], axis=1)
    before_BL = jnp.pad(target_BL, ((0, 0), (1, 0)))[:, :-1]
    real_1L = place(target_BL) >= missing[1]
    input_BL = jnp.where(place(target_BL) == missing[1], self._frame[0], before_BL)
    weight_BL = jnp.broadcast_to(real_1L, target_BL.shape).astype(jnp.float32)
    source_at = coords.padded(place(source_BL) >= missing[0])
    at = coords.padded(real_1L)
    return Batch(input_BL, target_BL, weight_BL, at, source_BL, source_at)

  def _cut(self, token_L, gap_L, length, L):
    """Returns a text without its gaps, and its gaps, each with sentinels and an end."""
    full, answer = self.sides(L)
    before_L = jnp.pad(gap_L, (1, 0))[:-1]
    first_L, real_L = gap_L & ~before_L, jnp.arange(L) < length
    kept_L = real_L & ~gap_L
    first = tokenizers.build(self.tokenizer).sentinel(0)
    sentinel_L = first + jnp.cumsum(first_L) - 1
    source_L = jnp.where(gap_L, sentinel_L, token_L)
    source = _listed(source_L, kept_L | (first_L & real_L), full, self._frame[1])
    # A sentinel precedes each gap, so both are written at once, two per place.
    pair_M = jnp.stack([sentinel_L, token_L], axis=1).ravel()
    keep_M = jnp.stack([first_L & real_L, gap_L & real_L], axis=1).ravel()
    return source, _listed(pair_M, keep_M, answer, self._frame[1])


def _listed(token_L: jax.Array, keep_L: jax.Array, size: int, end: int) -> jax.Array:
  """Returns the chosen tokens in order, an end token, and padding up to `size`."""
  place_L = jnp.where(keep_L, jnp.cumsum(keep_L) - 1, size)
  kept = jnp.full(size, PAD, jnp.int32).at[place_L].set(token_L, mode="drop")
  return kept.at[jnp.sum(keep_L)].set(end)


def gaps_of(key: jax.Array, length: Any, gone: Any, gaps: Any, L: int) -> jax.Array:
  """Returns random gaps in the first `length` places; the last place is a gap.

  Remaining and removed tokens are cut into equally many pieces, each of at least one
  token. All cuts are equally likely.

  key      chooses the gaps
  length   tokens of the text
  gone     number of removed tokens
  gaps     number of gaps
  L        size of the mask
  """
  keys = jax.random.split(key)
  stays_G = _pieces(keys[0], length - gone, gaps, L)
  goes_G = _pieces(keys[1], gone, gaps, L)
  size_P = jnp.stack([stays_G, goes_G], axis=1).ravel()
  start_P = jnp.cumsum(size_P) - size_P
  piece_L = jnp.searchsorted(start_P, jnp.arange(L), side="right") - 1
  return (piece_L % 2 == 1) & (jnp.arange(L) < length)


def _pieces(key: jax.Array, total: Any, pieces: Any, L: int) -> jax.Array:
  """Cuts `total` into `pieces` numbers of at least 1; returns L of them, 0 beyond."""
  place_L = jnp.arange(L)
  # A random choice of the starts of pieces, except the first one.
  free_L = (place_L >= 1) & (place_L < total)
  drawn_L = jnp.where(free_L, jax.random.uniform(key, (L,)), 2.0)
  starts_L = jnp.zeros(L, bool).at[jnp.argsort(drawn_L)].set(place_L < pieces - 1)
  piece_L = jnp.where(place_L < total, jnp.cumsum(starts_L), L)
  return jnp.zeros(L, jnp.int32).at[piece_L].add(1, mode="drop")
