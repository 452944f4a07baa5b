"""Load of experts in a training batch, and how it moves the bias of their choice.

No gradient reaches that bias. A step moves it after the optimizer's update, of which it
has no part: DeepSeek-V3's balance without an auxiliary loss.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.models.parameters import RUNNING


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ExpertLoad:
  """Number of tokens that chose each expert; the loads of parts of a batch add up.

  load_X   tokens, float32; with the layers before, if those are one loop
  rate     by which the bias of each expert moves in a step

  >>> load = ExpertLoad(jnp.array([3.0, 0.0, 1.5, 1.5]), rate=0.25)
  >>> load.moved(jnp.ones(4)).tolist()
  [0.75, 1.25, 1.0, 1.0]
  """

  load_X: jax.Array
  rate: float = dataclasses.field(metadata={"static": True})

  def moved(self, bias_X: jax.Array) -> jax.Array:
    """Returns the bias after a step: up for experts with less than the mean load.

    Wang et al., 2024, algorithm 1, https://arxiv.org/abs/2408.15664.
    """
    mean_X1 = jnp.mean(self.load_X, axis=-1, keepdims=True)
    return bias_X + self.rate * jnp.sign(mean_X1 - self.load_X)


def record_load(
  module: nn.Module, name: str, weight_BLX: jax.Array, at: Any, rate: float
) -> None:
  """Stores the load of a training batch; elsewhere, and in `init`, does nothing.

  module       that holds the bias
  name         of the bias
  weight_BLX   of the experts of each token; 0: not chosen
  at           coordinates of the tokens, which tell them from padding; None: all count
  rate         by which the bias moves; 0: it stays, and nothing is stored
  """
  training = module.is_mutable_collection(RUNNING) and not module.is_initializing()
  if not (rate and training):
    return
  chosen_BLX = weight_BLX > 0
  if at is not None:
    chosen_BLX &= at.real_BL[..., None]
  load_X = jnp.sum(chosen_BLX, axis=(0, 1), dtype=jnp.float32)
  module.put_variable(RUNNING, name, ExpertLoad(load_X, rate))
