"""Numbers and lists of names as a report writes them."""

from collections.abc import Sequence

from experiments.reporting.statistics import Estimate

SHOWN = 6  # names in one list before "and 3 more"


def listed(labels: Sequence[str], most: int = SHOWN) -> str:
  """Returns "a, b and c", or the first `most` and how many more."""
  if len(labels) > most:
    return ", ".join(labels[:most]) + f" and {len(labels) - most} more"
  return " and ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))


def number(value: float | None, digits: int = 3) -> str:
  """Returns a score as text: three decimals, with a true minus sign."""
  if value is None:
    return "–"
  if abs(value) >= 1000:
    return f"{value:,.0f}".replace("-", "−")
  text = f"{value:.{digits}f}"
  return text.replace("-", "−") if float(text) else text.lstrip("-")


def count(value: float | None) -> str:
  """Returns 12,345 or 1.23e+09 for a number of things, – for an unknown one."""
  if not isinstance(value, int | float):
    return "–"
  return f"{value:,.0f}" if value < 1e8 else f"{value:.3g}"


def plus_minus(estimate: Estimate, sign: bool = False) -> str:
  """Returns `2.740 ± 0.048`, or the mean alone where there is no interval.

  sign   write a plus sign before a positive mean

  An interval that ends at a bound of the measure has its ends: `0.980 [0.914, 1]`.
  """
  text = number(estimate.mean)
  if sign and estimate.mean is not None and estimate.mean > 0 and _shows(text):
    text = "+" + text
  if estimate.half is None:
    return text
  if estimate.interval is not None and estimate.skewed:
    return f"{text} [{', '.join(map(_end, estimate.interval))}]"
  half = number(estimate.half)
  return f"{text} ± {half}" if _shows(half) else f"{text} ± <0.001"


def _shows(text: str) -> bool:
  """Returns whether a number as text is not 0 in the digits that are shown."""
  return any(digit in text for digit in "123456789")


def _end(value: float) -> str:
  return number(value, 0) if value == round(value) else number(value)


def between(gap: Estimate) -> str:
  """Returns a gap's interval, as sizes, for the end of a sentence."""
  if gap.interval is None:
    return ""
  low, high = sorted(gap.interval, key=abs)
  if gap.interval[0] < 0 < gap.interval[1]:
    low, high = gap.interval
    return f" (95% interval {number(low)} to {number(high)})"
  return f" (95% interval {number(abs(low))} to {number(abs(high))})"


def measure_name(measure: str) -> str:
  """Returns `bits per byte` for `bits_per_byte`."""
  return measure.replace("_", " ")


def multiple(times: float) -> str:
  """Returns 4x for 4.0 and 1.5x for 1.5."""
  return f"{times:.3g}x"
