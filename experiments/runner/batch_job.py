"""A job of a batch system: a worker that takes what is left of a sweep by itself.

The command's process may end, or be on a machine that the job cannot reach: the worker
is told all runs at once, and claims (claims.py) keep jobs apart. A job that is
preempted or out of time lets its worker save, and asks to be queued again.
"""

import json
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.runner.carried_process import CarriedProcess, order
from experiments.runner.run_folder import FAULTS
from experiments.runner.worker_connection import Events, words
from experiments.setup.command_line import Request
from experiments.setup.runs import Run
from transformer_jax.training.json_files import warn
from transformer_jax.training.log import make_patient
from transformer_jax.training.progress import Progress


class BatchJob:
  """What a job executes; it holds texts alone, and imports the project there.

  order      of the worker's process: see carried_process.py
  messages   the lines that it is sent, as JSON

  >>> echo = "import sys; print(sys.stdin.readline().strip()); print('{\\"done\\": 1}')"
  >>> BatchJob(order(["-c", echo]), '["{\\\\"outcome\\\\": \\\\"finished\\\\"}"]')()
  job  1/1
  job  1/1  in 0 s
  '{"refused": "", "done": true}'
  """

  def __init__(self, order: str, messages: str):
    self.order, self.messages = order, messages
    self._process: CarriedProcess | None = None
    self._stopped = False

  @classmethod
  def of(
    cls, request: Request, todo: Sequence[Run], expected: Mapping[str, Any]
  ) -> "BatchJob":
    """Returns the job that works on runs."""
    first = {"todo": [run.message() for run in todo], "expected": expected}
    lines = [json.dumps(first), json.dumps({"all": True})]
    return cls(order(words(request)), json.dumps(lines))

  def __call__(self) -> str:
    """Works until nothing is left; returns how it ended, as JSON."""
    make_patient()
    signal.signal(signal.SIGTERM, lambda *_: self._stop())
    ended: dict[str, Any] = {"refused": "", "done": False}
    for _ in range(FAULTS + 1):
      ended = self._work()
      if ended["done"] or ended["refused"] or self._stopped:
        break
    return json.dumps(ended)

  def checkpoint(self) -> Any:
    """Lets the worker save, then returns what submitit queues again."""
    import submitit

    self._stop()
    return submitit.helpers.DelayedSubmission(BatchJob(self.order, self.messages))

  def _work(self) -> dict[str, Any]:
    self._process = CarriedProcess(self.order)
    if problem := self._process.started():
      return {"refused": f"the worker did not start on {problem}", "done": False}
    for line in json.loads(self.messages):
      self._process.send(line)
    with Progress(1, "job") as bar:
      ended = self._follow(Events(bar, set()))
      bar.update(int(ended["done"]))
    self._process.close()
    how = self._process.end()
    if not (ended["done"] or ended["refused"] or self._stopped):
      warn(f"the worker has died ({how}); it is started again")
    return ended

  def _follow(self, events: Events) -> dict[str, Any]:
    assert self._process is not None
    while lines := self._process.lines():
      for event in map(json.loads, lines):
        if "refused" in event:
          return {"refused": event["refused"], "done": False}
        if "done" in event:
          return {"refused": "", "done": True}
        if "outcome" not in event:
          events.show(event)
    events.close()
    return {"refused": "", "done": False}

  def _stop(self) -> None:
    """Lets the worker save its run and end; called in the handler of a signal."""
    self._stopped = True
    if self._process is not None and not self._process.problem:
      self._process.send(json.dumps({"stop": int(signal.SIGTERM)}))
      while lines := self._process.lines():
        if any("done" in json.loads(line) for line in lines):
          break
      self._process.close()
