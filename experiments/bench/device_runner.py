"""Run of the benchmark of an accelerator: within a time budget, and resumable.

Each group is written as it finishes. The same command again skips what is there from
the same commit, versions and device, and tries failed groups again at the end.
"""

import concurrent.futures
import datetime
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from experiments.bench import runner
from experiments.bench.device_groups import DevicePlan
from experiments.bench.groups import ContenderGroup
from experiments.bench.worker import Worker, WorkerError
from experiments.runner import provenance

ALL = "all of them"  # in place of a contender, where a process ended


class Deadline:
  """End of a time budget.

  >>> Deadline(minutes=0).left
  0.0
  """

  def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic):
    self._clock, self._end = clock, clock() + 60 * minutes

  @property
  def left(self) -> float:
    """Returns the seconds that are left, not below 0."""
    return max(0.0, self._end - self._clock())


class PatientWorker(Worker):
  """Worker that is ended when an answer takes too long, as where a compiler hangs.

  seconds   returns how long the next answer may take

  >>> import sys
  >>> command = [sys.executable, "-c", "input()"]
  >>> with PatientWorker(command, None, lambda: 60.0) as worker:
  ...   worker.ended
  False
  """

  def __init__(self, command, env, seconds: Callable[[], float]):
    super().__init__(command, env)
    self._seconds, self._expired = seconds, False

  def ask(self, do: str, **request: Any) -> dict[str, Any]:
    """Sends one request and returns its answer; raises WorkerError."""
    seconds = self._seconds()
    timer = threading.Timer(seconds, self._expire)
    timer.start()
    try:
      return super().ask(do, **request)
    except WorkerError as error:
      if not self._expired:
        raise
      raise WorkerError(f"no answer within {seconds:.0f} s") from error
    finally:
      timer.cancel()

  def _expire(self) -> None:
    self._expired = True
    self.kill()


class DeviceBench:
  """The benchmark of one accelerator.

  store      file of the figures
  plan       groups in their order
  start      starts the process of a side
  deadline   of this run
  at_once    processes that compare at the same time

  >>> import pathlib
  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   store = runner.Store(pathlib.Path(folder, "device.json"))
  ...   store.figures["versions"] = {}
  ...   plan, over = DevicePlan("gpu", ("none",)), Deadline(minutes=0)
  ...   DeviceBench(store, plan, start=Worker, deadline=over).run()[:2]
  ['compare none', 'speed L=4096 none']
  """

  def __init__(
    self,
    store: runner.Store,
    plan: DevicePlan,
    start: Callable[[str], Worker],
    deadline: Deadline,
    at_once: int = 1,
  ):
    self.store, self.plan, self.start = store, plan, start
    self.deadline, self.at_once = deadline, at_once
    self._lock = threading.Lock()

  def run(self) -> list[str]:
    """Measures until all is done or the time is over; returns the names of the rest."""
    todo = [(s, g) for s, g in self.plan.groups() if not self._finished(s, g)]
    todo.sort(key=lambda each: self._found(*each) is not None)  # failed before: last
    compared: list[ContenderGroup] = []
    for section, group in todo:
      if section == "compare":
        compared.append(group)
        continue
      self._compare(compared)
      compared = []
      self._measure(section, group)
    self._compare(compared)
    left = [(s, g) for s, g in self.plan.groups() if self._found(s, g) is None]
    return [f"{section} {group.name}" for section, group in left]

  def _found(self, section: str, group: ContenderGroup) -> dict[str, Any] | None:
    """Returns the figures of a group from this code, if there are."""
    found = self.store.figures["sections"].get(section, {}).get(group.name)
    here = provenance.commit()[0], self.store.figures["versions"]
    return found if found and (found["commit"], found["versions"]) == here else None

  def _finished(self, section: str, group: ContenderGroup) -> bool:
    found = self._found(section, group)
    if not found or found["errors"]:
      return False
    if section == "compare" and wrong_in(found):  # out of memory, perhaps
      return False
    return {c.name for c in group.contenders} <= {*found["facts"]}

  def _compare(self, groups: Iterable[ContenderGroup]) -> None:
    """Compares cores with `dense`, several encodings at once where the device can."""
    waiting: queue.SimpleQueue[ContenderGroup] = queue.SimpleQueue()
    for group in groups:
      waiting.put(group)

    def work() -> None:
      with runner.Sides(self.start) as sides:
        while self.deadline.left and not waiting.empty():
          try:
            group = waiting.get_nowait()
          except queue.Empty:
            return
          self._put("compare", group, compared(group, sides))

    if waiting.empty() or not self.deadline.left:
      return
    with concurrent.futures.ThreadPoolExecutor(self.at_once) as pool:
      for each in [pool.submit(work) for _ in range(self.at_once)]:
        each.result()

  def _measure(self, section: str, group: ContenderGroup) -> None:
    if not self.deadline.left:
      return
    with runner.Sides(self.start) as sides:
      try:
        figures = runner.measured(group, sides)
      except WorkerError as error:  # while it was timed
        errors = {ALL: str(error)}
        figures = _stamped({**group.facts, "errors": errors, "facts": {}})
      self._put(section, group, figures)

  def _put(self, section, group, figures) -> None:
    """Keeps figures; not those of a group that the deadline ended."""
    if figures["errors"] and not self.deadline.left:
      return
    with self._lock:
      figures["versions"] = self.store.figures["versions"]
      self.store.put(section, group.name, figures)
    print(f"{section} {group.name}: {summary(figures)}", flush=True)


def compared(group: ContenderGroup, sides: runner.Sides) -> dict[str, Any]:
  """Returns the outcomes of a group's cores by type and mode, and errors."""
  facts, errors = {}, {}
  for contender in group.contenders:
    worker = sides["ours"]
    try:
      outcomes = worker.prepare(contender.name, contender.case, **contender.args)
    except WorkerError as error:
      errors[contender.name] = str(error)
      sides.restart("ours")
      continue
    facts[contender.name] = outcomes
    if any("failed" in outcome for outcome in outcomes.values()):
      sides.restart("ours")  # after some errors a GPU refuses all that follows
  return _stamped({"facts": facts, "errors": errors})


def _stamped(figures: dict[str, Any]) -> dict[str, Any]:
  date = datetime.date.today().isoformat()
  return figures | {"commit": provenance.commit()[0], "date": date}


def summary(figures: dict[str, Any]) -> str:
  """Returns a group's result in a few words."""
  if "times" in figures:
    calls = {name: facts.get("calls", 1) for name, facts in figures["facts"].items()}
    words = [
      f"{name} {1e3 * min(times) / calls[name]:.3g} ms"
      for name, times in figures["times"].items()
    ]
  else:
    outcomes = [x for facts in figures["facts"].values() for x in facts.values()]
    words = [f"{sum(x.get('passed', False) for x in outcomes)} equal dense"]
    words += [f"{wrong} do not" for wrong in [len(wrong_in(figures))] if wrong]
    words += [f"{n} refused" for n in [sum("refused" in x for x in outcomes)] if n]
  words += [f"{name}: {error}" for name, error in figures["errors"].items()]
  return ", ".join(words)


def wrong_in(figures: dict[str, Any]) -> list[str]:
  """Returns the comparisons of a group that failed: core, type and mode."""
  return [
    f"{core} {which}"
    for core, outcomes in figures["facts"].items()
    for which, outcome in outcomes.items()
    if "failed" in outcome or outcome.get("passed") is False
  ] + [f"{name} ({error})" for name, error in figures.get("errors", {}).items()]
