"""Reasons of verdicts: why a pair is not tested, and over which seeds it is."""

from collections.abc import Mapping

from experiments.reporting.family import Pair
from experiments.reporting.judgements import Column, Excuse
from experiments.reporting.moderated import Contrast


def excuse(column: Column, pair: Pair) -> Excuse | None:
  """Returns (verdict, reason) of a pair that is not tested, or None."""
  label, against = pair
  if label in column.excused and label != against:
    return column.excused[label]
  if label == against:
    return column.excused.get(label, ("baseline", ""))
  if against is None:
    return "not compared", "no baseline is named"
  named = f"the baseline {against}" if against == column.baseline else against
  if against not in column.scores:
    return "not compared", f"{named} is not in this group"
  if against in column.excused:
    verdict, reason = column.excused[against]
    return "not compared", f"{named} is {verdict} here ({reason})"
  if not column.scores[against]:
    return "not compared", f"{named} has no value here"
  unlike = column.unlike.get(pair)
  return ("not compared", unlike) if unlike else None


def partly(
  values: Mapping[int, float], against: Mapping[int, float], name: str | None
) -> str:
  """Says over which seeds two runs are compared, where one of them has more."""
  both = sorted(values.keys() & against.keys())
  if not both or values.keys() == against.keys():
    return ""
  seeds = ", ".join(map(str, both))
  return f"over seed{'s' * (len(both) > 1)} {seeds}, which it shares with {name}"


def no_spread(against: str | None, contrast: Contrast) -> str:
  """Says why equal differences in all seeds resolve nothing."""
  if not contrast.mean:
    return f"equal to {against} in every seed"
  return (
    f"the same difference in all {contrast.count} seeds leaves no spread to test;"
    f" sign test p = {contrast.p:.3g}"
  )
