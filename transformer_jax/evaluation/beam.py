"""Beam search with a length penalty, on the cache. Wu et al., 2016.

https://arxiv.org/abs/1609.08144
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.evaluation.decode import Writer, check_end, later
from transformer_jax.models import Transformer, empty_cache
from transformer_jax.models.transformer import Memory
from transformer_jax.positions import Coords
from transformer_jax.spec import Registry


class Penalty:
  """Base class of length penalties: divisors of the log p of a text.

  >>> penalty = penalties.build("gnmt(alpha=1.0)")
  >>> -9.0 / penalty(1), -9.0 / penalty(13)  # the longer text scores higher
  (-9.0, -3.0)
  """

  def __call__(self, n: jax.Array) -> jax.Array:
    """Returns the divisor of texts of n tokens."""
    raise NotImplementedError


penalties = Registry("length penalty", Penalty)


@penalties.register("gnmt")
@dataclasses.dataclass(frozen=True)
class GNMT(Penalty):
  """Divides log p of n tokens by ((5 + n) / 6) ** alpha. Wu et al., 2016.

  >>> penalties.build("gnmt(alpha=1.0)")(13)
  3.0
  """

  alpha: float = 0.6

  def __call__(self, n: jax.Array) -> jax.Array:
    return ((5.0 + n) / 6.0) ** self.alpha


@penalties.register("power")
@dataclasses.dataclass(frozen=True)
class Power(Penalty):
  """Divides log p of n tokens by n ** alpha, as `transformers` does; 0: by nothing.

  >>> penalties.build("power(alpha=0.5)")(16), penalties.build("power(alpha=0)")(16)
  (4.0, 1.0)
  """

  alpha: float = 1.0

  def __call__(self, n: jax.Array) -> jax.Array:
    return (1.0 * n) ** self.alpha


# When the search for a text is over, its beam being full of finished ones: at once; or
# when the best text that goes on is no better at its length, or at the longest.
STOPS: dict[str, Callable] = {
  "full": lambda sum_B, penalty, n, steps: jnp.full_like(sum_B, -jnp.inf),
  "likely": lambda sum_B, penalty, n, steps: sum_B / penalty(n),
  "sure": lambda sum_B, penalty, n, steps: sum_B / penalty(steps),
}


@dataclasses.dataclass(frozen=True)
class Beam:
  """Settings of the beam search.

  width     number of hypotheses, K
  penalty   divides the sum of log p; the end token counts as one
  stop      full: when K hypotheses are finished; likely: when also the best unfinished
            one scores lower at its present length; sure: when it scores lower at the
            length that favours it most

  >>> Beam(width=4, penalty="gnmt(alpha=1.0)").penalty(7)
  2.0
  """

  width: int = 4
  penalty: Any = GNMT()
  stop: str = "likely"

  def __post_init__(self):
    object.__setattr__(self, "penalty", penalties.build(self.penalty))
    if self.width < 1:
      raise ValueError(f"width={self.width}: write 1 or more texts")
    if self.stop not in STOPS:
      raise ValueError(f"stop={self.stop!r}: write one of {', '.join(STOPS)}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hypotheses:
  """The K best texts of each row, best first; a text is filled up with its end token.

  token_BKN   tokens of the texts
  score_BK    log p divided by the penalty; -inf: no text
  length_BK   number of tokens, end token included

  >>> import numpy as np
  >>> found = Hypotheses(
  ...   token_BKN=np.array([[[7, 8, 2], [7, 2, 2]]]),  # 2 ends a text
  ...   score_BK=np.array([[-0.5, -0.9]]),
  ...   length_BK=np.array([[3, 2]]),
  ... )
  >>> found.token_BKN[0, 0].tolist(), float(found.score_BK[0, 0])
  ([7, 8, 2], -0.5)
  """

  token_BKN: jax.Array
  score_BK: jax.Array
  length_BK: jax.Array


def beam_search(
  model: Transformer,
  params,
  prompt_BL: jax.Array,
  steps: int,
  end: int,
  how: Beam = Beam(),  # noqa: B008, a value that never changes
  at: Coords | None = None,
  memory: Memory | None = None,
  frozen: bool = False,
) -> Hypotheses:
  """Returns the best texts of up to `steps` tokens that follow each prompt.

  model, params       the decoder and its parameters
  prompt_BL           tokens, at least one in each row
  steps               tokens to generate at most; static under jit
  end                 token that ends a text
  how                 settings of the search
  at, memory, frozen  as in `greedy`

  Each step extends every text of a beam by every token and takes the 2 K best by log p.
  Texts that end are finished if they are among the K best. The K best others are
  extended further. The K finished texts with the best scores are returned. After the
  last step, all texts among the K best count as finished.
  """
  check_end(end, model.arch.dims.V)
  K, B = how.width, len(prompt_BL)
  writer = Writer(model, params, memory, frozen)
  logits_BV, at, cache = writer.start(prompt_BL, at, steps)
  axes = _batch_axes(model.arch, prompt_BL.shape[1] + steps, frozen)
  wide = dataclasses.replace(writer, memory=_repeat(memory, B, K))
  at = jax.tree.map(lambda x: jnp.repeat(x, K, axis=0), at)
  search = _Search(wide, at, axes, how, steps, end)
  cache = _pick(cache, axes, jnp.repeat(jnp.arange(B), K))
  start = search.start(logits_BV, cache)
  return jax.lax.while_loop(search.goes_on, search.step, start)[2]


@dataclasses.dataclass(frozen=True)
class _Search:
  """Steps of one search.

  writer   the decoder, with K copies of each row of its memory
  at       coordinates of the prompts, K copies of each row
  axes     batch axis of each array of the cache
  how      settings of the search
  steps    tokens to generate at most
  end      token that ends a text

  Its state is (n, done_B, best, token_BKN, sum_BK, logits_BKV, cache): tokens so far,
  whether a row is done, its finished texts, its beam, the log p and next logits of it.
  """

  writer: Writer
  at: Coords
  axes: Any
  how: Beam
  steps: int
  end: int

  def start(self, logits_BV: jax.Array, cache: Any) -> tuple:
    """Returns the state before the first token."""
    (B, V), K = logits_BV.shape, self.how.width
    token_BKN = jnp.full((B, K, self.steps), self.end, jnp.int32)
    # At first the beam has one text: the others have probability 0.
    sum_BK = jnp.where(jnp.arange(K) == 0, jnp.zeros((B, 1)), -jnp.inf)
    none_BK = jnp.full((B, K), -jnp.inf)
    best = Hypotheses(token_BKN, none_BK, jnp.zeros((B, K), jnp.int32))
    logits_BKV = jnp.broadcast_to(logits_BV[:, None], (B, K, V))
    done_B = jnp.zeros(B, bool)
    return jnp.int32(0), done_B, best, token_BKN, sum_BK, logits_BKV, cache

  def goes_on(self, state: tuple) -> jax.Array:
    """Returns whether another token is generated."""
    n, done_B, *_ = state
    return (n < self.steps) & ~jnp.all(done_B)

  def step(self, state: tuple) -> tuple:
    """Returns the state with one more token."""
    n, done_B, best, token_BKN, sum_BK, logits_BKV, cache = state
    (B, K, _), how = logits_BKV.shape, self.how
    tried = _extend(token_BKN, sum_BK, logits_BKV, n)
    best = _best(best, self.finished(tried, n, done_B), K)

    ends_BC = tried.token_BKN[..., n] == self.end
    lasting_BC = jnp.where(ends_BC, -jnp.inf, tried.score_BK)
    sum_BK, rank_BK = jax.lax.top_k(lasting_BC, K)
    token_BKN = _take(tried.token_BKN, rank_BK)
    parent_BK = _take(tried.length_BK, rank_BK)
    least_B = STOPS[how.stop](sum_BK[:, 0], how.penalty, n + 1, self.steps)
    worst_B = best.score_BK[:, -1]
    done_B |= jnp.isfinite(worst_B) & (worst_B >= least_B)
    done_B |= sum_BK[:, 0] == -jnp.inf  # no text goes on

    rows_R = (parent_BK + K * jnp.arange(B)[:, None]).reshape(-1)
    cache, last_R = _pick(cache, self.axes, rows_R), token_BKN[..., n].reshape(-1)
    logits_RV, cache = self.writer.next(last_R, later(self.at, n), cache)
    logits_BKV = logits_RV.reshape(B, K, -1)
    return n + 1, done_B, best, token_BKN, sum_BK, logits_BKV, cache

  def finished(self, tried: Hypotheses, n: jax.Array, done_B: jax.Array) -> Hypotheses:
    """Returns the extended texts; those that are not finished score -inf."""
    how, K = self.how, self.how.width
    ends_BC = (tried.token_BKN[..., n] == self.end) | (n + 1 == self.steps)
    ends_BC &= (jnp.arange(ends_BC.shape[1]) < K) & ~done_B[:, None]
    score_BC = jnp.where(ends_BC, tried.score_BK / how.penalty(n + 1), -jnp.inf)
    length_BC = jnp.full_like(ends_BC, n + 1, jnp.int32)
    return Hypotheses(tried.token_BKN, score_BC, length_BC)


def _extend(token_BKN, sum_BK, logits_BKV, n) -> Hypotheses:
  """Returns the 2 K best texts with one more token; `length` is where each is from."""
  B, K, V = logits_BKV.shape
  log_p_BKV = jax.nn.log_softmax(logits_BKV.astype(jnp.float32))
  # `top_k` takes NaN for the highest number; it is no probability.
  sum_BKV = sum_BK[..., None] + log_p_BKV
  sum_BKV = jnp.where(jnp.isnan(sum_BKV), -jnp.inf, sum_BKV)
  sum_BC, place_BC = jax.lax.top_k(sum_BKV.reshape(B, -1), min(2 * K, K * V))
  token_BCN = _take(token_BKN, place_BC // V).at[..., n].set(place_BC % V)
  return Hypotheses(token_BCN, sum_BC, place_BC // V)


def _best(a: Hypotheses, b: Hypotheses, K: int) -> Hypotheses:
  """Returns the K best texts of both."""
  both = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), a, b)
  _, rank_BK = jax.lax.top_k(both.score_BK, K)
  return jax.tree.map(lambda x: _take(x, rank_BK), both)


def _take(x: jax.Array, rank_BK: jax.Array) -> jax.Array:
  """Takes the given entries of the second axis in each row."""
  return jax.vmap(lambda x, rank_K: x[rank_K])(x, rank_BK)


def _batch_axes(arch: Any, M: int, frozen: bool) -> Any:
  """Returns the batch axis of each array of a cache; -1: it has none."""
  sizes = 2, 3
  two, three = (
    jax.eval_shape(lambda B=B: empty_cache(arch, B, M, frozen)) for B in sizes
  )

  def axis(a, b):
    pairs = enumerate(zip(a.shape, b.shape, strict=True))
    return next((n for n, pair in pairs if pair == sizes), -1)

  return jax.tree.map(axis, two, three)


def _pick(cache: Any, axes: Any, rows_R: jax.Array) -> Any:
  """Returns the cache of the given rows."""

  def pick(x, axis):
    return jnp.take(x, rows_R, axis=axis) if axis >= 0 else x

  return jax.tree.map(pick, cache, axes)


def _repeat(memory: Memory | None, B: int, K: int) -> Memory | None:
  """Returns K copies of each row, one after another."""

  def repeat(x):
    return jnp.repeat(x, K, axis=0) if len(x) == B else x

  return jax.tree.map(repeat, memory)
