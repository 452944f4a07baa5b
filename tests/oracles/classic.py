"""The encodings of 2017 to 2022 that everybody compares with, FIRE and FoX."""

import dataclasses
import math

import numpy as np

from oracles import Case, Paper, Placed


class Sinusoidal(Paper):
  """Vaswani et al. 2017, section 3.5: even features sine, odd features cosine."""

  def embed(self, params, x_D, pos, ids):
    D = len(x_D)
    angle = [pos / 10000 ** (2 * (n // 2) / D) for n in range(D)]
    wave = [math.cos(a) if n % 2 else math.sin(a) for n, a in enumerate(angle)]
    return x_D + np.array(wave)


class Learned(Paper):
  """Gehring et al. 2017, section 3.1: a row of a table for each position."""

  def embed(self, params, x_D, pos, ids):
    return x_D + params["table_LD"][pos]


@dataclasses.dataclass
class Shaw(Paper):
  """Shaw et al. 2018, equations 3 and 4, with clip(j - i, -k, k)."""

  max_distance: int

  def row(self, i, j):
    return max(-self.max_distance, min(j - i, self.max_distance)) + self.max_distance

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    return scale * (q_K @ (k_K + params["key_NK"][self.row(i, j)]))

  def value(self, params, v_K, i, j):
    return v_K + params["value_NK"][self.row(i, j)]


@dataclasses.dataclass
class T5(Paper):
  """Raffel et al. 2020, section 2.1; bucket edges by exact integer arithmetic."""

  buckets: int
  max_distance: int

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
    # b steps are taken once n / exact >= (max_distance / exact) ** (b / steps).
    taken = [
      b
      for b in range(steps)
      if n**steps * exact**b >= exact**steps * self.max_distance**b
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

  def transform_qk(self, params, x_K, pos):
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

  def scores(self, params, h, i, keys, row):
    """x-transformers' both ways: c'_j - c'_i for j > i, of gates of their own."""
    back = {n.replace("back_", ""): x for n, x in params.items() if "back_" in n}
    found = super().scores(params, h, i, keys, row)
    ahead = [self.gates(back, h, row.x_LD[i + 1 : j + 1]) if back else 0 for j in keys]
    return [score + more for score, more in zip(found, ahead, strict=True)]


def _alibi_gates(H):
  """Returns gate shifts with which every token keeps exp(-slope): log sigmoid(b)."""
  slope_H = np.array([Alibi(H).slope(h) for h in range(H)])
  return -np.log(np.expm1(slope_H))


class Wall(Paper):
  """The sum over features n of q_n k_n prod of sigmoid(w_n . x_t), j < t <= i."""

  def scores(self, params, h, i, keys, row):
    found = []
    for j in keys:
      total = 0.0
      for n, (q, k) in enumerate(zip(row.q_LHK[i, h], row.k_LHK[j, h], strict=True)):
        kept = 1.0
        for x_D in row.x_LD[j + 1 : i + 1]:
          logit = x_D @ params["forget_DHK"][:, h, n] + params["forget_shift_HK"][h, n]
          kept /= 1 + math.exp(-logit)
        total += q * k * kept
      found.append(row.scale * total)
    return found


CASES = [
  Case("none", Paper()),
  Case(
    "wall",
    Wall(),
    lambda dims: dims.D * dims.H * dims.K + dims.H * dims.K,
    neutral=(({"forget_DHK": 0, "forget_shift_HK": 40}, Paper()),),
    both_ways=False,
  ),
  Case("sinusoidal", Sinusoidal()),
  Case("learned", Learned(), lambda dims: dims.L * dims.D),
  Case(
    "shaw(max_distance=3)",
    Shaw(3),
    lambda dims: 2 * (2 * 3 + 1) * dims.K,
    neutral=(({"key_NK": 0, "value_NK": 0}, Paper()),),
  ),
  Case(
    "t5(buckets=8, max_distance=6)",
    T5(8, 6),
    lambda dims: 8 * dims.H,
    neutral=(({"table_HN": 0}, Paper()),),
  ),
  Case("alibi", Alibi(3)),
  Case("rope(base=100)", Rope(100, neighbours=False)),
  Case("rope(interleaved=True)", Rope(10_000, neighbours=True)),
  Case(
    "fire(width=5, threshold=4)",
    Fire(4),
    lambda dims: 2 * 5 + (5 + 1) * dims.H + 2,
    # Corners of the network between 0 and 1, none of which is hit.
    point={"growth": 0.6, "stretch": -0.8}
    | {"in_W": [3.0, -2.0, 1.5, -1.0, 2.0]}
    | {"in_shift_W": [-1.1, 1.3, -0.85, 0.55, -0.5]},
    neutral=(({"out_HW": 0}, Paper()),),
    cancels=("out_shift_H",),
  ),
  Case(
    "transformer_xl",
    TransformerXL(),
    lambda dims: dims.D * dims.H * dims.K + 2 * dims.H * dims.K,
    neutral=(({"content_HK": 0, "position_HK": 0, "project_HKD": 0}, Paper()),),
  ),
  Case(
    "forgetting",
    Forgetting(),
    lambda dims: dims.D * dims.H + dims.H,
    neutral=(
      ({"forget_DH": 0, "forget_shift_H": 40}, Paper()),
      ({"forget_DH": 0, "forget_shift_H": _alibi_gates(3)}, Alibi(3)),
    ),
  ),
  Case(
    "randomized(rope(base=100), step=3)",
    Placed(Rope(100, neighbours=False), lambda where: [3 * p for p in where.pos_L]),
  ),
]
