"""Statistics over seeds: intervals, paired tests, Holm's correction, verdicts.

Student's t interval and paired t test; Holm, 1979,
https://www.jstor.org/stable/4615733.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.95  # of every interval that is shown
ALPHA = 0.05  # of a verdict, after the correction
VERDICTS = (
  "better",
  "worse",
  "did not resolve",
  "not compared",
  "baseline",
  "undefined",
  "diverged",
  "failed",
  "unfinished",
)

# Scores are float32 numbers: a spread below this part of their size is rounding.
ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A mean over seeds with its 95% t interval.

  mean        None: without values, or where one is not finite
  low, high   ends of the interval; both are None where there is none
  count       seeds with a value
  note        why there is no interval
  """

  mean: float | None
  low: float | None
  high: float | None
  count: int
  note: str = ""

  @property
  def interval(self) -> tuple[float, float] | None:
    """Returns (low, high), or None."""
    return None if self.low is None or self.high is None else (self.low, self.high)

  @property
  def half(self) -> float | None:
    """Returns half the width of the interval, or None."""
    return None if self.interval is None else (self.interval[1] - self.interval[0]) / 2


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A variant's score, its paired difference from the baseline, and the verdict.

  p        two-sided p value of the difference; None: not tested
  p_holm   the same after Holm's correction over the variants of the column
  reason   why the verdict is neither better nor worse
  seeds    those of the estimate
  """

  estimate: Estimate
  difference: Estimate
  p: float | None
  p_holm: float | None
  verdict: str
  reason: str = ""
  seeds: tuple[int, ...] = ()


NOTHING = Estimate(None, None, None, 0)


def estimate(values: npt.ArrayLike, scale: float | None = None) -> Estimate:
  """Returns the mean with its 95% t interval.

  values   one for each seed
  scale    size of a score, below whose rounding a spread is none; None: of the values

  Without values, or where one is not finite, there is no mean.
  """
  value_S = np.asarray(values, np.float64)
  count = int(value_S.size)
  if not count:
    return NOTHING
  if not np.isfinite(value_S).all():
    return Estimate(None, None, None, count, "a value is not finite")
  mean = float(value_S.mean())
  if count == 1:
    return Estimate(mean, None, None, 1, "one seed")
  if not _spread(value_S, scale):
    return Estimate(mean, None, None, count, "the same in every seed")
  error = value_S.std(ddof=1) / math.sqrt(count)
  half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * error)
  return Estimate(mean, mean - half, mean + half, count)


def paired(
  variant: Mapping[int, float], baseline: Mapping[int, float]
) -> tuple[Estimate, float | None]:
  """Returns variant minus baseline over their common seeds, and its two-sided p value.

  variant, baseline   {seed: value}

  Where every seed gives one and the same difference, a t test would divide by zero and
  call anything significant; the sign test still holds there: p = 2^(1 - seeds).
  """
  seeds = sorted(variant.keys() & baseline.keys())
  ours = np.array([variant[seed] for seed in seeds], np.float64)
  theirs = np.array([baseline[seed] for seed in seeds], np.float64)
  if not seeds:
    return NOTHING, None
  scale = float(np.abs([ours, theirs]).max())
  difference = estimate(ours - theirs, scale)
  if difference.count == 1 or difference.mean is None:
    return difference, None
  if difference.half is not None:
    error = difference.half / stats.t.ppf((1 + LEVEL) / 2, difference.count - 1)
    p = 2 * stats.t.sf(abs(difference.mean) / error, difference.count - 1)
    return difference, float(p)
  same = abs(difference.mean) <= ROUNDING * scale
  return difference, 1.0 if same else 2.0 ** (1 - difference.count)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
  """Returns p values after Holm's correction; None and NaN are no tests, and None."""
  tested = sorted(
    (p, name) for name, p in p_values.items() if p is not None and not math.isnan(p)
  )
  corrected: dict[str, float | None] = dict.fromkeys(p_values)
  floor = 0.0
  for rank, (p, name) in enumerate(tested):
    floor = max(floor, min(1.0, (len(tested) - rank) * p))
    corrected[name] = floor
  return corrected


def compare(
  scores: Mapping[str, Mapping[int, float]],
  baseline: str | None,
  better: str,
  excused: Mapping[str, tuple[str, str]],
) -> dict[str, Comparison]:
  """Judges every variant of one table column against the baseline.

  scores     {label: {seed: value}} with only the values that exist
  baseline   label of the variant that all others are compared with
  better     "lower" or "higher"
  excused    {label: (verdict, reason)} of variants without a test: an undefined length,
             a failed run, a run that lost seeds, one scored on other targets

  Dropping a diverged seed would flatter its variant: such a run shows numbers but is
  not judged by them. Where it is the baseline, where it is missing or was excused, no
  variant is judged. A variant is judged, and its mean taken, over the seeds that it
  shares with the baseline.
  """
  if better not in ("lower", "higher"):
    raise ValueError(f"better={better!r} is neither 'lower' nor 'higher'")
  missing = _no_baseline(scores, baseline, excused)
  against = {} if missing or baseline is None else scores[baseline]
  withheld = dict.fromkeys(scores, ("not compared", missing)) if missing else {}
  withheld |= {} if baseline is None else {baseline: ("baseline", "")}
  withheld |= excused
  shared = {label: _shared(values, against) for label, values in scores.items()}
  pairs = {label: paired(values, against) for label, values in shared.items()}
  pairs |= {
    label: (NOTHING, None)
    for label, (verdict, _) in withheld.items()
    if verdict in ("baseline", "not compared")
  }
  corrected = holm(
    {label: pairs[label][1] for label in scores if label not in withheld}
  )
  family = sum(p is not None for p in corrected.values())
  compared = {}
  for label, values in shared.items():
    difference, p = pairs[label]
    if label in withheld:
      verdict, reason = withheld[label]
    else:
      verdict, reason = _judge(difference, p, corrected[label], family, better)
      partly = _partly(scores[label], against)
      reason = "; ".join(filter(None, [reason, partly]))
    compared[label] = Comparison(
      estimate(list(values.values())),
      difference,
      p,
      corrected.get(label),
      verdict,
      reason,
      tuple(sorted(values)),
    )
  return compared


def _no_baseline(
  scores: Mapping[str, Mapping[int, float]],
  baseline: str | None,
  excused: Mapping[str, tuple[str, str]],
) -> str:
  """Returns why there is nothing to compare with, "" where there is."""
  if baseline is None:
    return "no baseline is named"
  if baseline not in scores:
    return f"the baseline {baseline} is not in this group"
  if baseline in excused:
    verdict, reason = excused[baseline]
    return f"the baseline {baseline} is {verdict} here ({reason})"
  return "" if scores[baseline] else f"the baseline {baseline} has no value here"


def _shared(values: Mapping[int, float], against: Mapping[int, float]) -> dict:
  """Returns the values of the seeds shared with the baseline; all where none is shared.

  A mean over other seeds must not stand beside a difference over these.
  """
  both = {seed: value for seed, value in values.items() if seed in against}
  return both or dict(values)


def _partly(values: Mapping[int, float], against: Mapping[int, float]) -> str:
  """Says over which seeds a variant is compared, where it or the baseline has more."""
  both = sorted(values.keys() & against.keys())
  if not both or values.keys() == against.keys():
    return ""
  seeds = ", ".join(map(str, both))
  return f"over seed{'s' * (len(both) > 1)} {seeds}, which it shares with the baseline"


def _judge(
  difference: Estimate,
  p: float | None,
  corrected: float | None,
  family: int,
  better: str,
) -> tuple[str, str]:
  """Returns the verdict and, where the difference is not significant, the reason.

  difference   variant minus baseline, paired by seed
  p            of the difference alone
  corrected    p after Holm's correction
  family       comparisons in the correction
  better       "lower" or "higher"
  """
  if not difference.count:
    return "did not resolve", "no seed in common with the baseline"
  if p is None or corrected is None or difference.mean is None:
    return "did not resolve", difference.note
  if corrected < ALPHA:
    lower = difference.mean < 0
    return "better" if lower == (better == "lower") else "worse", ""
  if difference.low is None:
    return "did not resolve", _no_spread(difference, p)
  if p < ALPHA:
    return (
      "did not resolve",
      f"p = {p:.3g} alone, {corrected:.3g} among {family} comparisons",
    )
  return "did not resolve", f"p = {corrected:.3g}"


def _no_spread(difference: Estimate, p: float) -> str:
  if p == 1:
    return "equal to the baseline in every seed"
  return (
    f"the same difference in all {difference.count} seeds leaves no spread to test;"
    f" sign test p = {p:.3g}"
  )


def _spread(values: np.ndarray, scale: float | None) -> bool:
  scale = float(np.abs(values).max()) if scale is None else scale
  return bool(np.ptp(values) > ROUNDING * scale)
