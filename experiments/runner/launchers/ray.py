"""Ray: workers on the machines of a cluster, which share the folder of the sweep.

An actor is an agent that starts worker_process.py on its machine and passes lines on.
Ray never sees a run, an array or an object of the project: only JSON texts.
"""

import contextlib
import dataclasses
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.runner import carried_process, process
from experiments.runner.launchers.base import (
  Launcher,
  Loop,
  SweepWork,
  check_platforms,
  launchers,
)
from experiments.runner.spread_workers import NoRoomError, SpreadWorkers
from experiments.runner.worker_connection import RefusedError
from experiments.setup.command_line import Request
from experiments.setup.validate import ConfigError
from transformer_jax.training.signals import SIGNALS

ANSWERS = 5.0  # seconds for a connection to the address
JOINS = 30.0  # seconds for a cluster to say what it is
# Connecting itself has no limit that can be set: it is tried by another process first.
TRY = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False)"


@launchers.register("ray")
@dataclasses.dataclass(frozen=True)
class Ray(Launcher):
  """Workers of a Ray cluster.

  address   of its head as HOST:PORT; "auto": that of RAY_ADDRESS or of this machine
  cpus      of each worker; 0: as many as a run computes with
  gpus      of each worker
  tpus      chips of each worker, the resource "TPU" of Ray
  patience  seconds until a worker that no machine has room for is given up for now

  >>> Ray(cpus=4).needs(cores=1)
  {'num_cpus': 4, 'num_gpus': 0, 'resources': {}}
  """

  address: str = "auto"
  cpus: int = 0
  gpus: int = 0
  tpus: int = 0
  patience: float = 60.0

  on_this_machine = False

  def needs(self, cores: int) -> dict[str, Any]:
    """Returns what a worker needs, as Ray names it; cores are those of a run."""
    resources = {"TPU": self.tpus} if self.tpus else {}
    cpus = self.cpus or cores
    return {"num_cpus": cpus, "num_gpus": self.gpus, "resources": resources}

  def check(self, request: Request) -> None:
    check_platforms("ray", gpus=self.gpus, tpus=self.tpus)
    if importlib.util.find_spec("ray") is None:
      raise ConfigError(
        "--launcher=ray: Ray is not installed; pip install -e '.[ray]' on all machines"
      )
    if "ray" not in sys.modules or not sys.modules["ray"].is_initialized():
      self._check_address()
      import ray

      with _signals_as_they_are():
        ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
    if not (self._room() or request.workers):
      raise ConfigError(
        f"--launcher=ray: no machine of the cluster has room for a worker with"
        f" {self.needs(process.cores())}; write fewer, or --workers=N to wait for"
        " machines that join"
      )

  def describe(self, request: Request, count: int) -> None:
    needs = self.needs(process.cores())
    wanted = f" at most {request.workers}" if request.workers else ""
    print(
      f"ray: workers on the cluster at {self.address},{wanted} each with"
      f" {needs['num_cpus']} CPUs, {self.gpus} GPUs, {self.tpus} TPU chips"
    )

  def loop(self, work: SweepWork) -> Loop:
    room = work.request.workers or self._room()
    count = max(1, min(room, work.unfinished))
    print(f"ray: {count} workers on the cluster at {self.address}", flush=True)
    return SpreadWorkers(
      work.request, work.todo, work.folders, count, work.stop, connect=self._connect
    )

  def _room(self) -> int:
    """Returns how many workers the machines of the cluster have resources for."""
    import ray

    needs = self.needs(process.cores())
    wanted = {"CPU": needs["num_cpus"], "GPU": self.gpus, "TPU": self.tpus}
    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
      int(min(node.get(name, 0) // n for name, n in wanted.items() if n))
      for node in there
    )

  def _connect(self, words: Sequence[str]) -> "_Actor":
    return _Actor(words, self.needs(process.cores()), self.patience)

  def _check_address(self) -> None:
    """Raises ConfigError where no cluster answers, within a bounded time."""
    address = self.address
    if address == "auto":
      address = os.environ.get("RAY_ADDRESS", "auto")
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if address != "auto":
      try:
        socket.create_connection((host, int(port)), timeout=ANSWERS).close()
      except (OSError, ValueError, OverflowError) as error:
        raise self._no_answer(str(error)) from error
    try:
      tried = subprocess.run(
        [sys.executable, "-c", TRY, self.address],
        capture_output=True,
        text=True,
        timeout=JOINS,
      )
    except subprocess.TimeoutExpired as error:
      raise self._no_answer(f"nothing in {JOINS:g} s") from error
    if tried.returncode:
      raise self._no_answer(next(reversed(tried.stderr.strip().splitlines()), ""))

  def _no_answer(self, why: str) -> ConfigError:
    return ConfigError(
      f"--launcher=ray(address={self.address!r}): no Ray cluster answers ({why}); start"
      " one with ray start --head --port=6379, and write its address"
    )


class _Actor:
  """Connection to a process on a machine of the cluster."""

  def __init__(self, words: Sequence[str], needs: dict[str, Any], patience: float):
    import ray

    made: Any = ray.remote(carried_process.CarriedProcess)
    # One thread waits for lines, one for the end, the others write.
    self._actor: Any = made.options(max_concurrency=4, **needs).remote(
      carried_process.order([*words])
    )
    try:
      problem = ray.get(self._actor.started.remote(), timeout=patience)
    except ray.exceptions.GetTimeoutError as error:
      ray.kill(self._actor)
      raise NoRoomError from error
    except ray.exceptions.RayError as error:
      raise RefusedError(f"a worker of Ray did not start: {_short(error)}") from error
    if problem:
      raise RefusedError(f"the worker did not start on {problem}")

  def send(self, line: str) -> None:
    self._call(self._actor.send, line)  # one after another: an actor has threads

  def lines(self) -> Iterator[str]:
    import ray

    with contextlib.suppress(ray.exceptions.RayError):  # its machine has died
      while found := ray.get(self._actor.lines.remote()):
        yield from found

  def close(self) -> None:
    with contextlib.suppress(OSError):
      self._call(self._actor.close)

  def end(self) -> str:
    import ray

    try:
      how: str = ray.get(self._actor.end.remote())
      ray.kill(self._actor)
    except ray.exceptions.RayError as error:
      return _short(error)
    return how

  def _call(self, method: Any, *words: str) -> None:
    import ray

    try:
      ray.get(method.remote(*words), timeout=ANSWERS)
    except ray.exceptions.RayError as error:
      raise OSError(_short(error)) from error


def _short(error: Exception) -> str:
  return str(error).partition("\n")[0].partition(":")[0] or type(error).__name__


@contextlib.contextmanager
def _signals_as_they_are() -> Iterator[None]:
  """Keeps the handlers of signals, which Ray replaces."""
  before = {number: signal.getsignal(number) for number in SIGNALS}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
