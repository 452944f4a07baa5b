"""Timing of contenders in turns, so that a disturbance reaches all of them."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Patience:
  """How often to repeat: `least` rounds, then more until `seconds` are over.

  sittings   how often all of it is done, each time in new processes: the same program
             is faster in some processes than in others, round after round
  """

  seconds: float = 10.0
  least: int = 3
  most: int = 9
  sittings: int = 1


def rounds(
  contenders: Mapping[str, Callable[[], float]],
  first: Mapping[str, float],
  patience: Patience,
  clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
  """Returns seconds of each contender by round: A, B, C, A, B, C, ...

  first   seconds of a round before, which warmed everything up. It counts only where
          a round takes longer than the patience, and there is one sitting.
  """
  slow = sum(first.values()) > patience.seconds and patience.sittings == 1
  times = {name: [first[name]] if slow else [] for name in contenders}
  start = clock() - (sum(first.values()) if slow else 0.0)
  done = int(slow)
  while done < patience.most:
    if done >= patience.least and clock() - start > patience.seconds:
      break
    for name, run in contenders.items():
      times[name].append(run())
    done += 1
  return times


def spread(values: Sequence[float]) -> dict[str, Any]:
  """Returns the median, the quartiles and how many values there are."""
  low = middle = high = values[0]
  if len(values) > 1:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
  return {"low": low, "median": middle, "high": high, "rounds": len(values)}


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
  """Returns the spread of a quotient taken round by round."""
  return spread([a / b for a, b in zip(above, below, strict=True)])
