"""Dropping positions late in training. Gelberg et al., 2025.

https://arxiv.org/abs/2512.12167
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.rope import Rope
from transformer_jax.positions.shared.wrapper import Wrapper


@positions.register("drope")
@dataclasses.dataclass(frozen=True)
class Drope(Wrapper):
  """Trains with an encoding first, and without it after a fraction of training.

      p' = p before the share `after` of training, 0 from then on

  Without it all tokens are at position 0, which disables a relative encoding.
  Evaluation is always without it, so results mean little before that fraction.

  encoding   any relative encoding
  after      fraction of the training steps after which positions are dropped

  >>> import jax
  >>> import transformer_jax as tj
  >>> drope = tj.positions.build("drope(rope, after=0.875)")
  >>> at, key = tj.positions.coords.consecutive(1, 4), jax.random.key(0)
  >>> for progress in 0.5, 0.9:
  ...   context = tj.positions.TrainContext(key, progress)
  ...   print(jax.jit(drope.assign_positions)(context, at).pos_BL)
  [[0 1 2 3]]
  [[0 0 0 0]]
  """

  encoding: PositionalEncoding = Rope()
  after: float = 0.875
  extrapolation = "no positions"

  def __post_init__(self):
    super().__post_init__()
    if not self.encoding.relative:
      raise ValueError(
        f"drope puts all tokens at one position, which does not switch off"
        f" {self.encoding.name}; use a relative encoding, as rope"
      )

  def num_positions(self, dims):
    return None

  def assign_positions(self, context, at):
    if context is None:
      return self.encoding.assign_positions(
        None, at.replace(pos_BL=jnp.zeros_like(at.pos_BL))
      )
    pos_BL = jnp.where(context.progress < self.after, at.pos_BL, 0)
    return self.encoding.assign_positions(context.inner(), at.replace(pos_BL=pos_BL))
