"""Biases of the distance between query and key, and vectors in place of numbers."""

import dataclasses
import math

import numpy as np

from oracles import Case, Paper
from oracles.classic import Alibi


class Tensor2Tensor(Paper):
  """`timing_signal` of Tensor2Tensor: scales from 1 to 10000, ends included."""

  def embed(self, params, x_D, pos, ids):
    half = len(x_D) // 2
    step = math.log(10_000) / (half - 1)
    angle = [pos * math.exp(-n * step) for n in range(half)]
    return x_D + np.array([math.sin(a) for a in angle] + [math.cos(a) for a in angle])


class Biased(Paper):
  """A paper whose score is the scaled product plus a bias."""

  def bias(self, params, h, i, j, both_ways):
    raise NotImplementedError

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    return scale * (q_K @ k_K) + self.bias(params, h, i, j, both_ways)


@dataclasses.dataclass
class AlibiWithFuture(Biased):
  """Press et al. 2022 with what its authors and others did for encoders.

  offset: the past loses half a slope less than the future, the token itself nothing.
  two_sided: the first heads, one more if odd, see up to the token, the others from it.
  causal: the formula of section 3 with i - j negative.
  """

  heads: int
  form: str

  def slope(self, params, h, both_ways):
    past = (self.heads + 1) // 2
    if not (both_ways and self.form == "two_sided"):
      return Alibi(self.heads).slope(h)
    return (
      Alibi(past).slope(h) if h < past else Alibi(self.heads - past).slope(h - past)
    )

  def bias(self, params, h, i, j, both_ways):
    slope = self.slope(params, h, both_ways)
    if both_ways and self.form == "two_sided":
      past = h < (self.heads + 1) // 2
      if (j > i) if past else (j < i):
        return -math.inf
    if both_ways and self.form == "causal":
      return -slope * (i - j)
    gift = slope / 2 if both_ways and self.form == "offset" and j < i else 0
    return gift - slope * abs(i - j)


class LearnedSlopes(AlibiWithFuture):
  """Kazemnejad et al. 2023 train the logarithm of the slope."""

  def slope(self, params, h, both_ways):
    return math.exp(params["log_slope_H"][h])


class RawSlopes(AlibiWithFuture):
  """The slope itself is trained, and no slope is negative."""

  def slope(self, params, h, both_ways):
    return max(params["slope_H"][h], 0)


class KerpleLog(Biased):
  """Chi et al. 2022, equation 5 and the three-parameter kernel of section 5.3."""

  def bias(self, params, h, i, j, both_ways):
    distance = abs(i - j) ** params.get("exponent_H", np.ones(h + 1))[h]
    return -params["weight_H"][h] * math.log(1 + params["rate_H"][h] * distance)


class KerplePower(Biased):
  """Chi et al. 2022, equation 4."""

  def bias(self, params, h, i, j, both_ways):
    return -params["weight_H"][h] * abs(i - j) ** params["exponent_H"][h]


@dataclasses.dataclass
class Sandwich(Biased):
  """Chi et al. 2023, section 5: p_i . p_j over the compression ratio 8 h / H."""

  heads: int
  width: int

  def bias(self, params, h, i, j, both_ways):
    terms = range(self.width // 2)
    product = sum(math.cos((i - j) / 10_000 ** (2 * m / self.width)) for m in terms)
    return product / (8 * (h + 1) / self.heads)


@dataclasses.dataclass
class PerDistance(Biased):
  """A table entry for each distance, the most negative (future) one first."""

  max_distance: int
  future_too: bool = False

  def bias(self, params, h, i, j, both_ways):
    both_ways = both_ways or self.future_too
    distances = [*range(-self.max_distance if both_ways else 0, self.max_distance + 1)]
    distance = min(max(i - j, distances[0]), self.max_distance)
    return params["table_HN"][h, distances.index(distance)]


@dataclasses.dataclass
class Cpb(Biased):
  """Liu et al. 2022, equation 4 and the network of section 3.3, one axis."""

  log: bool = True
  silu: bool = False
  limit: float = 16.0

  def activate(self, x):
    return x / (1 + math.exp(-x)) if self.silu else max(x, 0)

  def bias(self, params, h, i, j, both_ways):
    d = math.copysign(math.log(1 + abs(i - j)), i - j) if self.log else i - j
    x_W = [d * w + s for w, s in zip(params["in_W"], params["in_shift_W"], strict=True)]
    hidden_W = np.array([self.activate(x) for x in x_W])
    for n, hidden_WW in enumerate(params.get("hidden_NWW", [])):
      x_W = hidden_W @ hidden_WW + params["hidden_shift_NW"][n]
      hidden_W = np.array([self.activate(x) for x in x_W])
    out = hidden_W @ params["out_HW"][h] + params["out_shift_H"][h]
    return self.limit / (1 + math.exp(-out)) if self.limit else out


@dataclasses.dataclass
class MusicTransformer(Paper):
  """Huang et al. 2019, section 3.4: q_i . (k_j + E of the distance), self row last."""

  max_distance: int
  shared: bool = False

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    future = self.max_distance - 1 if both_ways else 0
    distances = [*range(self.max_distance - 1, -future - 1, -1)]
    distance = max(min(i - j, distances[0]), distances[-1])
    table_NK = params["table_NK"] if self.shared else params["table_HNK"][h]
    return scale * (q_K @ (k_K + table_NK[distances.index(distance)]))


SLOPE_H = np.array([Alibi(3).slope(h) for h in range(3)])
KERPLE = {"weight_H": [0.7, 1.9, 0.4], "rate_H": [0.3, 0.9, 1.7]}
EXPONENT = {"exponent_H": [0.4, 1.0, 1.9]}
NOTHING = lambda *names: ({name: 0 for name in names}, Paper())

CASES = [
  Case("sinusoidal(interleaved=False, full_range=True)", Tensor2Tensor()),
  *(
    Case(f"alibi(both_ways='{form}')", AlibiWithFuture(3, form))
    for form in ("offset", "two_sided", "causal")
  ),
  Case(
    "alibi_learned(both_ways='two_sided')",
    LearnedSlopes(3, "two_sided"),
    lambda dims: dims.H,
    neutral=(({"log_slope_H": np.log(SLOPE_H)}, Alibi(3)),),
  ),
  Case(
    "alibi_learned(logarithm=False, both_ways='offset')",
    RawSlopes(3, "offset"),
    lambda dims: dims.H,
    point={"slope_H": [0.3, -0.2, 1.1]},
    neutral=(NOTHING("slope_H"), ({"slope_H": SLOPE_H}, Alibi(3))),
  ),
  Case(
    "kerple_log",
    KerpleLog(),
    lambda dims: 2 * dims.H,
    point=KERPLE,
  ),
  Case(
    "kerple_log(exponent=True)",
    KerpleLog(),
    lambda dims: 3 * dims.H,
    point=KERPLE | EXPONENT,
  ),
  Case(
    "kerple_power",
    KerplePower(),
    lambda dims: 2 * dims.H,
    point={"weight_H": [0.7, 0.1, 0.4]} | EXPONENT,
    neutral=(({"weight_H": [1 / 2, 1 / 4, 1 / 8], "exponent_H": 1}, Alibi(8)),),
  ),
  Case("sandwich", Sandwich(3, 128)),
  Case("sandwich(width=6)", Sandwich(3, 6)),
  Case(
    "per_distance(max_distance=5)",
    PerDistance(5),
    lambda dims: 6 * dims.H,
    neutral=(
      NOTHING("table_HN"),
      ({"table_HN": -SLOPE_H[:, None] * np.arange(6)}, Alibi(3)),
    ),
  ),
  Case(
    "per_distance(max_distance=3, causal=False)",
    PerDistance(3, future_too=True),
    lambda dims: 7 * dims.H,
    neutral=(NOTHING("table_HN"),),
  ),
  Case(
    "cpb(width=5)",
    Cpb(),
    lambda dims: 2 * 5 + (5 + 1) * dims.H,
    neutral=(NOTHING("out_HW", "out_shift_H"),),
  ),
  Case(
    "cpb(log=False, width=4, depth=3, activation='silu', limit=0)",
    Cpb(log=False, silu=True, limit=0),
    lambda dims: 2 * 4 + 2 * (4 + 1) * 4 + (4 + 1) * dims.H,
    neutral=(NOTHING("out_HW"),),
    cancels=("out_shift_H",),
  ),
  Case(
    "music_transformer",
    MusicTransformer(16),
    lambda dims: dims.L * dims.H * dims.K,
    neutral=(NOTHING("table_HNK"),),
  ),
  Case(
    "music_transformer(max_distance=4, shared=True)",
    MusicTransformer(4, shared=True),
    lambda dims: 4 * dims.K,
    neutral=(NOTHING("table_NK"),),
  ),
]
