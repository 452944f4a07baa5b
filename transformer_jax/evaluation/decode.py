"""Greedy decoding and sampling, on the cache.

Models with attention and recurrent models use the same code: the cache is the result of
`empty_cache`. Beam search is in `beam.py`.

Prompts may be padded on any side: they are moved to the right end of their rows. A
prompt that cannot be continued raises ValueError outside of `jit`. Inside of `jit`,
where its values are unknown, a token that is not defined is written as -1.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.models import Transformer, empty_cache
from transformer_jax.models.transformer import Memory
from transformer_jax.positions import Coords, coords

LEAST_TEMPERATURE = 1e-6  # below it logits that are divided by it may be infinite


@dataclasses.dataclass(frozen=True)
class Writer:
  """A model with its parameters, decoding on the cache.

  memory   the encoded sources, from the model's `encode`; None: a decoder alone
  frozen   whether cached tokens stay as they were; see `empty_cache`

  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.models import Architecture
  >>> arch = Architecture(Dims(V=5, D=8, H=2, F=8, L=8), "rope", decoders=1)
  >>> model = Transformer(arch)
  >>> prompt_BL, key = jnp.zeros((2, 3), int), jax.random.key(0)
  >>> params = jax.eval_shape(model.init, key, prompt_BL)["params"]
  >>> def next_logits(params):
  ...   logits_BV, at, cache = Writer(model, params).start(prompt_BL, None, steps=4)
  ...   return logits_BV
  >>> jax.eval_shape(next_logits, params).shape
  (2, 5)
  """

  model: Transformer
  params: Any
  memory: Memory | None = None
  frozen: bool = False

  def start(self, prompt_BL: jax.Array, at: Coords | None, steps: int):
    """Reads the prompts; returns logits_BV, where the next token is, and the cache.

    Logits of a prompt without a token are NaN.
    """
    B, L = prompt_BL.shape
    check_prompts(prompt_BL, at, self.model.arch.dims.V)
    if at is None:
      at = coords.consecutive(B, L)
    elif _may_end_in_padding(at):
      prompt_BL, at = _at_right_end(prompt_BL, at)
    cache = empty_cache(self.model.arch, B, L + steps, self.frozen)
    logits_BV, cache = self.read(prompt_BL, at, cache)
    last = jax.tree.map(lambda x: jnp.broadcast_to(x[:, -1:], (B, 1)), at)
    logits_BV = jnp.where(last.real_BL, logits_BV, jnp.nan)
    return logits_BV, later(last.replace(data={}), 1), cache

  def next(self, token_B: jax.Array, at: Coords, cache: Any):
    """Reads one more token of each text; returns logits_BV and the cache."""
    return self.read(token_B[:, None], at, cache)

  def read(self, token_BL, at, cache):
    """Returns logits_BV after the last token, and the cache with all of them."""
    logits_BLV, cache = self.model.apply(
      {"params": self.params}, token_BL, at, self.memory, cache, method="decode"
    )
    return logits_BLV[:, -1], cache


def later(at: Coords, n: int | jax.Array) -> Coords:
  """Returns where the causal tokens are that come n places later."""
  order_BL = at.order_BL + n
  return at.replace(order_BL=order_BL, pos_BL=at.pos_BL + n, horizon_BL=order_BL)


def check_prompts(prompt_BL: jax.Array, at: Coords | None, V: int) -> None:
  """Raises ValueError for prompts that cannot be continued, if they can be read."""
  if not prompt_BL.shape[1]:
    raise ValueError("prompts of 0 tokens: give each text a start token at least")
  if coords.is_concrete(prompt_BL):
    tokens = np.asarray(prompt_BL)
    least, most = int(tokens.min()), int(tokens.max())
    if least < 0 or most >= V:
      wrong = least if least < 0 else most
      raise ValueError(f"token {wrong} in a prompt: the model has tokens 0 to {V - 1}")
  if at is not None and coords.is_concrete(at.order_BL):
    empty_B = (np.asarray(at.order_BL) < 0).all(axis=1)
    if empty_B.any():
      raise ValueError(
        f"row {int(empty_B.argmax())} of the prompts is all padding; give each text a"
        " start token at least"
      )


def check_end(end: int, V: int) -> None:
  """Raises ValueError unless a text can end with this token."""
  if not 0 <= end < V:
    raise ValueError(f"end={end}: the model has tokens 0 to {V - 1}")


def _may_end_in_padding(at: Coords) -> bool:
  """Returns whether a row may have padding after or between its tokens."""
  if not coords.is_concrete(at.order_BL):
    return True
  real_BL = np.asarray(at.order_BL) >= 0
  return bool((real_BL[:, :-1] & ~real_BL[:, 1:]).any())


def _at_right_end(prompt_BL: jax.Array, at: Coords) -> tuple[jax.Array, Coords]:
  """Moves the tokens of each row to its right end, and keeps their order."""
  at = jax.tree.map(lambda x: jnp.broadcast_to(x, prompt_BL.shape), at)
  place_BL = jnp.argsort(at.real_BL, axis=1, stable=True)

  def move(x_BL):
    return jnp.take_along_axis(x_BL, place_BL, axis=1)

  return move(prompt_BL), jax.tree.map(move, at)


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How tokens are drawn: at a temperature, from the likely ones.

  temperature   divides the logits
  top_k         draws from the k most likely tokens. Fan et al., 2018,
                https://arxiv.org/abs/1805.04833; 0: from all. Of equally likely tokens
                those with smaller numbers come first, in top_p too
  top_p         draws from the fewest tokens with this much probability together, once
                those of top_k are chosen. Holtzman et al., 2020,
                https://arxiv.org/abs/1904.09751

  >>> logits_BV = jnp.log(jnp.array([[0.5, 0.3, 0.2]]))
  >>> Sampling(top_k=2).logits(logits_BV) > -jnp.inf
  Array([[ True,  True, False]], dtype=bool)
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0

  def __post_init__(self):
    if not LEAST_TEMPERATURE <= self.temperature < math.inf:
      raise ValueError(
        f"temperature={self.temperature}: write {LEAST_TEMPERATURE:g} or more, or"
        " decode greedily"
      )
    if self.top_k < 0:
      raise ValueError(f"top_k={self.top_k}: write 1 or more, or 0 for all tokens")
    if not 0 < self.top_p <= 1:
      raise ValueError(f"top_p={self.top_p}: write a probability above 0, up to 1")

  def logits(self, logits_BV: jax.Array) -> jax.Array:
    """Returns the logits to draw by: -inf where a token is never drawn."""
    logits_BV = logits_BV.astype(jnp.float32) / self.temperature
    if 0 < self.top_k < logits_BV.shape[-1]:
      _, likely_BN = jax.lax.top_k(logits_BV, self.top_k)
      logits_BV = only(logits_BV, likely_BN, jnp.ones_like(likely_BN, bool))
    if self.top_p < 1:
      order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
      p_BV = jnp.take_along_axis(jax.nn.softmax(logits_BV, axis=-1), order_BV, axis=-1)
      before_BV = jnp.cumsum(p_BV, axis=-1) - p_BV
      logits_BV = only(logits_BV, order_BV, before_BV < self.top_p)
    return logits_BV


def only(logits_BV: jax.Array, token_BN: jax.Array, drawn_BN: jax.Array) -> jax.Array:
  """Returns the logits of tokens that may be drawn, -inf elsewhere.

  Selected by token, not by a threshold, which could not separate equal logits.
  """
  never_BV = jnp.zeros(logits_BV.shape, bool)

  def set_row(never_V, token_N, drawn_N):
    return never_V.at[token_N].set(drawn_N)

  return jnp.where(jax.vmap(set_row)(never_BV, token_BN, drawn_BN), logits_BV, -jnp.inf)


def greedy(
  model: Transformer,
  params,
  prompt_BL: jax.Array,
  steps: int,
  at: Coords | None = None,
  memory: Memory | None = None,
  end: int | None = None,
  frozen: bool = False,
) -> jax.Array:
  """Returns the greedy continuation of each prompt, int32 [B, steps].

  model       the decoder
  params      its parameters
  prompt_BL   tokens, at least one in each row
  steps       tokens to generate; static under jit
  at          coordinates of the prompt, `coords.padded` for prompts of several lengths;
              None: consecutive
  memory      encoded sources, from the model's `encode`
  end         end token, with which finished texts are filled up; decoding stops when
              all texts end. None: no text ends early
  frozen      whether cached tokens are never recomputed; see below

  Tokens are -1 from the first step whose logits are NaN.

  Logits equal those of a full pass over the text so far. If later tokens change earlier
  ones, as with `rope_dynamic` in long texts, each token takes a full pass. `frozen`
  leaves cached tokens unchanged instead, as HuggingFace does (see `empty_cache`).
  """
  writer = Writer(model, params, memory, frozen)

  def choose(n, logits_BV):
    return highest(logits_BV)

  return _write(writer, prompt_BL, steps, at, choose, end)


def highest(logits_BV: jax.Array) -> jax.Array:
  """Returns the index of the highest entry of each row, the first of equal ones.

  -1 if an entry is NaN or all are -inf. Else it equals `jnp.argmax`, which XLA does not
  vectorize on CPUs: that takes 5% of decoding 32 texts.
  """
  V = logits_BV.shape[-1]
  most_B1 = logits_BV.max(axis=-1, keepdims=True)  # NaN if one of them is
  top_BV = (logits_BV == most_B1) & (most_B1 > -jnp.inf)
  first_B = jnp.where(top_BV, jnp.arange(V), V).min(axis=-1)
  return jnp.where(first_B < V, first_B, -1)


def sample(
  model: Transformer,
  params,
  prompt_BL: jax.Array,
  steps: int,
  key: jax.Array,
  how: Sampling = Sampling(),  # noqa: B008, a value that never changes
  at: Coords | None = None,
  memory: Memory | None = None,
  end: int | None = None,
  frozen: bool = False,
) -> jax.Array:
  """Returns a sampled continuation of each prompt, int32 [B, steps].

  model       the decoder
  params      its parameters
  prompt_BL   tokens, at least one in each row
  steps       tokens to generate; static under jit
  key         of the random draws; the same key draws the same tokens
  how         temperature, top-k and top-p
  at          coordinates of the prompt; None: consecutive
  memory      encoded sources, from the model's `encode`
  end         end token, with which finished texts are filled up; None: no text ends
              early
  frozen      whether cached tokens are never recomputed, as in `greedy`
  """

  def choose(n, logits_BV):
    drawn_B = jax.random.categorical(jax.random.fold_in(key, n), how.logits(logits_BV))
    return jnp.where(logits_BV.max(axis=-1) > -jnp.inf, drawn_B, -1)

  writer = Writer(model, params, memory, frozen)
  return _write(writer, prompt_BL, steps, at, choose, end)


def _write(
  writer: Writer,
  prompt_BL: jax.Array,
  steps: int,
  at: Coords | None,
  choose: Callable[[jax.Array, jax.Array], jax.Array],
  end: int | None,
) -> jax.Array:
  """Returns the tokens of `choose(step, logits_BV)`, until all texts end.

  writer      the model, its parameters and the encoded sources
  choose      returns token_B of a step; negative: not defined
  prompt_BL, steps, at, end   as in `greedy`
  """
  if end is not None:
    check_end(end, writer.model.arch.dims.V)
  logits_BV, at, cache = writer.start(prompt_BL, at, steps)
  B, last = len(prompt_BL), -1 if end is None else end
  text_BN = jnp.full((B, steps), last, jnp.int32)

  def unfinished(carry):
    n, _, ended_B, _, _ = carry
    return (n < steps) & ~jnp.all(ended_B)

  def step(carry):
    n, text_BN, ended_B, logits_BV, cache = carry
    token_B = jnp.where(ended_B, last, choose(n, logits_BV)).astype(jnp.int32)
    text_BN = jax.lax.dynamic_update_slice_in_dim(text_BN, token_B[:, None], n, axis=1)
    logits_BV, cache = writer.next(token_B, later(at, n), cache)
    ended_B |= (token_B == last) | (token_B < 0)
    return n + 1, text_BN, ended_B, logits_BV, cache

  start = jnp.int32(0), text_BN, jnp.zeros(B, bool), logits_BV, cache
  text_BN = jax.lax.while_loop(unfinished, step, start)[1]
  # Tokens after an undefined one are undefined too, end tokens included.
  return jnp.where(jax.lax.cummin(text_BN, axis=1) < 0, -1, text_BN)
