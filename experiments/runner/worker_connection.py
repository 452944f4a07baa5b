"""Workers: processes of worker_process.py, as their parent sees them.

The two ends talk in lines of JSON over a `Connection`: pipes on this machine, or what a
launcher carries to another one.
"""

import contextlib
import dataclasses
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from experiments.runner.run_folder import Outcome
from experiments.setup.command_line import Request
from experiments.setup.launcher_flags import LOCAL
from experiments.setup.runs import Run
from transformer_jax.training.progress import Mirror, Progress
from transformer_jax.training.signals import SIGNALS

COMMAND = ("-m", "experiments.runner.worker_process")


class RefusedError(Exception):
  """Raised where a worker may not work on the sweep, with the reason: see handshake.py.

  >>> str(RefusedError("b has jax 0.9"))
  'b has jax 0.9'
  """


class Connection(Protocol):
  """A process that was started, whose lines are read and written.

  >>> def last(connection: Connection) -> str:
  ...   return [*connection.lines()][-1]
  >>> process = LocalProcess(["-c", "print(1); print(2)"])
  >>> last(process), process.end()
  ('2\\n', 'exit code 0')
  """

  def send(self, line: str) -> None:
    """Writes a line; raises OSError or ValueError where the process has died."""
    ...

  def lines(self) -> Iterator[str]:
    """Yields what the process writes, until it ends."""
    ...

  def close(self) -> None:
    """Ends what the process reads."""
    ...

  def end(self) -> str:
    """Waits for the end of the process; returns in words how it ended."""
    ...


Connect = Callable[[Sequence[str]], Connection]  # from words after `python`


def words(request: Request) -> list[str]:
  """Returns the words of a worker's command, after `python`."""
  here = dataclasses.replace(request, launcher=LOCAL)
  flags = shlex.split(here.command("sweep", workdir=True))[3:]
  return [*COMMAND, *flags, *(["--retry"] if request.retry else [])]


class LocalProcess:
  """A process of this machine, connected by pipes.

  >>> process = LocalProcess(["-c", "print(input())"])
  >>> process.send("a line")
  >>> list(process.lines()), process.end()
  (['a line\\n'], 'exit code 0')
  """

  def __init__(self, words: Sequence[str]):
    with _signals_blocked():
      self._process = subprocess.Popen(
        [sys.executable, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
      )

  def send(self, line: str) -> None:
    assert self._process.stdin is not None
    self._process.stdin.write(f"{line}\n")
    self._process.stdin.flush()

  def lines(self) -> Iterator[str]:
    assert self._process.stdout is not None
    return iter(self._process.stdout.readline, "")

  def close(self) -> None:
    assert self._process.stdin is not None
    with contextlib.suppress(OSError):
      self._process.stdin.close()

  def end(self) -> str:
    code = self._process.wait()
    self.close()
    assert self._process.stdout is not None
    self._process.stdout.close()
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


class SweepWorker:
  """A worker; its bar is shown under that of all runs.

  todo       the runs, which the process cannot expand from the plan: some were solved
             for
  expected   what it must have in common with its parent; {}: it is not compared
  bar        of all runs
  printed    lines that are printed once for all workers, extended here

  Raises what `connect` raises.

  >>> from pathlib import Path
  >>> from ml_collections import ConfigDict
  >>> def echo(words: Sequence[str]) -> Connection:
  ...   code = "input(); input(); print('{\\"outcome\\": \\"finished\\"}')"
  ...   return LocalProcess(["-c", code])
  >>> given = {"plan": None, "workdir": Path("runs"), "dry_run": False, "retry": False}
  >>> request = Request(Path("my.py"), ConfigDict(), {}, **given)
  >>> with Progress(1, "runs", quiet=True) as bar:
  ...   worker = SweepWorker(request, [], bar, set(), connect=echo)
  ...   worker.attempt("a run", waited=False), worker.end()
  (Outcome(state='finished', note=''), 'exit code 0')
  """

  def __init__(
    self,
    request: Request,
    todo: Sequence[Run],
    bar: Progress,
    printed: set[str],
    connect: Connect = LocalProcess,
    expected: Mapping[str, Any] | None = None,
  ):
    self._events = Events(bar, printed)
    self._connection = connect(words(request))
    more = {"expected": expected} if expected else {}
    self.tell({"todo": [run.message() for run in todo], **more})

  def attempt(self, name: str, waited: bool) -> Outcome | None:
    """Lets the process work on a run; returns None where it dies.

    Raises RefusedError where it may not work on the sweep.
    """
    self.tell({"run": name, "waited": waited})
    for line in self._connection.lines():
      event = json.loads(line)
      if "outcome" in event:
        return Outcome(event["outcome"])
      if "refused" in event:
        raise RefusedError(event["refused"])
      self._events.show(event)
    self._events.close()
    return None

  def tell(self, message: dict[str, Any]) -> None:
    """Sends a message; a process that has died reads none."""
    with contextlib.suppress(OSError, ValueError):
      self._connection.send(json.dumps(message))

  def close(self) -> None:
    """Lets the process end, at once if it was told to stop before."""
    self._connection.close()

  def end(self) -> str:
    """Waits for the end of the process; returns in words how it ended."""
    return self._connection.end()


class Events:
  """Lines and bars of another process, shown by this one.

  bar       under which the process's bar is shown
  printed   lines that are printed once for all processes, extended here

  >>> with Progress(2, "runs", quiet=True) as bar:
  ...   Events(bar, set()).show({"line": "a line", "error": False})
  a line
  """

  def __init__(self, bar: Progress, printed: set[str]):
    self._mirror, self._printed = Mirror(bar), printed

  def show(self, event: dict[str, Any]) -> None:
    """Shows a change of the bar, or prints a line."""
    if "bar" in event:
      self._mirror.receive(event)
    elif event["line"] not in self._printed:
      if event["line"].startswith("note: "):  # each process reads the data
        self._printed.add(event["line"])
      print(event["line"], file=sys.stderr if event["error"] else None, flush=True)

  def close(self) -> None:
    """Ends the bar of a process that has died."""
    self._mirror.close()


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
  """Lets processes that start meanwhile never see Ctrl-C: their parent tells them."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
