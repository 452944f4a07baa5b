"""SLURM, through submitit: an array of jobs that share the folder of the sweep."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

from experiments.runner import handshake, process
from experiments.runner.batch_job import BatchJob
from experiments.runner.launchers.base import (
  Launcher,
  Loop,
  SweepWork,
  check_platforms,
  launchers,
)
from experiments.setup.command_line import Request
from experiments.setup.validate import ConfigError

REQUEUED = 1000  # times that a job may run into its time limit
SAVES = 120  # seconds before the limit at which a job saves and is queued again


@launchers.register("slurm")
@dataclasses.dataclass(frozen=True)
class Slurm(Launcher):
  """Jobs of SLURM, each a worker; --workers of them, or one for each run.

  partition, account, qos, constraint   as for sbatch; "": the cluster's default
  hours       time limit of a job, which is queued again when it ends
  cpus        of a job; 0: as many as a run computes with
  gpus        of a job
  memory      of a job in GB; 0: the cluster's default
  at_once     jobs that may run at a time
  setup       shell commands before the worker, as ("module load cuda",)
  cluster     "slurm", or "local" to try it with processes of this machine

  >>> Slurm(partition="gpu", gpus=1).parameters(cores=1)["slurm_partition"]
  'gpu'
  """

  partition: str = ""
  account: str = ""
  qos: str = ""
  constraint: str = ""
  hours: float = 24.0
  cpus: int = 0
  gpus: int = 0
  memory: float = 0.0
  at_once: int = 256
  setup: tuple[str, ...] = ()
  cluster: str = "slurm"

  on_this_machine = False

  def parameters(self, cores: int) -> dict[str, Any]:
    """Returns the parameters of submitit; cores are those of a run."""
    named = {
      "mem_gb": self.memory,
      "gpus_per_node": self.gpus,
      "slurm_partition": self.partition,
      "slurm_account": self.account,
      "slurm_qos": self.qos,
      "slurm_constraint": self.constraint,
      "slurm_setup": [*self.setup],
    }
    return {
      "name": "transformer_jax",
      "timeout_min": max(1, round(60 * self.hours)),
      "nodes": 1,
      "tasks_per_node": 1,
      "cpus_per_task": self.cpus or cores,
      "slurm_array_parallelism": self.at_once,
      "slurm_signal_delay_s": SAVES,
      # Preempted by a more urgent job, SLURM itself queues it again.
      "slurm_additional_parameters": {"requeue": True},
      **{name: value for name, value in named.items() if value},
    }

  def check(self, request: Request) -> None:
    check_platforms("slurm", gpus=self.gpus)
    if importlib.util.find_spec("submitit") is None:
      raise ConfigError(
        "--launcher=slurm: submitit is not installed; pip install -e '.[slurm]'"
      )
    if self.cluster not in ("slurm", "local"):
      raise ConfigError(f"--launcher=slurm: cluster={self.cluster!r}: slurm or local")
    import submitit

    if self.cluster == "slurm" and submitit.SlurmExecutor.affinity() < 0:
      raise ConfigError(
        "--launcher=slurm: there is no srun here; start the command on a machine from"
        " which jobs are submitted, or try it with slurm(cluster='local')"
      )

  def describe(self, request: Request, count: int) -> None:
    """Prints the script for sbatch."""
    from submitit.slurm import slurm

    class Printed(slurm.SlurmExecutor):
      """Makes scripts also where there is no SLURM."""

      @classmethod
      def affinity(cls) -> int:
        return 1

    folder = folder_of(request.workdir)
    executor = Printed(folder=folder)
    given = self.parameters(process.cores())
    own = {name.removeprefix("slurm_"): value for name, value in given.items()}
    executor.update_parameters(**executor._convert_parameters(own))
    jobs = request.workers or count
    executor.parameters |= {"map_count": jobs} if jobs > 1 else {}
    print(f"\nslurm: {jobs} jobs, submitted by sbatch with this script:\n")
    command = executor._submitit_command_str
    print(executor._make_submission_file_text(command, "dry_run"))

  def loop(self, work: SweepWork) -> Loop:
    import submitit

    from experiments.runner.batch_loop import BatchLoop

    count = max(1, min(work.request.workers or work.unfinished, work.unfinished))
    folder = folder_of(work.request.workdir)
    executor = submitit.AutoExecutor(
      folder=folder, cluster=self.cluster, slurm_max_num_timeout=REQUEUED
    )
    executor.update_parameters(**self.parameters(process.cores()))
    expected = handshake.expected(work.request.workdir, work.todo)
    job = BatchJob.of(work.request, work.todo, expected)
    with executor.batch():
      jobs = [executor.submit(job) for _ in range(count)]
    first = jobs[0].job_id.partition("_")[0]
    print(
      f"slurm: {count} jobs ({first}), whose logs are in {folder}; Ctrl-C cancels them",
      flush=True,
    )
    return BatchLoop(work, jobs)


def folder_of(workdir: Path) -> Path:
  """Returns the folder of scripts and logs of jobs, below that of the sweep."""
  return workdir.absolute() / "jobs"
