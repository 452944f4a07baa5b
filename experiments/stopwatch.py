"""Where a run's time goes: compiling apart from everything it interrupts."""

import contextlib
import functools
import time
from collections.abc import Iterator

import jax

COMPILING = "/jax/core/compile/"  # tracing, lowering and XLA, or reading XLA's cache


class Stopwatch:
  """Adds up seconds by phase. What JAX compiles inside a phase counts as `compile`."""

  def __init__(self):
    self.seconds = {"compile": 0.0}

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """Counts a block of code for `name`."""
    began, start = len(_compiled()), time.perf_counter()
    try:
      yield
    finally:
      whole = time.perf_counter() - start
      inside = min(whole, union(_compiled()[began:]))
      self.seconds["compile"] += inside
      self.seconds[name] = self.seconds.get(name, 0.0) + whole - inside


@functools.cache
def _compiled() -> list[tuple[float, float]]:
  """Returns when JAX compiled, start and end, a list that grows from now on."""
  spans: list[tuple[float, float]] = []

  def note(event: str, seconds: float, **_: object) -> None:
    if event.startswith(COMPILING):
      now = time.perf_counter()
      spans.append((now - seconds, now))

  jax.monitoring.register_event_duration_secs_listener(note)
  return spans


def union(spans: list[tuple[float, float]]) -> float:
  """Returns how long at least one span lasts: one function traces another."""
  total, end = 0.0, float("-inf")
  for start, stop in sorted(spans):
    total += max(0.0, stop - max(start, end))
    end = max(end, stop)
  return total
