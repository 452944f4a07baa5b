"""Encodings that turn queries and keys: scaled RoPE, xPos, PoPE and learned ones."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from oracles import Case, Paper, classic


def spun(x_K, angle_R, neighbours=False):
  """Turns the first pairs of features, as complex numbers, and copies the others."""
  R, turned = len(angle_R), np.array(x_K, float)
  for m, angle in enumerate(angle_R):
    a, b = (2 * m, 2 * m + 1) if neighbours else (m, m + R)
    number = complex(x_K[a], x_K[b]) * complex(math.cos(angle), math.sin(angle))
    turned[a], turned[b] = number.real, number.imag
  return turned


def rope(d, base=10_000.0):
  """Su et al. 2021: theta_m = base^(-2 m / d), for the d features that turn."""
  return [base ** (-2 * m / d) for m in range(d // 2)]


@dataclasses.dataclass
class Scaled(Paper):
  """RoPE with other frequencies.

  frequencies  number of features that turn -> radians per position
  gain         multiplies cosines and sines
  heat         multiplies scores
  """

  frequencies: Callable[[int], list[float]]
  width: int = 6
  neighbours: bool = False
  gain: float = 1.0
  heat: float = 1.0

  def transform_qk(self, params, x_K, pos):
    angle_R = [pos * f for f in self.frequencies(self.width)]
    turned = spun(x_K, angle_R, self.neighbours)
    turned[: self.width] *= self.gain
    return turned

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    return self.heat * scale * (q_K @ k_K)


def ntk_base(base, d, factor):
  """bloc97 2023; Peng et al. 2023, definition 1: b' = b s^(d / (d - 2))."""
  return base * factor ** (d / (d - 2))


def yarn_by_rank(d, base, factor, original, fast, slow, truncate=True):
  """The released code of YaRN: a ramp between the ranks of two numbers of turns."""

  def rank(turns):
    # The pair m that turns so often in the original length: L base^(-2m/d) / 2 pi.
    return d * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

  low, high = rank(fast), rank(slow)
  if truncate:
    low, high = math.floor(low), math.ceil(high)
  low, high = max(low, 0), min(high, d - 1)
  found = []
  for m, theta in enumerate(rope(d, base)):
    ramp = min(max((m - low) / (high - low), 0), 1)
    found.append(theta / factor * ramp + theta * (1 - ramp))
  return found


def yarn_by_turns(d, base, factor, original, fast, slow):
  """Peng et al. 2023, definition 2: gamma(r) with r = L / wavelength."""
  found = []
  for theta in rope(d, base):
    r = original / (2 * math.pi / theta)
    gamma = 0 if r < slow else 1 if r > fast else (r - slow) / (fast - slow)
    found.append((1 - gamma) * theta / factor + gamma * theta)
  return found


def llama3(d, base=500_000.0, factor=8.0, original=8192, fast=4.0, slow=1.0):
  """Llama 3.1's released settings: three bands of wavelengths."""
  found = []
  for theta in rope(d, base):
    wavelength = 2 * math.pi / theta
    smooth = (original / wavelength - slow) / (fast - slow)
    if wavelength < original / fast:
      found.append(theta)
    elif wavelength > original / slow:
      found.append(theta / factor)
    else:
      found.append((1 - smooth) * theta / factor + smooth * theta)
  return found


def p_rope(d, p):
  """Barbero et al. 2024: keep the int(p d // 2) highest frequencies."""
  kept = int(p * d // 2)
  return rope(d)[:kept] + [0.0] * (d // 2 - kept)


@dataclasses.dataclass
class ByLength(Paper):
  """RoPE whose angles depend on the length of the text.

  angles  (position, length of the text, features) -> radians
  """

  angles: Callable[[float, float, int], list[float]]
  gain: float = 1.0

  def scores(self, params, h, i, keys, row):
    pos = row.where.pos_L
    length = max(pos[n] for n in row.where.text(i)) + 1
    angle = lambda n: self.angles(pos[n], length, row.q_LHK.shape[-1])
    q_K = self.gain * spun(row.q_LHK[i, h], angle(i))
    turned = [self.gain * spun(row.k_LHK[j, h], angle(j)) for j in keys]
    return [row.scale * (q_K @ k_K) for k_K in turned]


def dynamic(factor, original):
  """emozilla 2023, as transformers has it: b' = b (f l / L - (f - 1))^(d / (d - 2))."""

  def angles(pos, length, d):
    times = factor * length / original - (factor - 1) if length > original else 1
    return [pos * f for f in rope(d, ntk_base(10_000, d, times))]

  return angles


def longrope(short, long, original, first):
  """Ding et al. 2024, equation 2 with n-hat = first; two lists as in Phi-3."""

  def angles(pos, length, d):
    divisors = [1] * (d // 2) if pos < first else long if length > original else short
    return [pos * f / x for f, x in zip(rope(d), divisors, strict=True)]

  return angles


@dataclasses.dataclass
class XPos(Paper):
  """Sun et al. 2022, equation 9 and algorithm 1, for each pair of one score."""

  sigma: float
  gamma: float = 0.4

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    d, total = len(q_K), 0.0
    for m, theta in enumerate(rope(d)):
      zeta = (m / (d / 2) + self.gamma) / (1 + self.gamma)
      q = complex(q_K[2 * m], q_K[2 * m + 1])
      k = complex(k_K[2 * m], k_K[2 * m + 1])
      wave = complex(math.cos((i - j) * theta), math.sin((i - j) * theta))
      total += zeta ** ((i - j) / self.sigma) * (q * k.conjugate() * wave).real
    return scale * total


class Pope(Paper):
  """Gopalakrishnan et al. 2025: sum of mu(q) mu(k) cos((s - t) theta + delta)."""

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    d, total = len(q_K), 0.0
    length = lambda x: math.log1p(math.exp(x))
    for c in range(d):
      phase = min(max(params["phase_HK"][h, c], -2 * math.pi), 0)
      cosine = math.cos((j - i) * 10_000 ** (-c / d) + phase)
      total += length(q_K[c]) * length(k_K[c]) * cosine
    return scale * total


def rank_two(a_K, b_K, n):
  """Zhang et al. 2025: G(n) = I + sin(ns)/s L + (1 - cos(ns))/s^2 L^2, L = ab' - ba'"""
  generator = np.outer(a_K, b_K) - np.outer(b_K, a_K)
  s = math.sqrt((a_K @ a_K) * (b_K @ b_K) - (a_K @ b_K) ** 2)
  linear, square = math.sin(n * s) / s, (1 - math.cos(n * s)) / s**2
  return np.eye(len(a_K)) + linear * generator + square * generator @ generator


@dataclasses.dataclass
class GrapeM(Paper):
  """Zhang et al. 2025: one commuting rank-two rotation for each plane.

  The generator of a plane is that of its second and first axis, which turns as RoPE.
  """

  contextual: bool = False

  def turn_by(self, params, h, x_K, n):
    K = len(x_K)
    per_head = "log_frequency_HR" in params
    log_R = params["log_frequency_HR"][h] if per_head else params["log_frequency_R"]
    for m, log_frequency in enumerate(log_R):
      axes_KK = np.eye(K)
      plane = axes_KK[m + K // 2], axes_KK[m]
      x_K = rank_two(*plane, n * math.exp(log_frequency / 16)) @ x_K
    return x_K

  def count(self, params, row, i):
    """Returns the sum over the text before token i of sigmoid((w x + b) / 16)."""
    if not self.contextual:
      return row.where.pos_L[i]
    logit = lambda x_D: (x_D @ params["count_D"] + params["count_shift"]) / 16
    earlier = [n for n in row.where.text(i) if n < i]
    return sum(1 / (1 + math.exp(-logit(row.x_LD[n]))) for n in earlier)

  def scores(self, params, h, i, keys, row):
    turn = lambda x_LHK, n: self.turn_by(
      params, h, x_LHK[n, h], self.count(params, row, n)
    )
    q_K = turn(row.q_LHK, i)
    return [row.scale * (q_K @ turn(row.k_LHK, j)) for j in keys]


class Carope(Paper):
  """Veisi et al. 2025: pair m turns by the sum over the text of f(x_t)^m."""

  def angles(self, params, h, row, i):
    angle_R = np.zeros(row.q_LHK.shape[-1] // 2)
    for n in row.where.text(i):
      if n <= i:
        f = 1 / (math.log1p(math.exp(row.x_LD[n] @ params["rate_DH"][:, h])) + 1)
        angle_R += [f**m for m in range(1, len(angle_R) + 1)]
    return angle_R

  def scores(self, params, h, i, keys, row):
    turn = lambda x_LHK, n: spun(x_LHK[n, h], self.angles(params, h, row, n))
    q_K = turn(row.q_LHK, i)
    return [row.scale * (q_K @ turn(row.k_LHK, j)) for j in keys]


class Selective(Carope):
  """Movahedi et al. 2025: temperature times the sum of gate times conv(W q / |q|)."""

  def angles(self, params, h, row, i):
    earlier = [n for n in row.where.text(i) if n <= i]
    K, unit = row.q_LHK.shape[-1], lambda x: x / np.linalg.norm(x)
    total_R, steps = np.zeros(K // 2), []
    for n in earlier:
      steps.append(unit(row.q_LHK[n, h]) @ params["step_HKR"][h])
      recent = steps[::-1][: params["mix_HRN"].shape[-1]]
      mixed_R = sum(params["mix_HRN"][h, :, back] * s for back, s in enumerate(recent))
      logit = unit(row.x_LD[n]) @ params["gate_DH"][:, h] + params["gate_shift_H"][h]
      total_R += mixed_R / (1 + math.exp(-logit))
    return total_R * rope(K, 500_000.0)


def turning(d, length, base=10_000.0):
  """Hua et al. 2024, section 4: the frequencies with a turn in the trained length."""
  return [theta for theta in rope(d, base) if theta >= 2 * math.pi / length]


@dataclasses.dataclass
class Fope(Paper):
  """Hua et al. 2024, equation 9, with what their code does to the other pairs."""

  length: int
  sine: float

  def turned(self, params, h, x_K, pos):
    K, found = len(x_K), np.zeros(len(x_K))
    theta = turning(K, self.length)
    for n in range(K // 2):
      cos, sin = 1.0, self.sine
      if n < min(len(theta), K // 4):
        cosines, sines = (params[f"{x}_HRN"][h, :, n] for x in ("cosine", "sine"))
        cos = sum(c * math.cos(pos * f) for c, f in zip(cosines, theta, strict=True))
        sin = sum(c * math.sin(pos * f) for c, f in zip(sines, theta, strict=True))
      a, b = x_K[n], x_K[n + K // 2]
      found[n], found[n + K // 2] = a * cos - b * sin, b * cos + a * sin
    return found

  query = key = turned


def mixtures(dims, length):
  """Returns how many numbers mix the frequencies of cosines and of sines."""
  kept = len(turning(dims.K, length))
  return 2 * dims.H * kept * min(kept, dims.K // 4)


@dataclasses.dataclass
class RopePlusPlus(Paper):
  """Liu et al. 2025, equations 3 and 4: real and imaginary part of one product."""

  imaginary: Callable[[int], bool]

  def score(self, params, h, q_K, k_K, i, j, scale, both_ways=False):
    d, total = len(q_K), 0.0
    for m, theta in enumerate(rope(d)):
      q, k = complex(q_K[m], q_K[m + d // 2]), complex(k_K[m], k_K[m + d // 2])
      wave = complex(math.cos((i - j) * theta), math.sin((i - j) * theta))
      product = q * k.conjugate() * wave
      total += product.imag if self.imaginary(h) else product.real
    return scale * total


def log_growth(mscale, factor):
  """Peng et al. 2023, equation 22: 0.1 ln(s) + 1."""
  return 0.1 * mscale * math.log(factor) + 1


RAMP = {"base": 100.0, "factor": 4.0, "original": 64, "fast": 8.0, "slow": 1.0}
SPEC = ", ".join(f"{name}={x}" for name, x in RAMP.items())
LISTS = (1.0, 1.1, 1.2), (1.0, 2.0, 3.0)
NEUTRAL_R = [16 * math.log(f) for f in rope(6)]
THREE_HEADS_HR = [NEUTRAL_R] * 3

CASES = [
  Case(
    "partial_rope(fraction=0.67, interleaved=True)", Scaled(rope, 4, neighbours=True)
  ),
  Case("partial_rope(fraction=0)", Paper()),
  Case("p_rope", Scaled(lambda d: p_rope(d, 0.75))),
  Case("p_rope(p=0)", Paper()),
  Case("rope_linear(factor=5)", Scaled(lambda d: [f / 5 for f in rope(d)])),
  Case("rope_ntk(factor=8)", Scaled(lambda d: rope(d, ntk_base(10_000, d, 8)))),
  Case("rope_dynamic(original=3)", ByLength(dynamic(1, 3))),
  Case("rope_dynamic(original=3, factor=2)", ByLength(dynamic(2, 3))),
  Case("rope_dynamic", classic.Rope(10_000, neighbours=False)),  # up to dims.L
  Case(
    f"rope_yarn({SPEC})",
    Scaled(lambda d: yarn_by_rank(d, **RAMP), gain=log_growth(1, 4)),
  ),
  Case(
    f"rope_yarn({SPEC}, truncate=False, fraction=0.67)",
    Scaled(lambda d: yarn_by_rank(d, **RAMP, truncate=False), 4, gain=log_growth(1, 4)),
  ),
  Case(
    f"rope_yarn({SPEC}, by_turns=True, mscale=0.7, mscale_all=0.4)",
    Scaled(
      lambda d: yarn_by_turns(d, **RAMP),
      gain=log_growth(0.7, 4) / log_growth(0.4, 4),
      heat=log_growth(0.4, 4) ** 2,
    ),
  ),
  Case(f"rope_llama3({SPEC})", Scaled(lambda d: llama3(d, **RAMP))),
  Case(
    f"longrope(short={LISTS[0]}, long={LISTS[1]}, original=5, factor=3, first=2)",
    ByLength(longrope(*LISTS, 5, 2), math.sqrt(1 + math.log(3) / math.log(5))),
  ),
  Case("longrope(original=5, factor=1)", classic.Rope(10_000, neighbours=False)),
  Case("xpos(scale_base=3)", XPos(3), both_ways=False),
  Case("fope(length=200)", Fope(200, sine=1.0), lambda dims: mixtures(dims, 200)),
  Case("fope(length=9, sine=0)", Fope(9, sine=0.0), lambda dims: mixtures(dims, 9)),
  Case("rope_pp", RopePlusPlus(lambda h: h % 2 == 1)),
  Case("rope_pp(heads='half')", RopePlusPlus(lambda h: h >= 1)),  # 3 heads
  Case("rope_pp(heads='all')", RopePlusPlus(lambda h: True)),
  Case("pope", Pope(), lambda dims: dims.H * dims.K),
  Case(
    "grape_m",
    GrapeM(),
    lambda dims: dims.K // 2,
    neutral=(({"log_frequency_R": NEUTRAL_R}, classic.Rope(10_000, False)),),
  ),
  Case(
    "grape_m(per_head=True)",
    GrapeM(),
    lambda dims: dims.H * dims.K // 2,
    neutral=(({"log_frequency_HR": THREE_HEADS_HR}, classic.Rope(10_000, False)),),
  ),
  Case(
    "grape_m(contextual=True)",
    GrapeM(contextual=True),
    lambda dims: dims.K // 2 + dims.D + 1,
    neutral=(
      # Tokens that each count one in full are positions again.
      (
        {"log_frequency_R": NEUTRAL_R, "count_D": 0, "count_shift": 400},
        classic.Rope(10_000, False),
      ),
    ),
  ),
  Case(
    "carope",
    Carope(),
    lambda dims: dims.D * dims.H,
    neutral=(
      (
        {"rate_DH": 0},
        Scaled(lambda d: [(1 / (math.log(2) + 1)) ** m for m in range(1, d // 2 + 1)]),
      ),
    ),
  ),
  Case(
    "selective_rope",
    Selective(),
    lambda dims: dims.H * (dims.K // 2) * (dims.K + 4) + dims.D * dims.H + dims.H,
    neutral=(({"step_HKR": 0}, Paper()), ({"gate_shift_H": -80}, Paper())),
  ),
]
