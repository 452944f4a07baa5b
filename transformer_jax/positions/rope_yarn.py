"""YaRN: NTK-by-parts interpolation. Peng et al., 2023. https://arxiv.org/abs/2309.00071"""

import dataclasses
import math

import numpy as np

from transformer_jax.positions.base import positions
from transformer_jax.positions.rope import ScaledRope


@positions.register("rope_yarn")
@dataclasses.dataclass(frozen=True)
class YarnRope(ScaledRope):
  """Interpolates the slow pairs of RoPE, keeps the fast ones, and sharpens scores.

      theta_m as in rope_llama3, with a ramp by rank; q and k grow by
        0.1 ln(factor) + 1

  original     the length of training texts
  fast, slow   pairs that turn more often than `fast` in that length stay, those that
               turn less often than `slow` are interpolated; between them is a ramp
  by_turns     the ramp is linear in the number of turns, as in the paper; else in the
               rank of the pair, as in the released code
  truncate     the ramp by rank starts and ends at whole ranks; False in gpt-oss
  mscale       rotated features are multiplied by 0.1 * mscale * ln(factor) + 1
  mscale_all   divides that by the same expression of mscale_all, and multiplies whole
               scores by its square instead: both are 1 in DeepSeek-V3

  >>> import transformer_jax as tj
  >>> rope, yarn = map(tj.positions.build, ("rope", "rope_yarn(factor=16)"))
  >>> divisor_R = rope.frequencies({}, 64) / yarn.frequencies({}, 64)
  >>> divisor_R[16:52:5].round(2).tolist(), round(yarn.gain({}), 3)
  ([1.0, 1.04, 1.28, 1.66, 2.36, 4.12, 16.0, 16.0], 1.277)
  """

  factor: float = 16.0
  original: int = 4096
  fast: float = 32.0
  slow: float = 1.0
  by_turns: bool = False
  truncate: bool = True
  mscale: float = 1.0
  mscale_all: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    check_ramp("rope_yarn", self)

  def frequencies(self, params, R):
    plain_R = super().frequencies(params, R)
    if self.by_turns:
      return interpolate(plain_R, self, kept_by_turns(plain_R, self))
    return interpolate(plain_R, self, self.kept_by_rank(R))

  def kept_by_rank(self, R):
    """Returns weights of the original frequencies, by rank: from 1 (fast) to 0."""

    def rank(turns):
      ratio = self.original / (2 * math.pi * turns)
      return R * math.log(ratio) / math.log(self.base)

    start, end = rank(self.fast), rank(self.slow)
    if self.truncate:
      start, end = math.floor(start), math.ceil(end)
    start, end = max(start, 0), min(end, 2 * R - 1)
    end += 0.001 * (start == end)  # a step, without a division by 0
    return 1 - np.clip((np.arange(R) - start) / (end - start), 0, 1)

  def gain(self, params):
    return self._growth(self.mscale) / self._growth(self.mscale_all)

  def temperature(self, params, at):
    return self._growth(self.mscale_all) ** 2

  def _growth(self, mscale):
    return 0.1 * mscale * math.log(self.factor) + 1


def kept_by_turns(plain_R, ramp):
  """Returns weights of the original frequencies, by turns in the original length."""
  turns_R = ramp.original * plain_R / (2 * math.pi)
  return np.clip((turns_R - ramp.slow) / (ramp.fast - ramp.slow), 0, 1)


def interpolate(plain_R, ramp, kept_R):
  """Returns mixtures of the original frequencies and those divided by the factor."""
  return plain_R * (kept_R + (1 - kept_R) / ramp.factor)


def check_ramp(name, ramp):
  """Raises ValueError unless the ramp goes from few turns to more."""
  if not 0 < ramp.slow < ramp.fast:
    raise ValueError(
      f"{name}: pairs faster than `fast` stay and slower than `slow` are interpolated;"
      f" choose 0 < slow < fast, not {ramp.slow} and {ramp.fast}"
    )
  if ramp.original < 1:
    raise ValueError(f"{name}: original is a length; choose 1 or more tokens")
