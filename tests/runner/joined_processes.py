"""Processes that train one run together over the loopback device, for tests."""

import dataclasses
import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

WORDS = (
  *("--config.task=copy", "--config.seeds=(0,1)", "--config.model.layers=1"),
  *("--config.model.width=16", "--config.model.feedforward=16"),
  *("--config.model.heads=2", "--config.train.length=8", "--config.train.batch_size=8"),
  *("--config.train.steps=32", "--config.train.steps_per_dispatch=2"),
  *("--config.train.checkpoint_every=8", "--config.evaluate.lengths=(1,2)"),
  *("--config.evaluate.examples=16", "--config.evaluate.batch_size=8"),
)
LIMIT = 300.0  # seconds until processes of a test are killed


@dataclasses.dataclass
class Joined:
  """Processes of one run, started together.

  started   what `commands.start` returned for each
  """

  commands: object
  started: list

  def signal(self, process, number):
    """Sends a signal to one of them."""
    os.kill(self.started[process][0], number)

  def wait(self):
    """Returns how each ended; kills those that do not end in time."""
    alarm = threading.Timer(LIMIT, self._kill)
    alarm.start()
    try:
      return [self.commands.wait(each) for each in self.started]
    finally:
      alarm.cancel()

  def _kill(self):
    for process in range(len(self.started)):
      self.signal(process, signal.SIGKILL)


def free_port():
  """Returns a port such that it and the next one are free."""
  while True:
    with socket.socket() as first, socket.socket() as second:
      first.bind(("127.0.0.1", 0))
      port = first.getsockname()[1]
      try:
        second.bind(("127.0.0.1", port + 1))
        return port
      except OSError:
        continue


def environment(tmp_path):
  """Returns variables without the devices that conftest makes."""
  devices = r"--xla_force_host_platform_device_count=\d+"
  return {
    "XLA_FLAGS": re.sub(devices, "", os.environ["XLA_FLAGS"]),
    "COLUMNS": "120",
    "UNDRAWN": "1",
  }


def start(
  commands,
  folder,
  processes,
  devices,
  tool="run",
  words=(),
  more=(),
  variables=(),
):
  """Starts the processes of a run over a number of devices.

  tool        the command: run or sweep
  words       further flags of all
  more        {process: further flags of it}
  variables   {process: further variables of it}
  """
  port, started = free_port(), []
  for process in range(processes):
    joined = (f"--coordinator=127.0.0.1:{port}", f"--processes={processes}")
    own = (*WORDS, f"--config.mesh.data={devices}", f"--workdir={folder}")
    own += joined + (f"--process={process}", *words, *dict(more).get(process, ()))
    env = environment(folder) | dict(variables).get(process, {})
    started.append(commands.start(f"experiments.{tool}", *own, environment=env))
  return Joined(commands, started)


def alone(commands, folder, devices, *words):
  """Runs the same in one process; returns how it ended."""
  own = (*WORDS, f"--config.mesh.data={devices}", f"--workdir={folder}", *words)
  return commands.run("experiments.run", *own, environment=environment(folder))


def run_folder(folder):
  """Returns the folder of the one run."""
  (path,) = Path(folder).glob("runs/*")
  return path


def wait_for_step(folder, step):
  """Waits until a run's status has a step."""
  until = time.monotonic() + LIMIT
  while time.monotonic() < until:
    for file in Path(folder).glob("runs/*/status.json"):
      if json.loads(file.read_text())["step"] >= step:
        return
    time.sleep(0.02)
  raise TimeoutError(f"{folder} has no step {step}")


def last_step(folder):
  """Returns the step of the newest checkpoint, 0 without any."""
  paths = Path(folder).glob("runs/*/checkpoints/*")
  return max((int(path.name) for path in paths if path.name.isdigit()), default=0)


def measured(folder):
  """Returns what a run computed: scores, metrics, checksums of its last state."""
  path = run_folder(folder)
  scores = json.loads((path / "result.json").read_text())["scores"]
  rows = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
  metrics = [{k: v for k, v in r.items() if k != "tokens_per_s"} for r in rows]
  file = path / f"checkpoints/{last_step(folder)}/meta/metadata"
  note = json.loads(file.read_text())
  return scores, metrics, note["fingerprints"]
