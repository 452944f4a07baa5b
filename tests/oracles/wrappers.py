"""Encodings around encodings: where tokens are placed, by layer, and temperatures.

Here they are as in evaluation; what they do in training is in test_wrappers.py.
"""

import dataclasses
import math
from collections.abc import Callable

from oracles import Case, Paper, Placed
from oracles.classic import T5, Learned, Rope, Sinusoidal

ROPE = Rope(100, neighbours=False)


@dataclasses.dataclass(frozen=True)
class Around(Placed):
  """A paper inside another one, at the positions it would have alone."""

  positions: Callable = lambda where: where.pos_L


class Abacus(Around):
  """McLeish et al. 2024, section 3.1: a vector per place of a digit, from 1."""

  def embed(self, params, x_D, pos, ids):
    digit = ids["abacus"]
    x_D = self.paper.embed(params, x_D, pos, ids)
    return x_D + params["abacus_ND"][digit - 1] if digit else x_D


class Timestep(Around):
  """Chen et al. 2021, section 3: a vector per step of an episode."""

  def embed(self, params, x_D, pos, ids):
    x_D = self.paper.embed(params, x_D, pos, ids)
    return x_D + params["step_ND"][ids["step"]]


@dataclasses.dataclass(frozen=True)
class OfLayer(Around):
  """A paper whose parameters have a prefix, since other layers have other papers."""

  prefix: str = "e0_"

  def scores(self, params, h, i, keys, row):
    start = self.prefix
    own = {n.removeprefix(start): x for n, x in params.items() if n.startswith(start)}
    return self.paper.scores(own, h, i, keys, row)


@dataclasses.dataclass(frozen=True)
class Sharp(Around):
  """A paper without bias whose scores are multiplied.

  factor   (parameters, head, keys seen, length of the text) -> by what
  """

  factor: Callable = None

  def scores(self, params, h, i, keys, row):
    scores = self.paper.scores(params, h, i, keys, row)
    times = self.factor(params, h, len(keys), len(row.where.text(i)))
    return [times * score for score in scores]


def learned_log(params, h, seen, length):
  """Nakanishi 2025, equation 3: n to the power of s z is exp(s log(n) z)."""
  return params["sharpness_H"][h] * math.log(seen)


def fixed_log(params, h, seen, length):
  """Chiang and Cholak 2022, section 5.3, where 16 tokens are the training length."""
  return math.log(seen) / math.log(16)


def by_length(params, h, seen, length):
  """Wang et al. 2024, section 4, at a training length of 3 tokens."""
  return 1 + 0.3973 * math.log(max(1, length / 3))


def in_steps(params, h, seen, length):
  """Llama 4, with steps of 2 positions: seen is the position + 1."""
  return 1 + 0.1 * math.log(1 + math.floor(seen / 2))


CASES = [
  Case("shape(rope(base=100))", ROPE),
  Case("shape(learned, max_shift=3)", Learned(), lambda dims: (dims.L + 3) * dims.D),
  Case("cape", Sinusoidal()),
  Case(
    "interpolated(rope(base=100), factor=4)",
    Placed(ROPE, lambda where: [p / 4 for p in where.pos_L]),
  ),
  Case(
    "abacus(rope(base=100), max_positions=6)",
    Abacus(ROPE),
    lambda dims: 6 * dims.D,
    neutral=(({"abacus_ND": 0}, ROPE),),
  ),
  Case(
    "timestep(rope(base=100), max_positions=6)",
    Timestep(ROPE),
    lambda dims: 6 * dims.D,
    neutral=(({"step_ND": 0}, ROPE),),
  ),
  Case(
    "coupled(learned, max_positions=9)",
    Placed(Learned(), lambda where: where.ids["coupled"]),
    lambda dims: 10 * dims.D,
  ),
  Case("drope(rope(base=100))", Paper()),
  Case("across(rope(base=100))", ROPE),
  # Without a layer a schedule acts as its first one.
  Case(
    "every(2, rope, t5(8, 6))",
    OfLayer(T5(8, 6), prefix="e1_"),
    lambda dims: 8 * dims.H,
    neutral=(({"e1_table_HN": 0}, Paper()),),
  ),
  Case(
    "by_layer((t5(8, 6), rope))",
    OfLayer(T5(8, 6)),
    lambda dims: 8 * dims.H,
    neutral=(({"e0_table_HN": 0}, Paper()),),
  ),
  Case(
    "log_n(rope(base=100))",
    Sharp(ROPE, factor=learned_log),
    lambda dims: dims.H,
    neutral=(({"sharpness_H": 1 / math.log(16)}, Sharp(ROPE, factor=fixed_log)),),
  ),
  Case("log_n(learned=False)", Sharp(Paper(), factor=fixed_log)),
  Case("nope_scaled(trained=3)", Sharp(Paper(), factor=by_length)),
  Case("log_steps(rope(base=100), step=2)", Sharp(ROPE, factor=in_steps)),
]
