"""Progress display: bars on a terminal, plain lines in a log."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import rich.console
import rich.progress

from transformer_jax.untrusted import shown


class Progress:
  """Shows how far a run is, its loss, its speed and the time left.

    with Progress(12, "runs") as runs:
      for i, run in enumerate(plan):
        with Progress(run.steps, run.label, under=runs) as bar:
          bar.update(step, loss=2.31, tokens_per_s=145e3)
        runs.update(i + 1)

  A bar `under` another shares its display and leaves one line when it ends. `start` is
  the step a resumed run begins at.

  >>> with Progress(total=10, label="a run", quiet=True) as progress:
  ...   progress.update(5, loss=1.5)
  """

  def __init__(
    self,
    total: int,
    label: str,
    *,
    start: int = 0,
    under: "Progress | None" = None,
    quiet: bool = False,
    console: rich.console.Console | None = None,
  ):
    self._at = At(shown(label), total, start)
    self._owns_display = under is None
    self._display: Silent
    if under is not None:
      self._display = under._display
    else:
      self._display = Silent() if quiet else _display(console)

  def __enter__(self) -> "Progress":
    self._display.begin(self._at)
    return self

  def __exit__(self, *exception: object) -> None:
    self._display.end(self._at)
    if self._owns_display:
      self._display.close()

  def update(self, step: int, **facts: float | str) -> None:
    """Shows `step` of `total` with facts such as loss= and tokens_per_s=."""
    self.estimate(step, None, **facts)

  def estimate(self, step: int, left: float | None, **facts: float | str) -> None:
    """Does the same for a caller that knows the time left; None: by the pace so far.

    left   in seconds
    """
    self._at.move(step, facts, left)
    self._display.show(self._at)


@dataclasses.dataclass(eq=False)
class At:
  """State of a progress bar: step and facts shown beside it.

  >>> at = At("rope", total=1000, step=0)
  >>> at.move(250, {"loss": 2.31, "tokens_per_s": 145e3})
  >>> at.line()
  'rope  250/1000  loss 2.310  145k tokens/s'
  """

  label: str
  total: int
  step: int
  facts: str = ""
  began: float = dataclasses.field(default_factory=lambda: time.monotonic())
  first: tuple[float, int] | None = None
  estimate: float | None = None

  def move(
    self, step: int, facts: dict[str, float | str], estimate: float | None = None
  ) -> None:
    self.estimate = estimate
    self.set(step, "  ".join(_fact(name, value) for name, value in facts.items()))

  def set(self, step: int, facts: str) -> None:
    self.step, self.facts = step, facts
    # Time left counts from the first update: before it, the program was compiled.
    self.first = self.first or (time.monotonic(), step)

  def left(self) -> str:
    if self.estimate is not None:
      return f"{duration(self.estimate)} left"
    if self.first is None or self.step <= self.first[1]:
      return ""
    pace = (time.monotonic() - self.first[0]) / (self.step - self.first[1])
    return f"{duration(pace * (self.total - self.step))} left"

  def line(self) -> str:
    parts = (self.label, f"{self.step}/{self.total}", self.facts, self.left())
    return "  ".join(part for part in parts if part)

  def last_line(self) -> str:
    state = "" if self.step >= self.total else "stopped"
    took = f"in {duration(time.monotonic() - self.began)}"
    parts = (self.label, state, f"{self.step}/{self.total}", self.facts, took)
    return "  ".join(part for part in parts if part)


class Silent:
  """Shows nothing.

  >>> at = At("rope", total=1000, step=0)
  >>> Silent().show(at)  # prints nothing
  """

  def begin(self, at: At) -> None: ...

  def show(self, at: At) -> None: ...

  def end(self, at: At) -> None: ...

  def close(self) -> None: ...


class Lines(Silent):
  """Prints a line at the first update, then one in a while, and one at the end.

  >>> import sys
  >>> lines = Lines(rich.console.Console(file=sys.stdout, force_terminal=False))
  >>> at = At("rope", total=1000, step=0)
  >>> at.move(250, {"loss": 2.31})
  >>> lines.show(at)
  rope  250/1000  loss 2.310
  >>> lines.show(at)  # too soon after the first
  """

  seconds = 10.0

  def __init__(self, console: rich.console.Console):
    self._console = console
    self._printed: dict[At, float] = {}

  def show(self, at: At) -> None:
    now = time.monotonic()
    if now - self._printed.get(at, -self.seconds) >= self.seconds:
      self._printed[at] = now
      self._print(at.line())

  def end(self, at: At) -> None:
    self._print(at.last_line())

  def _print(self, line: str) -> None:
    self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Bars(Lines):
  """Live bars; lines printed meanwhile appear above them."""

  def __init__(self, console: rich.console.Console):
    super().__init__(console)
    text = functools.partial(rich.progress.TextColumn, markup=False)
    bar = rich.progress.BarColumn(bar_width=24)
    # Four times a second: the redrawing thread competes with training for the CPU.
    self._bars = rich.progress.Progress(
      text("{task.description}"),
      bar,
      text("{task.fields[text]}"),
      console=console,
      refresh_per_second=4,
      transient=True,
    )
    self._tasks: dict[At, rich.progress.TaskID] = {}
    self._bars.start()
    # Left visible, the cursor survives a process that dies without cleaning up.
    console.show_cursor(True)

  def begin(self, at: At) -> None:
    self._tasks[at] = self._bars.add_task(
      at.label, total=at.total, completed=at.step, text=""
    )

  def show(self, at: At) -> None:
    text = at.line().removeprefix(at.label).strip()
    self._bars.update(self._tasks[at], completed=at.step, text=text)

  def end(self, at: At) -> None:
    self._bars.remove_task(self._tasks.pop(at))
    super().end(at)

  def close(self) -> None:
    self._bars.stop()


class Sent(Silent):
  """Sends each change of a bar to another process, where a `Mirror` shows it.

  send   takes {"bar": change, ...}, values that JSON holds

  >>> with Progress(2, "runs", quiet=True) as runs:
  ...   mirror = Mirror(runs)
  ...   sent = Sent(mirror.receive)
  ...   at = At("rope", total=1000, step=0)
  ...   sent.begin(at)
  ...   at.move(250, {"loss": 2.31})
  ...   sent.show(at)
  ...   mirror.at.line()
  'rope  250/1000  loss 2.310'
  """

  def __init__(self, send: Callable[[dict[str, Any]], None]):
    self._send = send

  def begin(self, at: At) -> None:
    self._send({"bar": "begin", "label": at.label, "total": at.total, "step": at.step})

  def show(self, at: At) -> None:
    self._send({"bar": "show", "step": at.step, "facts": at.facts})

  def end(self, at: At) -> None:
    self._send({"bar": "end"})


class Mirror:
  """Bar of another process, shown under a bar of this one.

  at   the state of the bar; None: there is none at present

  >>> with Progress(2, "runs", quiet=True) as runs:
  ...   mirror = Mirror(runs)
  ...   mirror.receive({"bar": "begin", "label": "rope", "total": 1000, "step": 250})
  ...   print(mirror.at.line())
  ...   mirror.close()
  rope  250/1000
  """

  def __init__(self, under: Progress):
    self.at: At | None = None
    self._display = under._display

  def receive(self, change: dict[str, Any]) -> None:
    """Shows a change that `Sent` sent."""
    if change["bar"] == "begin":
      self.at = At(change["label"], change["total"], change["step"])
      self._display.begin(self.at)
    elif self.at is not None and change["bar"] == "show":
      self.at.set(change["step"], change["facts"])
      self._display.show(self.at)
    else:
      self.close()

  def close(self) -> None:
    """Ends the bar, also that of a process which died."""
    if self.at is not None:
      self._display.end(self.at)
    self.at = None


_sent: list[Sent] = []  # the display of all bars of this process, if one was chosen


def send_bars(send: Callable[[dict[str, Any]], None]) -> None:
  """Lets this process send its bars to another one instead of printing them."""
  _sent[:] = [Sent(send)]


def _display(console: rich.console.Console | None) -> Silent:
  if _sent:
    return _sent[0]
  console = console or rich.console.Console()
  live = console.is_terminal and not console.is_dumb_terminal
  return Bars(console) if live else Lines(console)


def _fact(name: str, value: float | str) -> str:
  """Returns "loss 2.310" or, for names that end in `_per_s`, "145k tokens/s"."""
  if isinstance(value, str):
    return f"{name} {shown(value)}"
  if name.endswith("_per_s"):
    return f"{_short(value)} {name.removesuffix('_per_s')}/s"
  return f"{name} {value:.3f}"


def _short(value: float) -> str:
  for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
    if value >= size:
      return f"{value / size:.3g}{letter}"
  return f"{value:.3g}"


def duration(seconds: float) -> str:
  """Returns seconds in words.

  >>> duration(59), duration(61), duration(7260)
  ('59 s', '1 min 01 s', '2 h 01 min')
  """
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours} h {minutes:02} min"
  return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
