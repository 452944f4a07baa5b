"""Workers on other machines, which may come, go and differ.

A run whose worker dies goes on elsewhere from its checkpoint, beside the others. One
that another machine still claims is tried until that claim is void: see claims.py.
"""

import collections
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from experiments.runner import handshake, waiting
from experiments.runner.run_folder import BUSY, FAULTS, Outcome
from experiments.runner.worker_connection import Connect, RefusedError, SweepWorker
from experiments.runner.workers import POLL, Workers
from experiments.setup.command_line import Request
from experiments.setup.runs import Run
from experiments.setup.validate import ConfigError
from transformer_jax.training.json_files import warn
from transformer_jax.training.signals import Stop

AGAIN = 2.0  # seconds until a run is tried again that another process has
UNPLACED = Outcome("unplaced")  # no machine had room for a worker


class NoRoomError(Exception):
  """Raised where no machine has room for a worker at present.

  >>> str(NoRoomError("all CPUs are busy"))
  'all CPUs are busy'
  """


class SpreadWorkers(Workers):
  """The work of processes on several machines on the runs of one command.

  connect   starts a process from its words, or raises NoRoomError or RefusedError

  The rest as for Workers.

  >>> import tempfile
  >>> from types import SimpleNamespace
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   request = SimpleNamespace(workdir=Path(folder))
  ...   SpreadWorkers(request, [], {}, 2, Stop(), connect=print).shared
  False
  """

  def __init__(
    self,
    request: Request,
    todo: Sequence[Run],
    folders: Mapping[str, Path],
    count: int,
    stop: Stop,
    connect: Connect,
  ):
    super().__init__(request, todo, folders, count, stop)
    self._connect, self._refusals = connect, list[str]()
    self._expected: dict[str, Any] = handshake.expected(request.workdir, todo)

  def _outcomes(self) -> Iterator[Outcome]:
    # (time, name, waited) of the runs that are to be tried
    later = [(0.0, name, False) for name in self._folders]
    tasks: dict[futures.Future[Outcome | None], tuple[str, bool]] = {}
    deaths, reported = collections.Counter[str](), time.monotonic()
    while later or tasks:
      now = time.monotonic()
      for item in [x for x in later if x[0] <= now or self._stop]:
        later.remove(item)
        tasks[self._threads.submit(self._attempt, *item[1:])] = item[1:]
      ended, _ = futures.wait(tasks, POLL, return_when=futures.FIRST_COMPLETED)
      self._tick()
      if not tasks:
        time.sleep(POLL)
      for task in ended:
        name, waited = tasks.pop(task)
        outcome = task.result()
        if outcome is UNPLACED:
          later.append((now + AGAIN, name, waited))
        elif outcome is None and deaths[name] < FAULTS:
          deaths[name] += 1
          later.append((now, name, waited))
        elif outcome is None:
          print(f"{name}: not finished, its processes died {FAULTS + 1} times")
          yield Outcome("interrupted")
        elif outcome.state == BUSY and not self._stop:
          self.shared = True
          later.append((now + AGAIN, name, True))
        else:
          yield outcome
      self._check_refusals()
      if now - reported >= waiting.REPORT:
        reported = now
        self._report([name for _, name, _ in later])

  def _attempt(self, name: str, waited: bool) -> Outcome | None:
    try:
      return super()._attempt(name, waited)
    except NoRoomError:
      self._idle.put(None)
      return UNPLACED
    except RefusedError as error:
      if str(error) not in self._refusals and not self._stop:
        warn(str(error))
      self._refusals.append(str(error))
      # Of several places one stays, or those who wait for one would wait for ever.
      if len(self._refusals) >= self._count:
        self._idle.put(None)
      return UNPLACED

  def _started(self) -> SweepWorker:
    return SweepWorker(
      self._request,
      self._todo,
      self._bar,
      self._printed,
      self._connect,
      self._expected,
    )

  def _check_refusals(self) -> None:
    """Raises ConfigError where no worker is left that may work."""
    if len(self._refusals) >= self._count and not self._stop:
      raise ConfigError(self._refusals[-1])

  def _report(self, names: Sequence[str]) -> None:
    """Prints a line on the runs that wait for other processes, or for a machine."""
    if names:
      busy = {name: self._folders[name] for name in names}
      print(waiting.line(busy), flush=True)
