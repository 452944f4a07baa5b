"""Joining of the processes that train one run, and their common end.

They meet at the leader's address (meeting.py), where those that are missing are named;
only then does `jax.distributed` connect their devices, which would abort instead.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.runner.hosts import meeting
from experiments.runner.hosts.channel import END, Channel
from experiments.setup.host_flags import Hosts
from experiments.setup.validate import ConfigError
from transformer_jax import hosts as groups
from transformer_jax.hosts import HostError

PATIENCE = 300  # seconds in which all processes must have started
LATER = 60  # seconds: JAX gives a silent process up this much later than we do
SLURM = ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST")
TPU_CHIPS = ("/dev/accel0", "/dev/vfio/0")


def together(main: Callable[[Any], int], request: Any) -> int:
  """Runs a command on all processes of its request; returns the exit code.

  An error of one process ends the others with its sentence and exit code.
  """
  if not wanted(request.hosts):
    return main(request)
  place = found(request.hosts)
  if place.processes == 1:
    return main(request)
  channel = join(request.hosts, place)
  groups.use(channel)
  try:
    code = main(request)
    channel.exchange(END, code)
  except BaseException as error:
    _leave(channel, error)
  groups.use(groups.ProcessGroup())
  channel.close()
  _shut_down()
  return code


def joined(main: Callable[[Any], int]) -> Callable[[Any], int]:
  """Returns a command that runs on all processes of its request."""
  return functools.partial(together, main)


def wanted(hosts: Hosts, environment: Mapping[str, str] = os.environ) -> bool:
  """Returns whether this process has others: named, or found on SLURM or a TPU VM."""
  if hosts.alone:
    return False
  return hosts.named or _of_slurm(environment) or _of_tpu(environment)


def _of_slurm(environment: Mapping[str, str]) -> bool:
  """Returns whether this is a task of a SLURM step with several."""
  return all(name in environment for name in SLURM) and (
    environment["SLURM_NTASKS"] != "1"
  )


def _of_tpu(environment: Mapping[str, str]) -> bool:
  """Returns whether this machine has TPU chips, perhaps of a slice with more hosts."""
  platforms = environment.get("JAX_PLATFORMS", "")
  if platforms and "tpu" not in platforms.split(","):
    return False
  chips = any(Path(path).exists() for path in TPU_CHIPS)
  return chips and importlib.util.find_spec("libtpu") is not None


@dataclasses.dataclass(frozen=True)
class Place:
  """Which of the processes this one is.

  address     of process 0
  processes   their number
  process     number of this one
  devices     of the host that it takes; None: all. SLURM gives each task one GPU

  >>> Place("10.0.0.1:8476", processes=2, process=1).process
  1
  """

  address: str
  processes: int
  process: int
  devices: Sequence[int] | None = None


def join(hosts: Hosts, place: Place) -> Channel:
  """Connects this process with the others; raises ConfigError where it cannot."""
  import jax

  # Its handler of SIGTERM would replace ours: see training/signals.py.
  jax.config.update("jax_enable_preemption_service", False)
  where = place.address, place.processes
  settings = {"heartbeat": hosts.heartbeat, "hang_timeout": hosts.hang_timeout}
  patience = min(PATIENCE, hosts.hang_timeout)
  if place.process:
    channel: Channel = meeting.follow(*where, place.process, patience, settings)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the leader prints
  else:
    channel = meeting.lead(*where, patience, settings)
  jax.distributed.initialize(
    *where,
    place.process,
    place.devices,
    cluster_detection_method="deactivate",
    heartbeat_timeout_seconds=int(hosts.heartbeat) + LATER,
    shutdown_timeout_seconds=int(hosts.heartbeat) + LATER,
  )
  return channel


def found(hosts: Hosts) -> Place:
  """Returns the place that is named, or that of the SLURM step or TPU slice."""
  if hosts.named:
    return Place(hosts.coordinator, hosts.processes, hosts.process)
  # `jax.distributed.initialize()` finds them so, and keeps them to itself.
  from jax._src import clusters

  detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
  try:
    address, processes, process, devices = detect(
      None, None, None, None, None, PATIENCE
    )
  except Exception as error:
    raise ConfigError(_not_found(f"{type(error).__name__}: {error}")) from error
  if address is None or processes is None or process is None:
    raise ConfigError(_not_found("no SLURM step, no TPU slice"))
  return Place(address, processes, process, devices)


def _not_found(reason: str) -> str:
  return (
    f"JAX did not find the other processes ({' '.join(reason.split())[:300]}); name"
    " them with --coordinator, --processes and --process, or work alone with"
    " --processes=1"
  )


def _leave(channel: Channel, error: BaseException) -> None:
  """Ends this process after an error, and with it all others; never returns."""
  code, sentence = _reason(error)
  if code == 1 and not isinstance(error, HostError):
    traceback.print_exception(error)
  elif sentence:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
  channel.leave(f"{channel.names[channel.index]}: {sentence or 'it ended'}", code)
  with contextlib.suppress(Exception):
    sys.stdout.flush()
  os._exit(code)  # JAX would wait for the others


def _reason(error: BaseException) -> tuple[int, str]:
  """Returns the exit code and the sentence of an error."""
  if isinstance(error, SystemExit):
    return error.code if isinstance(error.code, int) else 1, ""
  if isinstance(error, KeyboardInterrupt):
    return 130, ""
  if isinstance(error, (ConfigError, HostError)):
    return error.exit_code, str(error)
  return 1, f"{type(error).__name__}: {error}"


def _shut_down() -> None:
  import jax

  with contextlib.suppress(RuntimeError):  # all have ended; nothing is lost
    jax.distributed.shutdown()
