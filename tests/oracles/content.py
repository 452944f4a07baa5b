"""Encodings that look at the tokens: they match, count, gate or reflect them."""

import dataclasses
import math

import numpy as np

from oracles import Case, Paper
from oracles.classic import T5, Alibi, Forgetting

SLOPES = [Alibi(3).slope(h) for h in range(3)]


def sigmoid(x):
  return 1 / (1 + math.exp(-x))


def softplus(x):
  return math.log1p(math.exp(x))


def layer_norm(params, x_D, epsilon):
  unit = (x_D - np.mean(x_D)) / math.sqrt(np.var(x_D) + epsilon)
  return unit * params["gain_D"] + params["shift_D"]


@dataclasses.dataclass
class Deberta(Paper):
  """He et al. 2020, equation 4 with delta of equation 3.

  released: `DisentangledSelfAttention` of the authors' code
  buckets: the tables of versions 2 and 3, found by comparing powers, without logarithms
  """

  max_distance: int
  buckets: int = 0
  norm: bool = False
  released: bool = False

  def bucket(self, back):
    exact = self.buckets // 2
    if abs(back) <= exact:
      return back
    # b steps reach up to exact * ((max_distance - 1) / exact) ** (b / (exact - 1)).
    steps, b = exact - 1, 0
    while abs(back) ** steps * exact**b > exact**steps * (self.max_distance - 1) ** b:
      b += 1
      if b > 2 * self.buckets:
        break
    return (exact + b) * (1 if back > 0 else -1)

  def delta(self, i, j):
    half, back = self.max_distance, i - j
    if self.buckets:
      half, back = self.buckets, self.bucket(back)
    if back <= -half:
      return 0
    return 2 * half - 1 if back >= half else back + half

  def row(self, params, i, j):
    row_D = params["table_ND"][self.delta(i, j)]
    return layer_norm(params, row_D, 1e-7) if self.norm else row_D

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    key_K = self.row(params, i, j) @ params["key_HDK"][h]
    back = (i, j) if self.released else (j, i)
    query_K = self.row(params, *back) @ params["query_HDK"][h]
    return scale / math.sqrt(3) * (q_K @ k_K + q_K @ key_K + k_K @ query_K)


@dataclasses.dataclass
class Tupe(Paper):
  """Ke et al. 2020, equation 8, with a T5 bias, and equation 10 where untied."""

  norm: bool = True
  buckets: tuple = ()
  untie: bool = False

  def vector(self, params, pos):
    row_D = params["table_LD"][pos]
    return layer_norm(params, row_D, 1e-5) if self.norm else row_D

  def positional(self, params, h, i, j, scale, both_ways):
    q_K = self.vector(params, i) @ params["query_HDK"][h]
    k_K = self.vector(params, j) @ params["key_HDK"][h]
    found = scale / math.sqrt(2) * (q_K @ k_K)
    if self.buckets:
      bucket = T5(*self.buckets).bucket(j - i, both_ways)
      found += params["plus_table_HN"][h, bucket]
    return found

  def scores(self, params, h, i, keys, row):
    where, found = row.where, []
    for j in keys:
      more = self.positional(
        params, h, where.pos_L[i], where.pos_L[j], row.scale, where.both_ways
      )
      first = min(where.text(i))
      if self.untie and i == first:
        more = params["from_first_H"][h]
      elif self.untie and j == first:
        more = params["to_first_H"][h]
      content = row.q_LHK[i, h] @ row.k_LHK[j, h]
      found.append(row.scale / math.sqrt(2) * content + more)
    return found


@dataclasses.dataclass
class CoPE(Paper):
  """Golovneva et al. 2024, equations 3 to 5."""

  max_positions: int

  def scores(self, params, h, i, keys, row):
    q_K = row.q_LHK[i, h]
    plain = {j: row.scale * (q_K @ row.k_LHK[j, h]) for j in keys}
    found = []
    for j in keys:
      count = sum(sigmoid(plain[t]) for t in keys if t >= j)
      count = min(count, self.max_positions - 1)
      low, share = int(count), count - int(count)
      e_K = (1 - share) * params["table_NK"][low]
      if share:
        e_K = e_K + share * params["table_NK"][low + 1]
      found.append(plain[j] + q_K @ e_K)
    return found


class Clipped(Paper):
  """CoPE where every token counts fully: vectors of the distance plus one."""

  def scores(self, params, h, i, keys, row):
    q_K, rows = row.q_LHK[i, h], params["table_NK"]
    vector = lambda j: rows[min(i - j + 1, len(rows) - 1)]
    return [row.scale * (q_K @ row.k_LHK[j, h]) + q_K @ vector(j) for j in keys]


@dataclasses.dataclass
class Dape(Paper):
  """Zheng et al. 2024, equation 3 with its residual form; 2410.04798 for more keys."""

  base: Paper
  heads: int
  kernel: int = 1

  def scores(self, params, h, i, keys, row):
    at = lambda j: (row.where.pos_L[i], row.where.pos_L[j], 0.0, row.where.both_ways)
    zero_K, heads = np.zeros(row.q_LHK.shape[-1]), range(self.heads)
    base = lambda g, j: self.base.score(params, g, zero_K, zero_K, *at(j))
    plain = {j: row.scale * np.sum(row.q_LHK[i] * row.k_LHK[j], axis=-1) for j in keys}
    bias = {j: np.array([base(g, j) for g in heads]) for j in keys}
    hidden = {j: self.hidden(params, plain, bias, j) for j in keys}
    reach = self.kernel // 2
    found = []
    for j in keys:
      more = params["mix_out_shift_H"][h]
      for n in range(self.kernel):
        if j + n - reach in hidden:
          more += params["mix_out_HWN"][h, :, n] @ hidden[j + n - reach]
      found.append(plain[j][h] + bias[j][h] + more)
    return found

  def hidden(self, params, plain, bias, j):
    """Returns the hidden units at a key; keys that are not seen give nothing."""
    sum_W = params["mix_shift_W"].copy()
    for n in range(self.kernel):
      t = j + n - self.kernel // 2
      if t in plain:
        sum_W += plain[t] @ params["mix_scores_HWN"][:, :, n]
        sum_W += bias[t] @ params["mix_biases_HWN"][:, :, n]
    return np.where(sum_W > 0, sum_W, 0.01 * sum_W)


@dataclasses.dataclass
class Path(Paper):
  """Yang et al. 2025, section 3: each key times the matrices of all later tokens."""

  width: int
  forget: bool = False

  def direction(self, params, h, t, row):
    """Returns w of token t: low-rank projection, convolution, SiLU, unit length."""
    before = [n for n in row.where.text(t) if n <= t]
    sum_K = np.zeros(row.k_LHK.shape[-1])
    for back in range(min(self.width, len(before))):
      low_W = row.x_LD[before[-1 - back]] @ params["down_DW"]
      sum_K += params["mix_HKN"][h, :, back] * (low_W @ params["up_WHK"][:, h])
    sum_K = sum_K / (1 + np.exp(-sum_K))
    return sum_K / math.sqrt(sum_K @ sum_K + 1e-6)

  def strength(self, params, h, t, row):
    logit = row.x_LD[t] @ params["strength_DH"][:, h] + params["strength_shift_H"][h]
    return 2 * sigmoid(logit)

  def scores(self, params, h, i, keys, row):
    past, found = [t for t in row.where.text(i) if t <= i], []
    w_NK = {t: self.direction(params, h, t, row) for t in past}
    b_N = {t: self.strength(params, h, t, row) for t in past}
    for j in keys:
      k_K = row.k_LHK[j, h].copy()
      for t in range(j + 1, i + 1):
        k_K = k_K - b_N[t] * w_NK[t] * (w_NK[t] @ k_K)
      x_ND = row.x_LD[j + 1 : i + 1]
      gates = Forgetting().gates(params, h, x_ND) if self.forget else 0
      found.append(row.scale * (row.q_LHK[i, h] @ k_K) + gates)
    return found


@dataclasses.dataclass
class GrapeA(Paper):
  """Zhang et al. 2025, section 4: (j - i) times a rate that tokens choose."""

  heads: int
  by_query: bool
  by_key: bool

  def gate(self, x_K, u_K):
    return softplus(x_K @ u_K / math.sqrt(u_K @ u_K) / math.sqrt(len(u_K)))

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    gate = self.gate(q_K, params["query_HK"][h]) if self.by_query else 0
    gate += self.gate(k_K, params["key_HK"][h]) if self.by_key else 0
    rate = softplus(params["rate_H"][h]) * Alibi(self.heads).slope(h)
    return scale * (q_K @ k_K) - abs(i - j) * rate * gate


@dataclasses.dataclass
class GrapeAP(Paper):
  """Zhang et al. 2025, section 5: sum over the path of log sigmoid of links."""

  heads: int

  def link(self, params, h, t, row):
    p_W = row.x_LD[t] @ params["link_DHW"][:, h]
    return p_W / math.sqrt(np.mean(p_W**2) + 1e-6)

  def turned(self, p_W, angle):
    """Returns the vector with pairs (m, m + W/2) turned back by an angle."""
    R = len(p_W) // 2
    z_R = (p_W[:R] + 1j * p_W[R:]) * np.exp(-1j * angle)
    return np.concatenate([z_R.real, z_R.imag])

  def scores(self, params, h, i, keys, row):
    own_W, found = self.link(params, h, i, row), []
    for j in keys:
      total = 0.0
      for t in range(j + 1, i + 1):
        other_W = self.turned(self.link(params, h, t, row), row.where.pos_L[t])
        total += math.log(sigmoid(own_W @ other_W / len(own_W)))
      content = row.scale * (row.q_LHK[i, h] @ row.k_LHK[j, h])
      found.append(content + Alibi(self.heads).slope(h) * total)
    return found


@dataclasses.dataclass
class Inkling(Paper):
  """The Inkling models' attention without their query and key norms."""

  max_distance: int
  floor: int = 0

  def scores(self, params, h, i, keys, row):
    pos, found = row.where.pos_L, []
    r_W = row.x_LD[i] @ params["weigh_DHW"][:, h]
    heat = 1.0
    if self.floor:
      heat += 0.1 * math.log(max((pos[i] + 1) / self.floor, 1))
    for j in keys:
      back, content = pos[i] - pos[j], row.scale * (row.q_LHK[i, h] @ row.k_LHK[j, h])
      bias = r_W @ params["bank_WN"][:, back] if 0 <= back < self.max_distance else 0
      found.append(heat * (content + bias))
    return found


class Gate(Forgetting):
  """Lin et al. 2025, section 3.2: gates that do not look at the token."""

  def gates(self, params, h, x_ND):
    return len(x_ND) * math.log(sigmoid(params["forget_shift_H"][h]))


class PerRow(Paper):
  """x-transformers: log sigmoid(a_i . b_t / sqrt(width)), over t from j up to i - 1."""

  def scores(self, params, h, i, keys, row):
    a_W = row.x_LD[i] @ params["forget_query_DHW"][:, h]
    b_LW = row.x_LD @ params["forget_key_DHW"][:, h]
    log_L = [math.log(sigmoid(a_W @ b_W / math.sqrt(len(a_W)))) for b_W in b_LW]
    found = super().scores(params, h, i, keys, row)
    return [score + sum(log_L[j:i]) for score, j in zip(found, keys, strict=True)]


class Half(Paper):
  """Every token halves what comes before it."""

  def gates(self, params, h, x_ND):
    return -len(x_ND) * HALF


@dataclasses.dataclass
class Fixed(Paper):
  """The same, where head h of H keeps exp(-1 / T) per token and is not trained."""

  memory: tuple
  heads: int

  def scores(self, params, h, i, keys, row):
    ahead = [self.gates(params, h, row.x_LD[i + 1 : j + 1]) for j in keys]
    found = super().scores(params, h, i, keys, row)
    return [score + more for score, more in zip(found, ahead, strict=True)]

  def gates(self, params, h, x_ND):
    first, last = self.memory
    return -len(x_ND) / (first * (last / first) ** (h / (self.heads - 1)))


@dataclasses.dataclass
class Divided(Paper):
  """Plain attention divided as if there were more terms."""

  terms: int

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    return scale / math.sqrt(self.terms) * (q_K @ k_K)


@dataclasses.dataclass
class Slope(Paper):
  """ALiBi with its slopes times a number."""

  heads: int
  factor: float

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    slope = self.factor * Alibi(self.heads).slope(h)
    return scale * (q_K @ k_K) - slope * abs(i - j)


def matched(dims):
  return 2 * dims.D * dims.H * dims.K


def reflected(rank, width):
  def count(dims):
    low = rank * dims.D + rank * dims.H * dims.K
    return low + width * dims.H * dims.K + dims.D * dims.H + dims.H

  return count


def mixed(width, kernel):
  return lambda dims: (2 * dims.H * kernel + 1) * width + (width * kernel + 1) * dims.H


OFF = {"strength_DH": 0, "strength_shift_H": -40}
HALF = math.log(2)  # what a gate of one half forgets

CASES = [
  Case(
    "deberta(max_distance=3)",
    Deberta(3),
    lambda dims: 2 * 3 * dims.D + matched(dims),
    neutral=(({"table_ND": 0}, Divided(3)),),
  ),
  Case(
    "deberta(max_distance=7, buckets=4, norm=True, released=True)",
    Deberta(7, 4, norm=True, released=True),
    lambda dims: 2 * 4 * dims.D + 2 * dims.D + matched(dims),
    neutral=(({"gain_D": 0, "shift_D": 0}, Divided(3)),),
  ),
  Case(
    "tupe",
    Tupe(),
    lambda dims: dims.L * dims.D + matched(dims) + 2 * dims.D,
    neutral=(({"gain_D": 0, "shift_D": 0}, Divided(2)),),
  ),
  Case(
    "tupe(plus=t5(buckets=8, max_distance=6), untie=True, norm=False)",
    Tupe(norm=False, buckets=(8, 6), untie=True),
    lambda dims: dims.L * dims.D + matched(dims) + 8 * dims.H + 2 * dims.H,
    cancels=("from_first_H",),
  ),
  Case(
    "cope(max_positions=4)",
    CoPE(4),
    lambda dims: 4 * dims.K,
    neutral=(
      ({"table_NK": 0}, Paper()),
      # Scores of 22 leave gates of one; x moves queries and keys.
      ({"q": 3, "k": 3, "x": 0}, Clipped()),
    ),
    both_ways=False,
  ),
  Case(
    "dape(alibi, width=5)",
    Dape(Alibi(3), 3),
    mixed(5, 1),
    neutral=(({"mix_out_HWN": 0, "mix_out_shift_H": 0}, Alibi(3)),),
    cancels=("mix_out_shift_H",),
  ),
  Case(
    "dape(t5(buckets=8, max_distance=6), width=4, kernel=3)",
    Dape(T5(8, 6), 3, kernel=3),
    lambda dims: mixed(4, 3)(dims) + 8 * dims.H,
    neutral=(({"mix_out_HWN": 0}, T5(8, 6)),),
    cancels=("mix_out_shift_H",),
  ),
  Case(
    "path(rank=4)",
    Path(3),
    reflected(4, 3),
    neutral=((OFF, Paper()),),
    both_ways=False,
  ),
  Case(
    "path(rank=4, width=2, forget=True)",
    Path(2, forget=True),
    lambda dims: reflected(4, 2)(dims) + dims.D * dims.H + dims.H,
    neutral=((OFF, Forgetting()),),
    both_ways=False,
  ),
  Case(
    "grape_a",
    GrapeA(3, by_query=False, by_key=True),
    lambda dims: dims.H * dims.K + dims.H,
    neutral=(({"key_HK": 0, "rate_H": math.log(math.e - 1)}, Slope(3, HALF)),),
  ),
  Case(
    "grape_a(gate='query')",
    GrapeA(3, by_query=True, by_key=False),
    lambda dims: dims.H * dims.K + dims.H,
  ),
  Case(
    "grape_a(gate='both')",
    GrapeA(3, by_query=True, by_key=True),
    lambda dims: 2 * dims.H * dims.K + dims.H,
  ),
  Case(
    "grape_ap(width=4)",
    GrapeAP(3),
    lambda dims: dims.D * dims.H * 4,
    neutral=(({"link_DHW": 0}, Slope(3, HALF)),),
    both_ways=False,
  ),
  Case(
    "inkling(width=3, max_distance=4)",
    Inkling(4),
    lambda dims: dims.D * dims.H * 3 + 3 * 4,
    neutral=(({"bank_WN": 0}, Paper()),),
    both_ways=False,
  ),
  Case(
    "inkling(width=3, max_distance=6, floor=3)",
    Inkling(6, floor=3),
    lambda dims: dims.D * dims.H * 3 + 3 * 6,
    both_ways=False,
  ),
  Case(
    "forgetting(gate='head')",
    Gate(),
    lambda dims: dims.H,
    neutral=(
      ({"forget_shift_H": 40}, Paper()),
      ({"forget_shift_H": [-math.log(math.expm1(m)) for m in SLOPES]}, Alibi(3)),
    ),
  ),
  Case("forgetting(gate='fixed', memory=(2, 16))", Fixed((2, 16), 3)),
  Case(
    "forgetting_per_row(width=3)",
    PerRow(),
    lambda dims: 2 * dims.D * dims.H * 3,
    neutral=(({"forget_query_DHW": 0}, Half()),),
    both_ways=False,
  ),
]
