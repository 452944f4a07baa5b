"""Attention with linear biases. Press et al., 2022. https://arxiv.org/abs/2108.12409"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.spec import SpecError, nearest

UNSEEN = -1e30  # as good as masked, yet finite

# What a head adds, by its slope, the side it looks at (1 past, -1 future) and i - j.
BOTH_WAYS = {
  "symmetric": lambda slope, side, back: -slope * jnp.abs(back),
  "offset": lambda slope, side, back: slope * ((back > 0) / 2 - jnp.abs(back)),
  "two_sided": lambda slope, side, back: jnp.where(
    side * back < 0, UNSEEN, -slope * jnp.abs(back)
  ),
  "causal": lambda slope, side, back: -slope * back,
}


@positions.register("alibi")
@dataclasses.dataclass(frozen=True)
class Alibi(PositionalEncoding):
  """Penalizes a score by its distance, at a different rate in every head.

  both_ways   what happens in attention that sees the future, which the paper leaves
              open. "symmetric": past and future are penalized alike; "offset": the past
              by half a step less (Ruoss et al., 2023); "two_sided": half of the heads
              see only the past, the others only the future (the authors' advice);
              "causal": -slope (i - j) for every key, which rewards the future
  causal      False: this is the form for attention that looks both ways
  """

  both_ways: str = "symmetric"
  causal: bool = True
  longer = "decays"

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
    slope = params["slope_H"]
    return penalty(self, jnp.abs(slope), jnp.sign(slope), pos_L, pos_M)


def penalty(alibi: Alibi, slope, side, pos_L: jax.Array, pos_M: jax.Array) -> jax.Array:
  """Returns the bias b_LM of a head with that slope that looks to that side."""
  form = "symmetric" if alibi.causal else alibi.both_ways
  return BOTH_WAYS[form](slope, side, pos_L[:, None] - pos_M[None, :])


def signed_slopes(alibi: Alibi, H: int) -> jax.Array:
  """Returns a slope for each head, negative where the head sees only the future."""
  if alibi.causal or alibi.both_ways != "two_sided":
    return jnp.array(slopes(H))
  if H == 1:
    raise SpecError(
      "alibi(both_ways='two_sided') gives each side heads of its own; use at least 2"
      " heads or another both_ways"
    )
  past, future = slopes(H - H // 2), slopes(H // 2)
  return jnp.array(past + [-slope for slope in future])


def slopes(H: int) -> list[float]:
  """Returns the rates of H heads as the authors' code orders them (unsorted).

  Powers of two are geometric from 2^(-8/H). Other H take the slopes of the next lower
  power of two and then every other slope of twice that power.
  """
  power = 2 ** math.floor(math.log2(H))
  geometric = [2 ** (-8 * k / power) for k in range(1, power + 1)]
  return geometric if power == H else geometric + slopes(2 * power)[::2][: H - power]
