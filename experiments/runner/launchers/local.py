"""This machine: one process for each core, or one after another on an accelerator."""

import dataclasses

from experiments.runner import process, workers
from experiments.runner.launchers.base import Launcher, Loop, SweepWork, launchers
from experiments.runner.workers import Workers


@launchers.register("local")
@dataclasses.dataclass(frozen=True)
class Local(Launcher):
  """Processes of this machine: --workers of them.

  >>> Local().on_this_machine
  True
  """

  def loop(self, work: SweepWork) -> Loop:
    count = workers.number(work.request, work.unfinished)
    if count == 1:
      process.keep_memory()
      return work.one_by_one()
    cores = process.cores()
    print(f"{count} runs at a time, {cores} core{'s' * (cores > 1)} each", flush=True)
    return Workers(work.request, work.todo, work.folders, count, work.stop)
