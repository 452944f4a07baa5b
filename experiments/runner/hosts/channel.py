"""Connections of the processes that train one run: process 0 with each of the others.

A process that dies closes its connection, which the others notice at once; one whose
machine is gone or that is frozen is silent, one that hangs does not reach the next
exchange. All three end every process with one sentence. JAX alone would abort with
SIGABRT, or wait for ever.

A message is a line of JSON:

  {"hello", "processes", "name"}    of a new follower: its number, that of all, words
  {"names"} or {"refused"}          the leader's answer, once all are there
  {"n", "label", "value", "error", "code"}  a part of exchange n
  {"n", "values", "error", "code", "last"}  the leader's answer to it
  {"at"}                            a place where all meet: of one, and of all
  {"end", "code"}                   why and with which exit code all end
  {}                                a sign of life
"""

import contextlib
import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from transformer_jax import hosts
from transformer_jax.hosts import HostError
from transformer_jax.untrusted import shown

GRACE = 5.0  # seconds for others to end by themselves, where one has an error
LONGEST = 2**26  # bytes of a message
END = "the end"  # the last exchange: from there on processes may go


class Line:
  """One end of a connection: messages as lines of JSON.

  >>> ours, theirs = map(Line, socket.socketpair())
  >>> ours.send({"n": 1})
  >>> theirs.receive()
  {'n': 1}
  >>> ours.close()
  >>> theirs.receive() is None  # the other end is gone
  True
  >>> ours.drop(), theirs.drop()
  (None, None)
  """

  def __init__(self, connection: socket.socket):
    self._connection, self._lock = connection, threading.Lock()
    self._file = connection.makefile("rb")

  def send(self, message: dict[str, Any]) -> None:
    """Sends a message; one to a process that is gone is lost."""
    with self._lock, contextlib.suppress(OSError):
      self._connection.sendall(json.dumps(message).encode() + b"\n")

  def receive(self) -> dict[str, Any] | None:
    """Waits for a message; returns None where the other end is gone."""
    with contextlib.suppress(OSError, ValueError):
      message = json.loads(self._file.readline(LONGEST))
      return message if isinstance(message, dict) else None
    return None

  def close(self) -> None:
    """Lets the other end read what was sent, and then the end."""
    with contextlib.suppress(OSError):
      self._connection.shutdown(socket.SHUT_WR)

  def drop(self) -> None:
    """Gives the connection up."""
    with contextlib.suppress(OSError):
      self._file.close()
      self._connection.close()


class Channel(hosts.ProcessGroup):
  """This process's part in the group: exchanges, and the end of all.

  heartbeat      seconds of silence after which a process is given up
  hang_timeout   seconds between exchanges after which all end
  quit           ends this process: takes a sentence and an exit code

  >>> Channel(heartbeat=100.0, hang_timeout=3600.0).names  # until others are there
  ('this process',)
  """

  def __init__(
    self,
    heartbeat: float,
    hang_timeout: float,
    quit: Callable[[str, int], None] | None = None,
  ):
    self.heartbeat, self.hang_timeout = heartbeat, hang_timeout
    self._quit = quit or end_process
    self._changed = threading.Condition(threading.RLock())
    self._answers: dict[int, dict[str, Any]] = {}
    self._met: set[str] = set()  # places
    self._n = 0
    self._closed = False

  def exchange(
    self, label: str, value: Any, error: Exception | None = None
  ) -> list[Any]:
    with self._changed:
      self._n += 1
      n = self._n
    self._post({"n": n, "label": label, "value": value, **self._words(error)})
    with self._changed:
      while n not in self._answers:
        self._changed.wait(1.0)  # in pieces, so that signals are handled
      answer = self._answers.pop(n)
    if answer["error"]:
      raise HostError(answer["error"], answer["code"])
    return answer["values"]

  def _words(self, error: Exception | None) -> dict[str, Any]:
    """Returns an error as JSON."""
    if error is None:
      return {"error": "", "code": 0}
    code = getattr(error, "exit_code", 1)
    kind = f"{type(error).__name__}: " if code == 1 else ""
    return {"error": f"{self.names[self.index]}: {kind}{error}", "code": code}

  def meet(self, place: str, given_up: Callable[[], bool]) -> None:
    self._post({"at": place})
    with self._changed:
      while place not in self._met:
        if given_up():
          raise TimeoutError(f"other processes did not come to {place}")
        self._changed.wait(0.1)

  def leave(self, sentence: str, code: int) -> None:
    """Tells the others that this process ends with an error, and waits for them."""
    raise NotImplementedError

  def _post(self, message: dict[str, Any]) -> None:
    raise NotImplementedError

  def _answer(self, message: dict[str, Any]) -> None:
    with self._changed:
      self._closed = self._closed or message["last"]
      self._answers[message["n"]] = message
      self._changed.notify_all()

  def _pass(self, place: str) -> None:
    with self._changed:
      self._met.add(place)
      self._changed.notify_all()

  def _every_beat(self, call: Callable[[], None]) -> None:
    """Calls a function a few times in a heartbeat, in a thread of its own."""

    def repeat() -> None:
      while not self._closed:
        if self._quit is end_process:
          # In C: it works where Python does not, as in a library that hangs.
          faulthandler.dump_traceback_later(2 * self.heartbeat, exit=True)
        call()
        time.sleep(min(self.heartbeat / 5, self.hang_timeout / 5, 5.0))
      if self._quit is end_process:
        faulthandler.cancel_dump_traceback_later()

    threading.Thread(target=repeat, daemon=True).start()

  def close(self) -> None:
    """Ends the signs of life; all processes are at their end."""
    self._closed = True


def end_process(sentence: str, code: int) -> None:
  """Prints a sentence and ends this process, whatever its other threads do."""
  with contextlib.suppress(OSError):
    os.write(2, f"\nerror: {shown(sentence)}\n".encode(errors="replace"))
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(Exception):
      stream.flush()
  os._exit(code)


def lost(name: str, why: str) -> str:
  """Returns the sentence on a process that is lost."""
  return (
    f"{name} {why}, so all processes end; the same command on every host continues from"
    " the last checkpoint"
  )
