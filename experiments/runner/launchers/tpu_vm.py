"""TPU VMs of Google Cloud: the whole command is executed there, by gcloud."""

import dataclasses
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from experiments.runner.launchers.base import Launcher, Loop, SweepWork, launchers
from experiments.runner.tpu_commands import SHARED, TpuCommands, install, run
from experiments.setup.command_line import Request
from experiments.setup.launcher_flags import LOCAL
from experiments.setup.validate import ConfigError

POLL = 30.0  # seconds between looks at the state of a slice
USABLE = {"ACTIVE", "READY"}
TAKEN = {"SUSPENDING", "SUSPENDED", "PREEMPTED", "TERMINATED", "STOPPED", "DELETING"}
FAILED = {"FAILED"}
CONNECTION = 255  # exit code of ssh where the connection breaks


@launchers.register("tpu_vm")
@dataclasses.dataclass(frozen=True)
class TpuVm(Launcher):
  """A TPU VM, or a slice of several hosts, on which the command is executed.

  name, type, zone, project, image, spot, queued   see TpuCommands
  share      folder of a file server as HOST:/PATH, mounted on all hosts: the sweep's
             folder is in it; needed by several hosts
  bucket     gs:// folder: the sweep's is copied to it each minute, and back
  setup      shell commands after the installation, as ("python -m ...prepare lm1b",)
  restarts   times that a slice is asked for again after it was taken away
  keep       leave the slice, which costs money, after the command

  >>> TpuVm("mine", "v5litepod-8", "us-west4-a").remote_folder(Path("runs/pod"))
  'runs/pod'
  """

  name: str
  type: str
  zone: str
  project: str = ""
  image: str = ""
  spot: bool = False
  queued: bool = True
  share: str = ""
  bucket: str = ""
  setup: tuple[str, ...] = ()
  restarts: int = 100
  keep: bool = False

  on_this_machine = False
  carries_command = True

  def __post_init__(self) -> None:
    if self.bucket and not self.bucket.startswith("gs://"):
      raise ConfigError(
        f"--launcher=tpu_vm: bucket={self.bucket!r}: write gs://NAME/..."
      )
    if self.spot and not (self.share or self.bucket):
      raise ConfigError(
        "--launcher=tpu_vm: spot=True: a machine that is taken away takes its disk"
        " along, and all checkpoints with it: write bucket='gs://NAME/FOLDER' or"
        " share='HOST:/PATH' too, or leave spot out"
      )
    if self.commands.hosts_are_several and not self.share:
      raise ConfigError(
        f"--launcher=tpu_vm: {self.type} has several hosts, which need a folder that"
        " all of them share: write share='HOST:/PATH' of a file server (Filestore)"
      )

  @property
  def commands(self) -> TpuCommands:
    return TpuCommands(
      name=self.name,
      type=self.type,
      zone=self.zone,
      project=self.project,
      image=self.image,
      spot=self.spot,
      queued=self.queued,
    )

  def remote_folder(self, workdir: Path) -> str:
    """Returns the sweep's folder on the hosts."""
    return f"{SHARED}/{workdir}" if self.share else str(workdir)

  def loop(self, work: SweepWork) -> Loop:
    raise ConfigError("--launcher=tpu_vm carries a whole sweep: use experiments.sweep")

  def carry(self, request: Request) -> int:
    here = Path.cwd()
    inside = request.path.resolve().is_relative_to(here)
    below = not request.workdir.is_absolute() and ".." not in request.workdir.parts
    if not (Path("setup.cfg").is_file() and inside and below):
      raise ConfigError(
        "--launcher=tpu_vm: start it in the project's folder, with --config and"
        " --workdir below it: that folder is copied to the machines"
      )
    if request.dry_run:
      return self._print(request)
    if shutil.which("gcloud") is None:
      raise ConfigError(
        "--launcher=tpu_vm: there is no gcloud here; install the Google Cloud CLI, or"
        " add --dry_run to print the commands"
      )
    with tempfile.TemporaryDirectory() as folder:
      if self._call(self.commands.pack(Path(folder))):
        raise ConfigError("--launcher=tpu_vm: the project was not packed; see above")
      return self._carry(request, Path(folder))

  def _carry(self, request: Request, packed: Path) -> int:
    """Works on the slice; where that ends early, says how to delete it."""
    try:
      return self._results(request, self._work(request, packed))
    except BaseException:  # also Ctrl-C: what was asked for costs money
      self._say_how(
        f"{self.name} is left as it is; to delete it", self.commands.delete()
      )
      raise

  def _results(self, request: Request, code: int) -> int:
    """Brings the results, then deletes the slice; returns the exit code."""
    brings, delete = self._returned(request), self.commands.delete()
    if failed := self._call(*brings):
      self._say_how(
        f"the results were not copied (exit code {failed}), so {self.name} is left as"
        " it is and goes on to cost money; to copy them, and then to delete it",
        *brings,
        delete,
      )
      return code or 1
    if not self.keep and (failed := self._call(delete)):
      self._say_how(f"{self.name} was not deleted (exit code {failed})", delete)
      return code or 1
    return code

  def _work(self, request: Request, packed: Path) -> int:
    """Asks for the slice and works on it, again where it is taken away."""
    for n in range(self.restarts + 1):
      self._obtain(first=n == 0)
      code = self._call(*self._installed(packed), self._run(request))
      state = self._state()
      if code == 0 or (state in USABLE and code != CONNECTION):
        return code
      why = "the connection broke" if state in USABLE else f"it is {state or 'gone'}"
      kept = self.share or self.bucket or state in USABLE
      how = "continues from its checkpoints" if kept else "begins again, without any"
      print(f"{self.name}: {why}; the command {how}", flush=True)
    print(f"{self.name}: given up after {self.restarts} restarts")
    return 1

  def _obtain(self, first: bool) -> None:
    """Waits until the slice can be used; asks for it where it is not there."""
    before = None
    while (state := self._state(first)) not in USABLE:
      first = False
      if state != before:
        print(f"{self.name}: {state or 'not there'}", flush=True)
      if state in FAILED and before is not None:
        raise ConfigError(
          f"{self.name}: Google Cloud says {state}; see gcloud's output"
        )
      if state in TAKEN | FAILED:
        self._call(self.commands.delete())
      if not state and self._call(self.commands.create()):
        raise ConfigError(f"{self.name}: gcloud could not ask for it; see its output")
      before = state
      time.sleep(POLL)

  def _state(self, first: bool = False) -> str:
    """Returns the state of the slice, "" where there is none; waits for an answer.

    first   whether nothing was asked for so far: then no answer is a ConfigError
    """
    before = ""
    while True:
      done = subprocess.run(self.commands.state(), capture_output=True, text=True)
      if done.returncode == 0:
        return done.stdout.strip()
      if "NOT_FOUND" in done.stderr:
        return ""
      why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
      if first:
        raise ConfigError(f"--launcher=tpu_vm: gcloud cannot be used: {why}")
      if why != before:  # as where this machine has lost its network
        print(f"{self.name}: gcloud is asked again ({why})", flush=True)
      before = why
      time.sleep(POLL)

  def _say_how(self, why: str, *commands: list[str]) -> None:
    """Prints a reason and the commands that are left to the user."""
    print("\n".join([f"{why}:", *(f"  {shlex.join(x)}" for x in commands)]), flush=True)

  def _installed(self, packed: Path) -> list[list[str]]:
    """Returns the commands that install the project, packed in a folder."""
    script = install(self.name, self.share, self.setup)
    return [self.commands.copy(packed), self.commands.ssh(script)]

  def _run(self, request: Request) -> list[str]:
    folder = self.remote_folder(request.workdir)
    there = dataclasses.replace(request, launcher=LOCAL, workdir=Path(folder))
    command = there.command("sweep", workdir=True) + " --retry" * request.retry
    return self.commands.ssh(run(command, folder, self.bucket))

  def _returned(self, request: Request) -> list[list[str]]:
    """Returns the commands that bring the sweep's folder back."""
    here = request.workdir
    if self.share:
      return []  # it stays on the file server
    if self.bucket:
      words = ["gcloud", "storage", "rsync", "--recursive", self.bucket, str(here)]
      return [["mkdir", "-p", str(here)], words]
    made = ["mkdir", "-p", str(here.parent)]
    return [made, self.commands.fetch(str(here), str(here.parent))]

  def _call(self, *commands: list[str]) -> int:
    """Executes commands until one fails; returns the last exit code."""
    code = 0
    for command in commands:
      print(f"$ {shlex.join(command)}", flush=True)
      if code := subprocess.run(command).returncode:
        return code
    return code

  def _print(self, request: Request) -> int:
    """Prints what `carry` executes."""
    commands, home = self.commands, Path.home()
    steps = {
      "pack the project": [commands.pack(home)],
      "ask for the machines": [commands.create()],
      "until this prints ACTIVE or READY": [commands.state()],
      "install": self._installed(home),
      "run; after a preemption: delete, and again from the start": [self._run(request)],
      "bring the results": self._returned(request),
      "delete": [] if self.keep else [commands.delete()],
    }
    for title, words in steps.items():
      for line in [f"# {title}", *map(shlex.join, words)] if words else []:
        print(line)
    return 0
