"""Loss against FLOPs as a power law with an offset, with intervals of predictions.

L(C) = offset + factor (C / scale)^-exponent, as in Hoffmann et al., 2022,
https://arxiv.org/abs/2203.15556. Intervals are by the delta method, with Student's t;
what two variants have in common at a size and seed cancels in their difference.
"""

import dataclasses
from collections.abc import Hashable, Mapping

import numpy as np
import scipy.optimize
import scipy.stats

PARAMETERS = 3
LEAST_SIZES = 4  # three sizes fit any curve exactly, and say nothing of an offset
EXPONENTS = (0.01, 3.0)  # bounds of the exponent
TINY = 1e-6  # relative fall of the losses that is none
SizeSeed = tuple[Hashable, int]  # (size, seed)
LadderPoints = Mapping[SizeSeed, tuple[float, float]]  # FLOPs and loss


class FitError(ValueError):
  """Points that carry no power law; the message says why.

  >>> fit({(size, 0): (10.0**size, 1.0) for size in range(3)})
  Traceback (most recent call last):
  ...
  experiments.reporting.power_law.FitError: 3 sizes; a power law with an offset needs 4
  """


@dataclasses.dataclass(frozen=True)
class PowerLaw:
  """A fitted curve with its residuals.

  offset     loss that no budget removes
  factor     what is above it at `scale`
  exponent   of the fall
  scale      FLOPs: geometric mean of the points'
  cells      (size, seed) of each point
  flops_N    of each point
  error_N    residuals

  >>> points = {(n, 0): (4.0**n, 1 + 2 * 4.0 ** (-0.5 * n)) for n in range(6)}
  >>> law = fit(points)
  >>> round(law.offset, 3), round(law.exponent, 3), round(law.predict(4.0**8), 3)
  (1.0, 0.5, 1.008)
  """

  offset: float
  factor: float
  exponent: float
  scale: float
  cells: tuple[SizeSeed, ...]
  flops_N: np.ndarray
  error_N: np.ndarray

  @property
  def degrees(self) -> int:
    """Returns the degrees of freedom of the residuals."""
    return len(self.cells) - PARAMETERS

  @property
  def deviation(self) -> float:
    """Returns the standard deviation of one point, what does not fit included."""
    return float(np.sqrt(np.sum(self.error_N**2) / self.degrees))

  def predict(self, flops: float) -> float:
    """Returns the loss at a budget."""
    fall = (flops / self.scale) ** -self.exponent
    return float(self.offset + self.factor * fall)

  def slopes(self, flops: float | np.ndarray) -> np.ndarray:
    """Returns the derivatives of the loss by the three parameters, last axis."""
    x = np.asarray(flops) / self.scale
    fall = x**-self.exponent
    return np.stack([np.ones_like(fall), fall, -self.factor * np.log(x) * fall], -1)

  def influence(self, gradient_P: np.ndarray) -> np.ndarray:
    """Returns how far each point's error moves a function of the parameters.

    gradient_P   of the function, by offset, factor and exponent
    """
    return gradient_P @ np.linalg.pinv(self.slopes(self.flops_N))

  def half(self, gradient_P: np.ndarray, level: float = 0.95) -> float:
    """Returns half the width of the interval of a function of the parameters."""
    error = self.deviation * np.linalg.norm(self.influence(gradient_P))
    return float(error * quantile(self.degrees, level))


def quantile(degrees: int, level: float) -> float:
  """Returns the two-sided quantile of Student's t."""
  return float(scipy.stats.t.ppf((1 + level) / 2, degrees))


def fit(points: LadderPoints) -> PowerLaw:
  """Returns the least-squares curve of one variant; raises FitError.

  points   {(size, seed): (FLOPs, loss)}
  """
  flops_N, loss_N = np.array([*points.values()], float).reshape(-1, 2).T
  sizes = len({*flops_N})
  if sizes < LEAST_SIZES:
    raise FitError(f"{sizes} sizes; a power law with an offset needs {LEAST_SIZES}")
  if len(points) <= PARAMETERS + 1:
    raise FitError(f"{len(points)} scores; three parameters need five")
  scale = float(np.exp(np.mean(np.log(flops_N))))
  x_N = flops_N / scale

  def curve(x, offset, factor, exponent):
    return offset + factor * x**-exponent

  bounds = [0.0, 0.0, EXPONENTS[0]], [np.inf, np.inf, EXPONENTS[1]]
  try:
    found, _ = scipy.optimize.curve_fit(
      curve, x_N, loss_N, _start(x_N, loss_N), bounds=bounds
    )
  except RuntimeError as error:  # of SciPy, after too many steps
    raise FitError("the fit of its curve does not converge") from error
  offset, factor, exponent = map(float, found)
  law = PowerLaw(
    offset,
    factor,
    exponent,
    scale,
    cells=tuple(points),
    flops_N=flops_N,
    error_N=loss_N - curve(x_N, *found),
  )
  fall = law.predict(flops_N.min()) - law.predict(flops_N.max())
  inside = EXPONENTS[0] * 1.01 < exponent < EXPONENTS[1] * 0.99
  if not inside or fall <= max(law.deviation, TINY * float(np.mean(loss_N))):
    raise FitError("its losses do not fall as a power law of the FLOPs")
  return law


def _start(x_N: np.ndarray, loss_N: np.ndarray) -> tuple[float, float, float]:
  """Returns the best curve of a grid of exponents; the others follow linearly."""
  best, start = np.inf, (0.0, 1.0, 0.5)
  for exponent in np.geomspace(*EXPONENTS, 40)[1:-1]:
    design_NP = np.stack([np.ones_like(x_N), x_N**-exponent], -1)
    (offset, factor), *_ = np.linalg.lstsq(design_NP, loss_N, rcond=None)
    if offset < 0:
      offset, factor = 0.0, x_N**-exponent @ loss_N / np.sum(x_N ** (-2 * exponent))
    error = np.sum((loss_N - offset - factor * x_N**-exponent) ** 2)
    if factor > 0 and error < best:
      best, start = error, (float(offset), float(factor), float(exponent))
  return start


def difference(
  one: PowerLaw, other: PowerLaw, flops: float, level: float = 0.95
) -> tuple[float, float]:
  """Returns the difference of two predictions, and half the width of its interval.

  Errors of one size and seed are correlated as the residuals of both curves are.
  """
  laws = one, other
  weights = [
    dict(zip(law.cells, law.influence(law.slopes(flops)), strict=True)) for law in laws
  ]
  common = [cell for cell in one.cells if cell in weights[1]]
  product = sum(weights[0][cell] * weights[1][cell] for cell in common)
  variance = sum(
    law.deviation**2 * sum(w * w for w in each.values())
    for law, each in zip(laws, weights, strict=True)
  )
  variance -= (
    2
    * _correlation(one, other, common)
    * product
    * np.prod([law.deviation for law in laws])
  )
  half = np.sqrt(max(variance, 0.0)) * quantile(min(x.degrees for x in laws), level)
  return one.predict(flops) - other.predict(flops), float(half)


def _correlation(one: PowerLaw, other: PowerLaw, common: list[SizeSeed]) -> float:
  """Returns the correlation of the residuals in the cells that both have."""
  pairs = [dict(zip(law.cells, law.error_N, strict=True)) for law in (one, other)]
  x, y = (np.array([errors[cell] for cell in common]) for errors in pairs)
  size = float(np.linalg.norm(x) * np.linalg.norm(y))
  return float(x @ y) / size if size else 0.0
