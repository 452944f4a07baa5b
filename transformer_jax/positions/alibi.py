"""Attention with linear biases. Press et al., 2022. https://arxiv.org/abs/2108.12409"""

import dataclasses
import math

import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions


@positions.register("alibi")
@dataclasses.dataclass(frozen=True)
class Alibi(PositionalEncoding):
  """Penalizes a score by its distance, at a different rate in every head.

  In attention that looks both ways past and future are penalized alike, which the paper
  leaves open.
  """

  def constants(self, dims):
    return {"slope_H": jnp.array(slopes(dims.H))}

  def bias(self, params, pos_L, pos_M):
    return -params["slope_H"] * jnp.abs(pos_L[:, None] - pos_M[None, :])


def slopes(H: int) -> list[float]:
  """Returns the rates of H heads as the authors' code orders them (unsorted).

  Powers of two are geometric from 2^(-8/H). Other H take the slopes of the next lower
  power of two and then every other slope of twice that power.
  """
  power = 2 ** math.floor(math.log2(H))
  geometric = [2 ** (-8 * k / power) for k in range(1, power + 1)]
  return geometric if power == H else geometric + slopes(2 * power)[::2][: H - power]
