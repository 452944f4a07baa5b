"""Where a run's time goes: compiling apart from everything it interrupts."""

import contextlib
import functools
import time
from collections.abc import Iterator

import jax

COMPILING = "/jax/core/compile/"  # tracing, lowering and XLA, or reading XLA's cache
STEP = 0.05  # seconds by which the wall clock differs when somebody has set it
NEAR = 1.0  # seconds between a step of the clock and the look that noticed it


class Stopwatch:
  """Adds up seconds by phase. What JAX compiles inside a phase counts as `compile`."""

  def __init__(self):
    self.seconds = {"compile": 0.0}

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """Counts a block of code for `name`."""
    spans, clock = _compiled()
    began, start = len(spans), clock.look()
    try:
      yield
    finally:
      end = clock.look()
      inside = union([(max(a, start), min(b, end)) for a, b in spans[began:]])
      self.seconds["compile"] += inside
      self.seconds[name] = self.seconds.get(name, 0.0) + end - start - inside


class Clock:
  """Time that only runs on, although JAX measures with the wall clock.

  Keeps the difference of the two clocks, and since when: a wall clock that was set
  back or forward does not change how long something took.
  """

  def __init__(self):
    self._last = float("-inf")
    self._offsets: list[tuple[float, float]] = []  # (since, wall minus monotonic)

  def look(self) -> float:
    """Returns the monotonic time in seconds."""
    now = time.perf_counter()
    offset = time.time() - now
    if not self._offsets or abs(offset - self._offsets[-1][1]) > STEP:
      self._offsets.append((self._last, offset))
    self._last = now
    return now

  def span(self, seconds: float) -> tuple[float, float]:
    """Returns start and end of what took `seconds` by the wall clock until now."""
    before, now = self._last, self.look()
    wall = now + self._offsets[-1][1] - seconds
    ends = [since for since, _ in self._offsets[1:]] + [now]
    fitting = [
      wall - offset
      for (since, offset), until in zip(self._offsets, ends, strict=True)
      if since - NEAR <= wall - offset <= min(now, until + NEAR)
    ]
    # JAX tells of most beginnings too, so the last look was then.
    return min(fitting, key=lambda start: abs(start - before), default=now), now


@functools.cache
def _compiled() -> tuple[list[tuple[float, float]], Clock]:
  """Returns when JAX compiled, start and end, a list that grows from now on."""
  spans: list[tuple[float, float]] = []
  clock = Clock()

  def note(event: str, seconds: float, **_: object) -> None:
    span = clock.span(seconds)
    if event.startswith(COMPILING):
      spans.append(span)

  jax.monitoring.register_event_duration_secs_listener(note)
  jax.monitoring.register_event_listener(lambda event, **_: clock.look())
  return spans, clock


def union(spans: list[tuple[float, float]]) -> float:
  """Returns how long at least one span lasts: one function traces another."""
  total, end = 0.0, float("-inf")
  for start, stop in sorted(spans):
    total += max(0.0, stop - max(start, end))
    end = max(end, stop)
  return total
