"""Seconds of a run by phase, with compilation as a phase of its own."""

import contextlib
import functools
import time
from collections.abc import Iterator

import jax

COMPILING = "/jax/core/compile/"  # tracing, lowering and XLA, or reading XLA's cache
STEP = 0.05  # seconds of difference that mean that the wall clock was set
NEAR = 1.0  # seconds between setting the clock and the reading that shows it


class Stopwatch:
  """Seconds by phase; compilation inside a phase counts as `compile`.

  A phase inside another one is no part of it.

  >>> watch = Stopwatch()
  >>> with watch.phase("train"):
  ...   with watch.phase("checkpoint"):
  ...     pass
  >>> list(watch.seconds)
  ['compile', 'train', 'checkpoint']
  """

  def __init__(self):
    self.seconds = {"compile": 0.0}
    self._open: list[str] = []
    self._since, self._compilations = 0.0, 0  # of the last lap

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """Counts a block of code for `name`."""
    self.lap()
    self._open.append(name)
    try:
      yield
    finally:
      self.lap()
      self._open.pop()

  def lap(self) -> None:
    """Counts the time since the last lap for the innermost phase, if one is open."""
    spans, clock = _compiled()
    since, now = self._since, clock.now()
    new = spans[self._compilations :]
    self._since, self._compilations = now, len(spans)
    if self._open:
      name = self._open[-1]
      inside = union([(max(a, since), min(b, now)) for a, b in new])
      self.seconds["compile"] += inside
      self.seconds[name] = self.seconds.get(name, 0.0) + now - since - inside


class Clock:
  """Monotonic time of events that JAX measures with the wall clock.

  Records the offset between the two clocks over time: setting the wall clock does not
  change a duration.

  >>> clock = Clock()
  >>> start, end = clock.span(0.5)
  >>> round(end - start, 1)
  0.5
  """

  def __init__(self):
    self._last = float("-inf")
    self._offsets: list[tuple[float, float]] = []  # (since, wall minus monotonic)

  def now(self) -> float:
    """Returns the monotonic time in seconds."""
    now = time.perf_counter()
    offset = time.time() - now
    if not self._offsets or abs(offset - self._offsets[-1][1]) > STEP:
      self._offsets.append((self._last, offset))
    self._last = now
    return now

  def span(self, seconds: float) -> tuple[float, float]:
    """Returns start and end of an event that took `seconds` and ends now."""
    before, now = self._last, self.now()
    wall = now + self._offsets[-1][1] - seconds
    ends = [since for since, _ in self._offsets[1:]] + [now]
    fitting = [
      wall - offset
      for (since, offset), until in zip(self._offsets, ends, strict=True)
      if since - NEAR <= wall - offset <= min(now, until + NEAR)
    ]
    # JAX reports most starts too, so the last reading was then.
    return min(fitting, key=lambda start: abs(start - before), default=now), now


@functools.cache
def _compiled() -> tuple[list[tuple[float, float]], Clock]:
  """Returns (start, end) of each compilation, a list that grows, and its clock."""
  spans: list[tuple[float, float]] = []
  clock = Clock()

  def record(event: str, duration_secs: float, **_: str | int) -> None:
    span = clock.span(duration_secs)
    if event.startswith(COMPILING):
      spans.append(span)

  def read_clock(event: str, **_: str | int) -> None:
    clock.now()

  jax.monitoring.register_event_duration_secs_listener(record)
  jax.monitoring.register_event_listener(read_clock)
  return spans, clock


def union(spans: list[tuple[float, float]]) -> float:
  """Returns the length of the union of spans: one function traces another."""
  total, end = 0.0, float("-inf")
  for start, stop in sorted(spans):
    total += max(0.0, stop - max(start, end))
    end = max(end, stop)
  return total
