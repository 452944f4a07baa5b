"""Verdicts: every variant of a table's column judged against the baseline.

Dropping a diverged seed would flatter its variant: such a run shows numbers but is not
judged by them. Where it is the baseline, where it is missing or was excused, no variant
is judged. A variant is judged, and its mean taken, over the seeds that it shares with
the baseline.
"""

import dataclasses
from collections.abc import Mapping

from experiments.reporting.statistics import NOTHING, Estimate, estimate, holm, paired

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


@dataclasses.dataclass(frozen=True)
class Judgement:
  """Judgement of one variant: score, paired difference from the baseline, verdict.

  p        two-sided p value of the difference; None: not tested
  p_holm   the same after Holm's correction over the variants of the column
  reason   why the verdict is neither better nor worse
  seeds    those of the estimate

  >>> none, rope = {0: 0.50, 1: 0.52, 2: 0.49}, {0: 0.91, 1: 0.92, 2: 0.90}
  >>> found = compare({"none": none, "rope": rope}, "none", "higher", excused={})
  >>> found["rope"].verdict, round(found["rope"].difference.mean, 2)
  ('better', 0.41)
  """

  estimate: Estimate
  difference: Estimate
  p: float | None
  p_holm: float | None
  verdict: str
  reason: str = ""
  seeds: tuple[int, ...] = ()


def compare(
  scores: Mapping[str, Mapping[int, float]],
  baseline: str | None,
  better: str,
  excused: Mapping[str, tuple[str, str]],
) -> dict[str, Judgement]:
  """Judges every variant of one table column against the baseline.

  scores     {label: {seed: value}} with only the values that exist
  baseline   label of the variant that all others are compared with
  better     "lower" or "higher"
  excused    {label: (verdict, reason)} of variants without a test: an undefined length,
             a failed run, a run that lost seeds, one scored on other targets
  """
  if better not in ("lower", "higher"):
    raise ValueError(f"better={better!r} is neither 'lower' nor 'higher'")
  missing = _no_baseline(scores, baseline, excused)
  against = {} if missing or baseline is None else scores[baseline]
  untested = _untested(scores, baseline, excused, missing)
  shared = {label: _shared(values, against) for label, values in scores.items()}
  pairs = {name: _pair(x, against, untested.get(name)) for name, x in shared.items()}
  corrected = holm({name: pairs[name][1] for name in scores if name not in untested})
  family = sum(p is not None for p in corrected.values())
  judgements = {}
  for label, values in shared.items():
    difference, p = pairs[label]
    verdict, reason = untested.get(label) or _judge(
      difference, p, corrected[label], family, better
    )
    partly = "" if label in untested else _partly(scores[label], against)
    reason = "; ".join(filter(None, [reason, partly]))
    judgements[label] = Judgement(
      estimate=estimate(list(values.values())),
      difference=difference,
      p=p,
      p_holm=corrected.get(label),
      verdict=verdict,
      reason=reason,
      seeds=tuple(sorted(values)),
    )
  return judgements


def _untested(
  scores: Mapping[str, Mapping[int, float]],
  baseline: str | None,
  excused: Mapping[str, tuple[str, str]],
  missing: str,
) -> dict[str, tuple[str, str]]:
  """Returns {label: (verdict, reason)} of the variants without a test.

  scores, baseline, excused   those of `compare`
  missing                     why there is nothing to compare with, or ""
  """
  untested = dict.fromkeys(scores, ("not compared", missing)) if missing else {}
  untested |= {} if baseline is None else {baseline: ("baseline", "")}
  return untested | dict(excused)


def _pair(
  values: Mapping[int, float],
  against: Mapping[int, float],
  untested: tuple[str, str] | None,
) -> tuple[Estimate, float | None]:
  """Returns a variant's difference from the baseline and its p value.

  values     {seed: value}
  against    the same of the baseline
  untested   (verdict, reason) of a variant without a test; some show a difference
  """
  if untested and untested[0] in ("baseline", "not compared"):
    return NOTHING, None
  return paired(values, against)


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
