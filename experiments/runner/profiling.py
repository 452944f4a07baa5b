"""jax.profiler trace of chosen training steps; numbers and ids do not depend on it.

  python -m experiments.run --profile=100..120

The trace begins before the dispatch of the first step and ends after that of the last
one: between them the device waits for nothing else.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from experiments.setup.profiled_steps import ProfiledSteps
from transformer_jax.training.dispatch import Program
from transformer_jax.training.step import State
from transformer_jax.training.stream import Windows

FOLDER = "profile"  # of a run; TensorBoard and xprof read it
OPEN = "pip install xprof && xprof --logdir={folder}"


class Trace:
  """A trace of some steps of a run, at most once.

  steps    to be traced, rounded to dispatches
  folder   of the run, where the trace goes
  done     the first and the last step of the trace; None: it was not begun

  >>> Trace(ProfiledSteps("", 100, 120), Path("runs/ID")).done is None
  True
  """

  def __init__(self, steps: ProfiledSteps, folder: Path):
    self.steps, self.folder = steps, folder / FOLDER
    self.done: tuple[int, int] | None = None
    self._runs = False

  def before(self, first: int, last: int, state: Any) -> None:
    """Begins the trace if a dispatch of these steps has a step to trace."""
    wanted = first <= self.steps.last and last >= self.steps.first
    if wanted and self.done is None:
      jax.block_until_ready(state)
      jax.profiler.start_trace(self.folder)
      self._runs = True
    if self._runs:
      self.done = (self.done[0] if self.done else first, last)

  def after(self, last: int, results: Any) -> None:
    """Ends the trace once the dispatch of the last step to trace is done."""
    if self._runs and last >= self.steps.last:
      jax.block_until_ready(results)
      self.end()

  def end(self) -> None:
    """Ends a trace that runs, as where the training stops."""
    if self._runs:
      self._runs = False
      jax.profiler.stop_trace()
      assert self.done is not None
      print(
        f"trace of steps {self.done[0]} to {self.done[1]}: {self.folder}\n"
        f"  open it: {OPEN.format(folder=self.folder)}",
        flush=True,
      )


@dataclasses.dataclass(frozen=True)
class TracedProgram(Program):
  """A compiled dispatch whose calls are counted for a trace.

  trace   the trace
  at      the step before the next dispatch; empty until the first one

  >>> program = Program(None, print, abstract=None, seconds=1.5, peak_bytes=0)
  >>> TracedProgram(**vars(program)).trace is None
  True
  """

  trace: Trace | None = None
  per_dispatch: int = 1
  at: list[int] = dataclasses.field(default_factory=list)

  def dispatch(
    self, arrays: Any, parts: list[State], windows: Windows
  ) -> tuple[list[State], list[dict[str, jax.Array]]]:
    """Returns the next states and their metrics, as `Program` does."""
    if self.trace is None:
      return super().dispatch(arrays, parts, windows)
    before = self.at.pop() if self.at else int(parts[0].step.min())
    last = before + self.per_dispatch
    self.at.append(last)
    self.trace.before(before + 1, last, parts)
    with jax.profiler.StepTraceAnnotation("dispatch", step_num=last):
      results = super().dispatch(arrays, parts, windows)
    self.trace.after(last, results)
    return results


_asked: contextvars.ContextVar[Trace | None] = contextvars.ContextVar(
  "_asked", default=None
)


@contextlib.contextmanager
def tracing(steps: ProfiledSteps | None, folder: Path) -> Iterator[None]:
  """Lets the training of a run be traced; None: it is not."""
  trace = Trace(steps, folder) if steps else None
  token = _asked.set(trace)
  try:
    yield
  finally:
    _asked.reset(token)
    if trace:
      trace.end()
      if trace.done is None:
        print(f"no trace: steps {steps} were not trained now", flush=True)


def traced(program: Program, per_dispatch: int) -> Program:
  """Returns the program, with the trace that `tracing` asks for."""
  trace = _asked.get()
  if trace is None:
    return program
  fields = {x.name: getattr(program, x.name) for x in dataclasses.fields(Program)}
  return TracedProgram(**fields, trace=trace, per_dispatch=per_dispatch)
