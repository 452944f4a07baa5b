"""Randomized positions over any encoding. Ruoss et al., 2023.

https://arxiv.org/abs/2305.16843
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.forwarding import computed
from transformer_jax.positions import coords
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.shared.wrapper import Wrapper


@positions.register("randomized")
@dataclasses.dataclass(frozen=True)
class Randomized(Wrapper):
  """Trains on sorted random positions, so that large ones are trained too.

      p'_1 < p'_2 < ... drawn from 0 .. max_positions - 1 in training

  In evaluation and decoding token n is at n * step, or texts are spread evenly over all
  positions, the average of training; the paper draws there too. An inner encoding that
  assigns positions starts from these: `randomized(interpolated(rope))`.

  encoding   any encoding
  max_positions    upper limit of the positions
  step       distance between neighbours in evaluation and decoding
  spread     spreads texts in evaluation; needs the whole text, so that decoding reads
             it again with each token

  >>> import jax
  >>> import transformer_jax as tj
  >>> randomized = tj.positions.build("randomized(rope, max_positions=64, step=16)")
  >>> at = tj.positions.coords.consecutive(1, 4)
  >>> randomized.assign_positions(None, at).pos_BL.tolist()
  [[0, 16, 32, 48]]
  >>> context = tj.positions.TrainContext(jax.random.key(0))
  >>> jax.jit(randomized.assign_positions)(context, at).pos_BL.tolist()
  [[0, 1, 36, 40]]
  """

  encoding: PositionalEncoding = PositionalEncoding()
  max_positions: int = 2048
  step: int = 1
  spread: bool = False

  @computed
  def needs_full_text(self):
    return self.spread or self.encoding.needs_full_text

  def init(self, key, dims):
    dims = dataclasses.replace(dims, L=self.max_positions)
    end = self.encoding.num_positions(dims)
    if end is not None and end < self.max_positions:
      raise ValueError(
        f"randomized draws positions below {self.max_positions}, but {self.encoding}"
        " ends at"
        f" {end}; make the two max_positions alike"
      )
    return self.encoding.init(key, dims)

  def num_positions(self, dims):
    # Only tables end; a formula of the position is defined past `max_positions`.
    end = self.encoding.num_positions(dataclasses.replace(dims, L=self.max_positions))
    step = 1 if self.spread else self.step
    return None if end is None else -(-self.max_positions // step)

  def stable_length(self, dims):
    end = self.encoding.stable_length(dims)
    if self.spread or end == 0:
      return 0
    return None if end is None else (end - 1) // self.step + 1

  def assign_positions(self, context, at):
    if context is None:
      pos_BL = self._spread(at) if self.spread else at.pos_BL * self.step
      return self.encoding.assign_positions(None, at.replace(pos_BL=pos_BL))
    at = coords.randomized(context.key, at, self.max_positions)
    return self.encoding.assign_positions(context.inner(), at)

  def _spread(self, at):
    """Returns positions up to `max_positions`; a row's longest text sets the gap."""
    L = at.order_BL.shape[1]
    if L == 1:
      raise ValueError(
        "randomized(spread=True) places whole texts and cannot decode token by token;"
        " use step=..."
      )
    if L > self.max_positions:
      raise ValueError(
        f"randomized: {L} tokens do not fit {self.max_positions} positions; raise"
        " max_positions to"
        f" {L}"
      )
    tokens_B1 = jnp.max(at.order_BL, axis=1, keepdims=True) + 1
    return at.pos_BL * (self.max_positions // jnp.maximum(tokens_B1, 1))
