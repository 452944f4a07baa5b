"""A process that a launcher starts on another machine, in the folder of the command.

What is sent between the two machines is JSON: words, variables, lines. No JAX here, and
no class of the project: an agent of the launcher executes this before any other code.
"""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

VARIABLES = ("JAX_", "XLA_", "PYTHONPATH", "NPROC", "TFDS_DATA_DIR", "TOKENIZERS_")


def order(words: list[str]) -> str:
  """Returns what `CarriedProcess` takes: words after `python`, folder and variables."""
  given = {k: v for k, v in os.environ.items() if k.startswith(VARIABLES)}
  paths = [os.path.abspath(x) for x in given.get("PYTHONPATH", "").split(os.pathsep)]
  given |= {"PYTHONPATH": os.pathsep.join(paths)} if "PYTHONPATH" in given else {}
  return json.dumps({"words": words, "folder": os.getcwd(), "environment": given})


class CarriedProcess:
  """A process of this machine, for another one to talk to.

  order   of the function `order`, there

  >>> process = CarriedProcess(order(["-c", "print(input())"]))
  >>> process.send("a line")
  >>> process.lines(), process.lines(), process.end()
  (['a line\\n'], [], 'exit code 0')
  """

  def __init__(self, order: str):
    given: dict[str, Any] = json.loads(order)
    self.problem = ""
    # Its parent tells it to stop: a signal to all processes would end it unsaved.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
      self._process = subprocess.Popen(
        [sys.executable, *given["words"]],
        cwd=given["folder"],
        env={**os.environ, **given["environment"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
      )
    except OSError as error:  # as where the folder is not there
      self.problem = f"{socket.gethostname()}: {error}"
      return
    finally:
      signal.pthread_sigmask(signal.SIG_SETMASK, before)
    self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=self._read, daemon=True).start()

  def started(self) -> str:
    """Returns why it did not start, "" if it did."""
    return self.problem

  def send(self, line: str) -> None:
    """Writes a line to the process; one that has died reads none."""
    assert self._process.stdin is not None
    with contextlib.suppress(OSError, ValueError):
      self._process.stdin.write(f"{line}\n")
      self._process.stdin.flush()

  def lines(self) -> list[str]:
    """Returns the next lines that it wrote, [] at the end; waits for one."""
    first = self._lines.get()
    found = [first]
    while found[-1] is not None and not self._lines.empty():
      found.append(self._lines.get())
    if found[-1] is None:
      self._lines.put(None)  # for the next call
    return [line for line in found if line is not None]

  def close(self) -> None:
    """Ends what it reads."""
    assert self._process.stdin is not None
    with contextlib.suppress(OSError):
      self._process.stdin.close()

  def end(self) -> str:
    """Waits for its end; returns in words how it ended."""
    code = self._process.wait()
    self.close()
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"

  def _read(self) -> None:
    assert self._process.stdout is not None
    for line in self._process.stdout:
      self._lines.put(line)
    self._process.stdout.close()
    self._lines.put(None)
