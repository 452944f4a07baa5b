"""Attention with linear biases. Press et al., 2022. https://arxiv.org/abs/2108.12409"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from transformer_jax.forwarding import computed
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.spec import SpecError, nearest

# Bias of a head, from its slope and i - j.
BOTH_WAYS = {
  "symmetric": lambda slope, back: -slope * jnp.abs(back),
  "offset": lambda slope, back: slope * ((back > 0) / 2 - jnp.abs(back)),
  "two_sided": lambda slope, back: -slope * jnp.abs(back),  # `mask` takes a side away
  "causal": lambda slope, back: -slope * back,
}


@positions.register("alibi")
@dataclasses.dataclass(frozen=True)
class Alibi(PositionalEncoding):
  """Penalizes a score by its distance, at a different rate in every head.

      s_ij = q_i . k_j / sqrt(K) - m_h |i - j|, m_h = 2^(-8 h / H),
        h = 1 ... H, for a power of two; else as in the paper's code

  both_ways   form of bidirectional attention, undefined in the paper. "symmetric": past
              and future are penalized alike; "offset": the past by half a step less
              (Ruoss et al., 2023); "two_sided": half of the heads attend to the past
              only, the others to the future only (the authors' advice);
              "causal": -slope (i - j) for every key, which rewards the future
  causal      False: this is the bidirectional form

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> tj.positions.alibi.slopes(8)[:4]
  [0.5, 0.25, 0.125, 0.0625]
  >>> bias = jax.jit(tj.positions.build("alibi").bias)
  >>> print(bias({"slope_H": 0.5}, np.array([4]), np.arange(4)))
  [[-2.  -1.5 -1.  -0.5]]
  """

  both_ways: str = "symmetric"
  causal: bool = True
  extrapolation = "decays"

  def __post_init__(self):
    if self.both_ways not in BOTH_WAYS:
      near = nearest(self.both_ways, BOTH_WAYS)
      raise SpecError(
        f"alibi has no both_ways='{self.both_ways}'.{near} Choose from"
        f" {', '.join(BOTH_WAYS)}."
      )

  def constants(self, dims):
    return {"slope_H": signed_slopes(self, dims.H)}

  def bidirectional(self):
    return dataclasses.replace(self, causal=False)

  def bias(self, params, pos_L, pos_M):
    return penalty(self, jnp.abs(params["slope_H"]), pos_L, pos_M)

  @computed
  def mask(self):
    """Returns mask_LM of the head's side, past or future; None: no sides."""
    return self.one_side if self.sided else None

  @property
  def sided(self) -> bool:
    """Whether each head attends to the past only, or to the future only."""
    return not self.causal and self.both_ways == "two_sided"

  def one_side(self, params, pos_L, pos_M):
    return self.side(params) * (pos_L[:, None] - pos_M[None, :]) >= 0

  def side(self, params):
    """Returns the side that a head attends to: 1 the past, -1 the future."""
    return jnp.sign(params["slope_H"])


def penalty(alibi: Alibi, slope, pos_L: jax.Array, pos_M: jax.Array) -> jax.Array:
  """Returns the bias b_LM of a head with this slope."""
  form = "symmetric" if alibi.causal else alibi.both_ways
  return BOTH_WAYS[form](slope, pos_L[:, None] - pos_M[None, :])


def signed_slopes(alibi: Alibi, H: int) -> jax.Array:
  """Returns a slope for each head, negative where it attends to the future only."""
  if not alibi.sided:
    return jnp.array(slopes(H))
  if H == 1:
    raise SpecError(
      "alibi(both_ways='two_sided') gives each side heads of its own; use at least 2"
      " heads or another both_ways"
    )
  past, future = slopes(H - H // 2), slopes(H // 2)
  return jnp.array(past + [-slope for slope in future])


def slopes(H: int) -> list[float]:
  """Returns the slopes of H heads in the order of the authors' code (unsorted).

  Powers of two are geometric from 2^(-8/H). Other H take the slopes of the next lower
  power of two and then every other slope of twice that power.
  """
  power = 2 ** math.floor(math.log2(H))
  geometric = [2 ** (-8 * k / power) for k in range(1, power + 1)]
  return geometric if power == H else geometric + slopes(2 * power)[::2][: H - power]
