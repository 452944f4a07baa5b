"""Llama 4's attention temperature, a step function of the position. Meta, 2025.

https://huggingface.co/meta-llama/Llama-4-Scout-17B-16E
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.shared.tempered import Tempered, tokens_in_horizon


@positions.register("log_steps")
@dataclasses.dataclass(frozen=True)
class LogSteps(Tempered):
  """Multiplies the query of n keys by 1 + gain * log(1 + floor(n / step)).

      s_ij = (1 + gain ln(1 + floor(n / step))) q_i . k_j / sqrt(K),
        n = tokens of its text up to query i's horizon

  Llama 4 does so in its layers without positions: `every(4, log_steps(none), rope)`.

  encoding   any encoding
  step       keys that a query attends to before the factor first grows
  gain       factor on the logarithm

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 16)
  >>> log_steps = tj.positions.build("log_steps(step=4)")
  >>> factor_L = np.ravel(jax.jit(log_steps.factor)({}, at, at))
  >>> print(factor_L[::4].round(3))
  [1.    1.069 1.11  1.139]
  """

  encoding: PositionalEncoding = PositionalEncoding()
  step: int = 8192
  gain: float = 0.1

  def factor(self, params, q_at, k_at):
    steps_BL11 = tokens_in_horizon(q_at, k_at) // self.step
    return 1 + self.gain * jnp.log1p(steps_BL11.astype(jnp.float32))
