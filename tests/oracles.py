"""Attention as the papers write it: float64 NumPy, one query, key and head at a time.

Nothing here calls the project or JAX. A paper says what it does to a token, to one
score and to one value; `attend` loops over heads, queries and keys around it.
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Where:
  """One row of tokens, written by hand: text number (0 = none), position, who sees."""

  text_L: list[int]
  pos_L: list[int]
  both_ways: bool = False

  def sees(self, i, j):
    same = self.text_L[i] == self.text_L[j] != 0
    return same and (self.both_ways or j <= i)


class Paper:
  """No positional encoding. Vaswani et al. 2017, equation 1; Haviv et al. 2022."""

  def embed(self, params, x_D, pos):
    return x_D

  def turn(self, params, x_K, pos):
    return x_K

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    """Returns the score of a query at position i and a key at position j."""
    return scale * (q_K @ k_K)

  def gates(self, params, h, x_ND):
    """Returns what the tokens after the key, up to the query, add to the score."""
    return 0.0

  def value(self, params, v_K, i, j):
    return v_K


def attend(paper, params, q_LHK, k_LHK, v_LHK, x_LD, where):
  """Returns one row of attention outputs, [L, H, K]; zero where nothing is seen."""
  L, H, K = q_LHK.shape
  out_LHK = np.zeros(v_LHK.shape)
  pos = where.pos_L
  for h in range(H):
    for i in range(L):
      keys = [j for j in range(L) if where.sees(i, j)]
      scores, values = [], []
      for j in keys:
        q_K = paper.turn(params, q_LHK[i, h], pos[i])
        k_K = paper.turn(params, k_LHK[j, h], pos[j])
        score = paper.score(
          params, h, q_K, k_K, pos[i], pos[j], K**-0.5, where.both_ways
        )
        scores.append(score + paper.gates(params, h, x_LD[j + 1 : i + 1]))
        values.append(paper.value(params, v_LHK[j, h], pos[i], pos[j]))
      if keys:
        weights = np.exp(np.array(scores) - max(scores))
        out_LHK[i, h] = weights @ np.array(values) / weights.sum()
  return out_LHK


def embedded(paper, params, x_LD, where):
  """Returns the tokens after the encoding changed them."""
  return np.array(
    [paper.embed(params, x, p) for x, p in zip(x_LD, where.pos_L, strict=True)]
  )


class Sinusoidal(Paper):
  """Vaswani et al. 2017, section 3.5: even features sine, odd features cosine."""

  def embed(self, params, x_D, pos):
    D = len(x_D)
    angle = [pos / 10000 ** (2 * (n // 2) / D) for n in range(D)]
    wave = [math.cos(a) if n % 2 else math.sin(a) for n, a in enumerate(angle)]
    return x_D + np.array(wave)


class Learned(Paper):
  """Gehring et al. 2017, section 3.1: a row of a table for each position."""

  def embed(self, params, x_D, pos):
    return x_D + params["table_LD"][pos]


@dataclasses.dataclass
class Shaw(Paper):
  """Shaw et al. 2018, equations 3 and 4, with clip(j - i, -k, k)."""

  furthest: int

  def row(self, i, j):
    return max(-self.furthest, min(j - i, self.furthest)) + self.furthest

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    return scale * (q_K @ (k_K + params["key_NK"][self.row(i, j)]))

  def value(self, params, v_K, i, j):
    return v_K + params["value_NK"][self.row(i, j)]


@dataclasses.dataclass
class T5(Paper):
  """Raffel et al. 2020, section 2.1; bucket edges by exact integer arithmetic."""

  buckets: int
  furthest: int

  def bucket(self, ahead, both_ways):
    if not both_ways:
      return self.one_side(max(-ahead, 0), self.buckets)
    half = self.buckets // 2
    return self.one_side(abs(ahead), half) + (half if ahead > 0 else 0)

  def one_side(self, n, buckets):
    exact = buckets // 2
    steps = buckets - exact
    if n < exact:
      return n
    # b steps are taken once n / exact >= (furthest / exact) ** (b / steps).
    taken = [
      b for b in range(steps) if n**steps * exact**b >= exact**steps * self.furthest**b
    ]
    return exact + max(taken)

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    return scale * (q_K @ k_K) + params["table_HN"][h, self.bucket(j - i, both_ways)]


@dataclasses.dataclass
class Alibi(Paper):
  """Press et al. 2022, section 3; other head counts as in footnote and code."""

  heads: int

  def slope(self, h):
    power = 1
    while power * 2 <= self.heads:
      power *= 2
    if h < power:
      return 2.0 ** (-8 * (h + 1) / power)
    return 2.0 ** (-8 * (2 * (h - power) + 1) / (2 * power))

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    return scale * (q_K @ k_K) - self.slope(h) * abs(i - j)


@dataclasses.dataclass
class Rope(Paper):
  """Su et al. 2021, equation 34: pairs are complex numbers times exp(i n theta)."""

  base: float
  neighbours: bool

  def turn(self, params, x_K, pos):
    K = len(x_K)
    turned = np.zeros(K)
    for m in range(K // 2):
      a, b = (2 * m, 2 * m + 1) if self.neighbours else (m, m + K // 2)
      phase = pos * self.base ** (-2 * m / K)
      number = complex(x_K[a], x_K[b]) * complex(math.cos(phase), math.sin(phase))
      turned[a], turned[b] = number.real, number.imag
    return turned


@dataclasses.dataclass
class Fire(Paper):
  """Li et al. 2024, equations 3 and 4; both ways: |i - j|, at least it below."""

  threshold: float

  def share(self, params, i, j):
    grow = lambda x: math.log(abs(params["growth"]) * x + 1)
    threshold = abs(params["stretch"] * self.threshold)
    return grow(abs(i - j)) / (grow(max(threshold, i, abs(i - j))) + 1e-6)

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    hidden_F = params["in_W"] * self.share(params, i, j) + params["in_shift_W"]
    bias = params["out_HW"][h] @ np.maximum(hidden_F, 0) + params["out_shift_H"][h]
    return scale * (q_K @ k_K) + bias


class TransformerXL(Paper):
  """Dai et al. 2019, section 3.3: four terms with R(i - j), sines before cosines."""

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    D = params["project_HKD"].shape[-1]
    angle_R = (i - j) / 10000.0 ** (2 * np.arange(D // 2) / D)
    r_K = params["project_HKD"][h] @ np.concatenate([np.sin(angle_R), np.cos(angle_R)])
    u_K, v_K = params["content_HK"][h], params["position_HK"][h]
    return scale * (q_K @ k_K + q_K @ r_K + u_K @ k_K + v_K @ r_K)


class Forgetting(Paper):
  """Lin et al. 2025, equation 5: sum of log f_t for t from j + 1 to i."""

  def gates(self, params, h, x_ND):
    logits = [x_D @ params["forget_DH"][:, h] for x_D in x_ND]
    shift = params["forget_shift_H"][h]
    return sum(-math.log1p(math.exp(-(logit + shift))) for logit in logits)
