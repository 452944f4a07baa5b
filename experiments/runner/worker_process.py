"""A worker process of a sweep: runs what its parent names; runner/workers.py starts it.

The first line of its standard input is {"todo": runs}, each other {"run": name,
"waited": bool} or {"stop": signal}. A line of its standard output is an event: a line
to print, a change of the bar, or an outcome.
"""

import contextlib
import functools
import io
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from experiments.runner import history, process, sweep_loop
from experiments.runner.run_folder import Outcome
from experiments.setup import flags, runs
from experiments.setup.command_line import Request
from transformer_jax.training.progress import send_bars
from transformer_jax.training.signals import Stop

Send = Callable[[dict[str, Any]], None]


def main(send: Send, request: Request) -> int:
  """Works on runs until the parent ends."""
  first = json.loads(sys.stdin.readline() or '{"todo": []}')
  todo = [runs.received(request.base, message) for message in first["todo"]]
  todo = history.in_folders(request.workdir, todo)
  sweep_loop.set_devices(request, todo)
  process.keep_memory()
  stop, asked = Stop(), queue.SimpleQueue[dict[str, Any] | None]()
  threading.Thread(target=listen, args=(sys.stdin, stop, asked), daemon=True).start()
  loop = sweep_loop.SweepLoop(request, todo, stop)
  while (item := asked.get()) is not None:
    outcome = Outcome("interrupted")
    if not stop:
      outcome = loop.attempt(item["run"], item["waited"])
    send({"outcome": outcome.state})
  return 0


def listen(
  lines: IO[str], stop: Stop, asked: "queue.SimpleQueue[dict[str, Any] | None]"
) -> None:
  """Reads what the parent writes; its end stops the run, a second signal the process.

  asked   takes the runs, and None at the end
  """
  for line in lines:
    item = json.loads(line)
    if "stop" in item:
      stop.received = signal.Signals(item["stop"])
    else:
      asked.put(item)
  if stop:
    os._exit(stop.exit_code)
  stop.received = signal.SIGTERM
  asked.put(None)


class SentLines(io.TextIOBase):
  """Text stream that sends each line to the parent, which prints it.

  >>> stream = SentLines(print, error=False)
  >>> print("two", "words", file=stream)
  {'line': 'two words', 'error': False}
  """

  def __init__(self, send: Send, error: bool):
    self._send, self._error, self._rest = send, error, ""

  def writable(self) -> bool:
    return True

  def write(self, text: str, /) -> int:
    *lines, self._rest = (self._rest + text).split("\n")
    for line in lines:
      self._send({"line": line, "error": self._error})
    return len(text)


def connect() -> Send:
  """Lets all that this process prints and shows be sent; returns the function.

  What libraries print without Python goes to standard error.
  """
  events = os.fdopen(os.dup(1), "w", encoding="utf-8")
  os.dup2(2, 1)
  lock = threading.Lock()

  def send(event: dict[str, Any]) -> None:
    with lock, contextlib.suppress(OSError):  # of a parent that has died
      events.write(json.dumps(event) + "\n")
      events.flush()

  sys.stdout, sys.stderr = SentLines(send, error=False), SentLines(send, error=True)
  send_bars(send)
  return send


if __name__ == "__main__":
  flags.start(functools.partial(main, connect()))
