"""The command's view of jobs of a batch system: it waits, and reads the folder."""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.runner import sweep_progress
from experiments.runner.launchers.base import SweepWork
from experiments.runner.run_folder import Outcome
from experiments.runner.state import quiet, status
from experiments.setup.validate import ConfigError
from transformer_jax.training.json_files import warn
from transformer_jax.training.progress import Progress

POLL = 2.0  # seconds between looks at the jobs and the folder


class BatchLoop:
  """Waits for jobs; what they did is read from the folder of the sweep.

  work   the runs
  jobs   of submitit, which execute a BatchJob

  >>> from types import SimpleNamespace
  >>> BatchLoop(SimpleNamespace(folders={}), jobs=[]).shared
  False
  """

  def __init__(self, work: SweepWork, jobs: Sequence[Any]):
    self.shared = False
    self._work, self._jobs = work, jobs

  def outcomes(self) -> Iterator[Outcome]:
    """Yields the outcome of each run, until a signal cancels the jobs."""
    left = dict(self._work.folders)
    ids = {path.name for path in left.values()}
    with Progress(len(left), "runs") as bar:
      while left and not self._work.stop:
        ended = all(job.done() for job in self._jobs)  # before the folder is read
        for name, path in [*left.items()]:
          state = status(path, quiet).get("state")
          if state == "finished" or ended:
            del left[name]
            yield Outcome(state if state in ("finished", "failed") else "interrupted")
        now = sweep_progress.progress(self._work.request.workdir, ids)
        facts = sweep_progress.counts(now)
        bar.estimate(len(ids) - len(left), now["left_s"], **facts)
        time.sleep(POLL if left else 0)
    self._end()

  def _end(self) -> None:
    """Cancels jobs after a signal; raises ConfigError where all were refused."""
    if self._work.stop:
      for job in self._jobs:
        job.cancel(check=False)
      return
    refused = [reason for job in self._jobs if (reason := _refusal(job))]
    for reason in dict.fromkeys(refused):
      warn(reason)
    if refused and len(refused) == len(self._jobs):
      raise ConfigError(refused[0])


def _refusal(job: Any) -> str:
  """Returns why a job could not work, "" where it worked or still does."""
  if not job.done():
    return ""
  try:
    return str(json.loads(job.result())["refused"])
  except Exception as error:  # as of a job that was cancelled or killed
    warn(f"job {job.job_id}: {str(error).strip().splitlines()[0]}")
    return ""
