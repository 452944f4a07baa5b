"""Encodings of two dimensions: patches of an image in rows and columns."""

import dataclasses
import math

import numpy as np

from oracles import Case, Paper


class Sinusoidal2d(Paper):
  """Carion et al. 2020, appendix: half of the features for each axis, column first."""

  def embed(self, params, x_D, pos, ids):
    quarter, waves = len(x_D) // 4, []
    for axis in ("column", "row"):
      angles = [ids[axis] / 10000 ** (m / quarter) for m in range(quarter)]
      waves += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return x_D + np.array(waves)


class Learned2d(Paper):
  """Dosovitskiy et al. 2021, appendix D.4: a vector per row and one per column."""

  def embed(self, params, x_D, pos, ids):
    row_D, column_D = params["row_ND"][ids["row"]], params["column_ND"][ids["column"]]
    return x_D + row_D + column_D


class Turned(Paper):
  """Heo et al. 2024, equation 8: pairs are complex numbers times exp(i angle)."""

  def angles(self, params, h, K, row, column):
    raise NotImplementedError

  def turned(self, params, h, x_K, ids, n):
    angles = self.angles(params, h, len(x_K), ids["row"][n], ids["column"][n])
    turned = np.array(x_K)
    for m, angle in enumerate(angles):
      number = complex(x_K[2 * m], x_K[2 * m + 1])
      number *= complex(math.cos(angle), math.sin(angle))
      turned[2 * m], turned[2 * m + 1] = number.real, number.imag
    return turned

  def scores(self, params, h, i, keys, row):
    ids = row.where.ids
    q_K = self.turned(params, h, row.q_LHK[i, h], ids, i)
    turn = lambda j: self.turned(params, h, row.k_LHK[j, h], ids, j)
    return [row.scale * (q_K @ turn(j)) for j in keys]


@dataclasses.dataclass
class Axial(Turned):
  """Section 3.2; a head of 6 features has one pair per axis, and two features stay."""

  base: float

  def angles(self, params, h, K, row, column):
    each = K // 4
    speed = [self.base ** (-t / each) for t in range(each)]
    return [column * s for s in speed] + [row * s for s in speed]


class Mixed(Turned):
  """Section 3.3, equation 14: an angle that is a mixture of both axes."""

  def angles(self, params, h, K, row, column):
    return params["column_HR"][h] * column + params["row_HR"][h] * row


@dataclasses.dataclass
class Multimodal(Paper):
  """Wang et al. 2024, section 2.1; Huang et al. 2025: the axis of each pair by hand.

  Pairs are halves, (m, m + K / 2).
  """

  axes: tuple[str, ...]

  def turned(self, x_K, ids, n):
    half, turned = len(x_K) // 2, np.array(x_K)
    for m, axis in enumerate(self.axes):
      angle = ids[axis][n] * 10_000 ** (-m / half)
      number = complex(x_K[m], x_K[m + half])
      number *= complex(math.cos(angle), math.sin(angle))
      turned[m], turned[m + half] = number.real, number.imag
    return turned

  def scores(self, params, h, i, keys, row):
    ids = row.where.ids
    q_K = self.turned(row.q_LHK[i, h], ids, i)
    return [row.scale * (q_K @ self.turned(row.k_LHK[j, h], ids, j)) for j in keys]


def taylor(a_GG, terms=60):
  """Returns exp(A) by its series."""
  total, term = np.eye(len(a_GG)), np.eye(len(a_GG))
  for n in range(1, terms):
    term = term @ a_GG / n
    total = total + term
  return total


@dataclasses.dataclass
class LieRE(Turned):
  """Ostmeier et al. 2024, section 4: R(x) = exp(sum over axes of x_i A_i)."""

  block: int
  height: int
  width: int

  def turned(self, params, h, x_K, ids, n):
    place = {"row": ids["row"][n] / (self.height - 1)}
    place["column"] = ids["column"][n] / (self.width - 1)
    found, g = np.array(x_K), self.block
    for b in range(len(x_K) // g):
      skew = np.zeros((g, g))
      for axis, x in place.items():
        key = next(name for name in params if name.startswith(axis))
        raw_P = params[key][h, b] if key.endswith("HNP") else params[key][b]
        upper = [(i, j) for i in range(g) for j in range(i + 1, g)]
        for (i, j), raw in zip(upper, raw_P, strict=True):
          skew[i, j] += x * raw
          skew[j, i] -= x * raw
      found[b * g : (b + 1) * g] = taylor(skew) @ x_K[b * g : (b + 1) * g]
    return found


CASES = [
  Case(
    "liere(block=4, height=3, width=5)",
    LieRE(4, 3, 5),
    lambda dims: 2 * dims.H * (dims.K // 4) * 6,
    neutral=(({"row_HNP": 0, "column_HNP": 0}, Paper()),),
  ),
  Case(
    "liere(block=3, per_head=False)",
    LieRE(3, 8, 8),
    lambda dims: 2 * (dims.K // 3) * 3,
  ),
  Case("sinusoidal_2d", Sinusoidal2d()),
  Case(
    "learned_2d(height=4, width=5)",
    Learned2d(),
    lambda dims: (4 + 5) * dims.D,
    neutral=(({"row_ND": 0, "column_ND": 0}, Paper()),),
  ),
  Case("axial_rope(base=10)", Axial(10)),
  Case("mrope", Multimodal(("time", "row", "column"))),
  Case("mrope(sections=(1, 0, 2))", Multimodal(("time", "column", "column"))),
  Case(
    "mixed_rope",
    Mixed(),
    lambda dims: dims.H * dims.K,
    neutral=(({"row_HR": 0, "column_HR": 0}, Paper()),),
  ),
]
