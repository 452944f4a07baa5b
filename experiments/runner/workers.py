"""Workers that share the runs of one command.

The parent hands out runs, shows the progress of all, and trains nothing itself.
"""

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from queue import PriorityQueue

from experiments.runner import process, sweep_progress, waiting
from experiments.runner.run_folder import BUSY, FAULTS, Outcome
from experiments.runner.worker_connection import SweepWorker
from experiments.setup.command_line import Request
from experiments.setup.runs import Run
from transformer_jax import hosts
from transformer_jax.training.json_files import warn
from transformer_jax.training.progress import Progress
from transformer_jax.training.signals import Stop

POLL = 0.2  # seconds between looks at the stop flag
REFRESH = 5.0  # seconds between readings of the folder for the bar of all runs


def number(request: Request, unfinished: int) -> int:
  """Returns how many processes share the unfinished runs; an accelerator has one."""
  import jax

  if jax.default_backend() != "cpu" or hosts.count() > 1:
    return 1
  wanted = request.workers or process.available() // process.cores()
  return max(1, min(wanted, unfinished))


class _Idle:
  """Workers without work, and places of those that are not started, which come last."""

  def __init__(self) -> None:
    self._queue: PriorityQueue[tuple[bool, int, SweepWorker | None]] = PriorityQueue()
    self._count = itertools.count()

  def put(self, worker: SweepWorker | None) -> None:
    self._queue.put((worker is None, next(self._count), worker))

  def get(self) -> SweepWorker | None:
    return self._queue.get()[-1]


class Workers:
  """The work of several processes on the runs of one command.

  todo      the runs
  folders   {name: folder} of the runs, in order
  count     of the processes
  shared    whether processes of other commands worked on some of the runs

  >>> from types import SimpleNamespace
  >>> Workers(SimpleNamespace(), [], {}, count=2, stop=Stop()).shared
  False
  """

  def __init__(
    self,
    request: Request,
    todo: Sequence[Run],
    folders: Mapping[str, Path],
    count: int,
    stop: Stop,
  ):
    self.shared = False
    self._request, self._todo = request, todo
    self._folders, self._stop = folders, stop
    self._count, self._printed = count, set[str]()
    self._told = False
    self._done, self._shown = 0, time.monotonic()
    self._all: list[SweepWorker] = []
    self._idle = _Idle()
    for _ in range(count):
      self._idle.put(None)  # started when there is work for it

  def outcomes(self) -> Iterator[Outcome]:
    """Yields the outcome of each run, until a signal stops the work."""
    with (
      Progress(len(self._folders), "runs") as self._bar,
      futures.ThreadPoolExecutor(self._count) as self._threads,
    ):
      try:
        for outcome in self._outcomes():
          self._done += 1
          self._show()
          yield outcome
      finally:
        for worker in self._all:
          worker.close()
    for worker in self._all:
      worker.end()

  def _show(self) -> None:
    """Shows how many runs are done, running and failed, and the time left."""
    self._shown = time.monotonic()
    ids = {path.name for path in self._folders.values()}
    now = sweep_progress.progress(self._request.workdir, ids)
    facts = sweep_progress.counts(now)
    self._bar.estimate(self._done, now["left_s"], **facts)

  def _outcomes(self) -> Iterator[Outcome]:
    busy, died = {}, []
    for name, outcome in self._work(self._folders):
      if outcome is None:
        died.append(name)
      elif outcome.state == BUSY:
        busy[name] = self._folders[name]
      else:
        yield outcome
    # Alone: several processes at once may have been more than the memory holds.
    yield from map(self._alone, died)
    self.shared = bool(busy)
    yield from waiting.outcomes(
      busy, lambda name: self._alone(name, waited=True), self._stop
    )

  def _alone(self, name: str, waited: bool = False) -> Outcome:
    for _ in range(FAULTS + 1):
      if self._stop:
        break
      ((_, outcome),) = self._work([name], waited)
      if outcome is not None:
        return outcome
    if not self._stop:
      print(f"{name}: not finished, its processes died; --workers=1 may help")
    return Outcome("interrupted")

  def _work(
    self, names: Iterable[str], waited: bool = False
  ) -> Iterator[tuple[str, Outcome | None]]:
    """Yields (name, outcome) as processes end their runs; None: one has died."""
    tasks = {self._threads.submit(self._attempt, n, waited): n for n in names}
    left = {*tasks}
    while left:
      ended, left = futures.wait(left, POLL, return_when=futures.FIRST_COMPLETED)
      self._tick()
      for task in ended:
        yield tasks[task], task.result()

  def _tick(self) -> None:
    """Tells the processes of a stop, once, and shows how far the sweep is."""
    if self._stop and not self._told:
      self._told = True
      for worker in self._all:
        worker.tell({"stop": self._stop.received})
    if time.monotonic() - self._shown >= REFRESH:
      self._show()

  def _attempt(self, name: str, waited: bool) -> Outcome | None:
    """Gives a run to a process that has none; called in a thread."""
    worker = self._idle.get()
    if worker is None and not self._stop:
      worker = self._started()
      self._all.append(worker)
    # The order matters: a worker in the list is told of a stop from here on.
    if self._stop or worker is None:
      self._idle.put(worker)
      return Outcome("interrupted")
    outcome = worker.attempt(name, waited)
    self._idle.put(worker if outcome else None)
    if outcome is None and not self._stop:
      warn(f"{name}: its process has died ({worker.end()}); the run is tried again")
    return outcome

  def _started(self) -> SweepWorker:
    return SweepWorker(self._request, self._todo, self._bar, self._printed)
