"""A worker process of a sweep: runs what its parent names (worker_connection.py).

The first line of its standard input is {"todo": runs, "expected": see handshake.py},
each other {"run": name, "waited": bool}, {"all": true} for what is left in any order,
or {"stop": signal}. A line of its standard output is an event: a line to print, a
change of the bar, an outcome, {"done": true} after all, or a refusal, after which it
ends.
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
from collections.abc import Callable, Iterable
from typing import IO, Any

from experiments.runner import handshake, history, process, sweep_loop
from experiments.runner.locks import use_lease
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
  if wanted := first.get("expected"):
    if refused := handshake.refusal(wanted, request.workdir, todo):
      send({"refused": refused})
      return 2
  use_lease(request.lease)
  sweep_loop.set_devices(request, todo)
  process.keep_memory()
  stop, asked = Stop(), queue.SimpleQueue[dict[str, Any] | None]()
  threading.Thread(target=listen, args=(sys.stdin, stop, asked), daemon=True).start()
  loop = sweep_loop.SweepLoop(request, todo, stop)
  while (item := asked.get()) is not None:
    for outcome in _work(loop, stop, item):
      send({"outcome": outcome.state})
    if "all" in item:
      send({"done": True})
  return 0


def _work(
  loop: sweep_loop.SweepLoop, stop: Stop, item: dict[str, Any]
) -> Iterable[Outcome]:
  if "all" in item:
    return loop.outcomes()
  if stop:
    return [Outcome("interrupted")]
  return [loop.attempt(item["run"], item["waited"])]


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
