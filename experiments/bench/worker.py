"""Client of a measuring process: sends requests and waits for the answers."""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class WorkerError(RuntimeError):
  """A case failed in a worker; the message is the worker's."""


class Worker:
  """A long-lived process with cases in named slots; see `serve.py`."""

  def __init__(self, command: Sequence[str], env: dict[str, str] | None = None):
    self._log = tempfile.TemporaryFile("w+")
    self._process = subprocess.Popen(
      command,
      cwd=ROOT,
      env=env,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._log,
      text=True,
    )
    if self._process.stdin is None or self._process.stdout is None:
      raise WorkerError("the worker has no pipes")
    self._stdin, self._stdout = self._process.stdin, self._process.stdout

  def __enter__(self) -> "Worker":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def versions(self) -> dict[str, str]:
    return self.ask("versions")

  def prepare(self, slot: str, case: str, **args: Any) -> dict[str, Any]:
    """Prepares a case in a slot; returns its facts."""
    return self.ask("prepare", slot=slot, case=case, args=args)

  def seconds(self, slot: str) -> float:
    """Runs a slot once."""
    return self.ask("time", slot=slot)["seconds"]

  def first(self, slot: str) -> dict[str, Any]:
    """Runs a slot once; returns its seconds and the bytes it held (None: unknown)."""
    return self.ask("first", slot=slot)

  def drop(self, slot: str) -> None:
    self.ask("drop", slot=slot)

  def ask(self, do: str, **request: Any) -> dict[str, Any]:
    """Sends one request and returns its answer; raises WorkerError."""
    try:
      print(json.dumps({"do": do, **request}), file=self._stdin, flush=True)
      line = self._stdout.readline()
    except BrokenPipeError:
      line = ""
    if not line:
      raise WorkerError(self._last_words())
    answer = json.loads(line)
    if "error" in answer:
      raise WorkerError(answer["error"])
    return answer

  @property
  def ended(self) -> bool:
    return self._process.poll() is not None

  def kill(self) -> None:
    """Ends the process at once; a request that waits raises WorkerError."""
    self._process.kill()

  def close(self) -> None:
    with contextlib.suppress(BrokenPipeError):
      self._stdin.close()
    try:
      self._process.wait(timeout=20)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._stdout.close()
    self._log.close()

  def _last_words(self) -> str:
    code = self._process.wait()
    self._log.seek(0)
    lines = self._log.read().strip().splitlines()
    return f"the worker ended with code {code}: {lines[-1] if lines else 'no message'}"
