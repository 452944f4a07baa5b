"""Commands of gcloud for a TPU VM or a slice of several, as lists of words.

After https://cloud.google.com/tpu/docs/queued-resources and .../tpu/docs/managing-tpus.
"""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

FOLDER = "transformer_jax"  # of the project, on the machines
SHARED = "/mnt/share"  # where a shared folder is mounted
# Images of https://cloud.google.com/tpu/docs/runtimes, by the start of the type.
IMAGES = {
  "v6e": "v2-alpha-tpuv6e",
  "v5p": "v2-alpha-tpuv5",
  "v5litepod": "v2-alpha-tpuv5-lite",
}
# Ubuntu 22.04 of these images has Python 3.10: uv brings a newer one.
PYTHON = "3.12"
NONE = "matched no objects"  # what gcloud says of a folder of a bucket without files
LARGEST_HOST = 8  # chips of v5e and v6e, cores of others


@dataclasses.dataclass(frozen=True)
class TpuCommands:
  """Commands for one slice.

  name      of the slice, and of the request that waits for it
  type      as "v5litepod-8", "v6e-16" or "v4-8"
  zone      as "us-west4-a"
  project   of Google Cloud; "": that of gcloud's config
  image     software of the machines; "": the one for the type
  spot      cheaper, and may be taken away at any time
  queued    ask by a queued resource, which waits for capacity

  >>> commands = TpuCommands("mine", "v5litepod-8", "us-west4-a")
  >>> shlex.join(commands.delete())[:48], commands.hosts_are_several
  ('gcloud compute tpus queued-resources delete mine', False)
  """

  name: str
  type: str
  zone: str
  project: str = ""
  image: str = ""
  spot: bool = False
  queued: bool = True

  @property
  def hosts_are_several(self) -> bool:
    """Whether the slice has several hosts, as far as its type says."""
    size = re.search(r"-(\d+)$", self.type)
    return size is not None and int(size[1]) > LARGEST_HOST

  def create(self) -> list[str]:
    """Returns the command that asks for the slice."""
    kind = self.type.partition("-")[0]
    image = self.image or IMAGES.get(kind, "tpu-ubuntu2204-base")
    flags = [f"--accelerator-type={self.type}", *(["--spot"] if self.spot else [])]
    if self.queued:
      flags += [f"--node-id={self.name}", f"--runtime-version={image}"]
      return self._gcloud("queued-resources", "create", flags)
    return self._gcloud("tpu-vm", "create", [*flags, f"--version={image}"])

  def state(self) -> list[str]:
    """Returns the command that prints the state: ACTIVE or READY can be used."""
    if self.queued:
      return self._gcloud(
        "queued-resources", "describe", ["--format=value(state.state)"]
      )
    return self._gcloud("tpu-vm", "describe", ["--format=value(state)"])

  def delete(self) -> list[str]:
    """Returns the command that gives the slice back."""
    if self.queued:
      return self._gcloud("queued-resources", "delete", ["--force", "--quiet"])
    return self._gcloud("tpu-vm", "delete", ["--quiet"])

  def pack(self, folder: Path) -> list[str]:
    """Returns the command that packs the project as git sees it, changes included."""
    # A file that was deleted, but is still in git's list, would fail tar.
    there = 'while IFS= read -r -d \'\' f; do if [ -e "$f" ] || [ -L "$f" ]'
    there += "; then printf '%s\\0' \"$f\"; fi; done"
    files = "git ls-files -z --cached --others --exclude-standard"
    archive = shlex.quote(str(self.archive(folder)))
    tar = f"tar --create --gzip --file={archive} --null --files-from=-"
    return ["bash", "-c", f"set -o pipefail; {files} | {there} | {tar}"]

  def archive(self, folder: Path) -> Path:
    """Returns the packed project in a folder of this machine."""
    return folder / f"{self.name}.tar.gz"

  def copy(self, folder: Path) -> list[str]:
    """Returns the command that copies the packed project to all hosts."""
    words = [str(self.archive(folder)), f"{self.name}:", "--worker=all"]
    return ["gcloud", "compute", "tpus", "tpu-vm", "scp", *words, *self._where()]

  def ssh(self, script: str) -> list[str]:
    """Returns the command that executes a shell script on all hosts."""
    return self._gcloud("tpu-vm", "ssh", ["--worker=all", f"--command={script}"])

  def fetch(self, folder: str, into: str) -> list[str]:
    """Returns the command that copies a folder from the first host."""
    words = ["--recurse", f"{self.name}:{FOLDER}/{folder}", into, "--worker=0"]
    return ["gcloud", "compute", "tpus", "tpu-vm", "scp", *words, *self._where()]

  def _gcloud(self, group: str, verb: str, flags: Sequence[str]) -> list[str]:
    words = ["gcloud", "compute", "tpus", group, verb, self.name]
    return [*words, *self._where(), *flags]

  def _where(self) -> list[str]:
    project = [f"--project={self.project}"] if self.project else []
    return [f"--zone={self.zone}", *project]


def install(name: str, share: str = "", setup: Sequence[str] = ()) -> str:
  """Returns the script that installs the project on a host, once.

  name    of the packed project
  share   folder of a file server as HOST:/PATH, to be mounted; "": none
  setup   shell commands that follow, in the project's folder and environment
  """
  lines = [
    f"mkdir -p {FOLDER}",
    f"tar --extract --gzip --file={name}.tar.gz --directory={FOLDER}",
    f"cd {FOLDER}",
    "python3 -m pip install --quiet --user uv",
    f"(test -d .venv || ~/.local/bin/uv venv --python={PYTHON} .venv)",
    "~/.local/bin/uv pip install --quiet --python=.venv/bin/python -e '.[tpu]'",
  ]
  if share:
    lines += [
      f"sudo mkdir -p {SHARED}",
      f"(mountpoint -q {SHARED} || sudo mount -t nfs {shlex.quote(share)} {SHARED})",
      f"(test -w {SHARED} || sudo chmod 777 {SHARED})",
    ]
  return " && ".join([*lines, *([". .venv/bin/activate", *setup] if setup else [])])


def run(command: str, workdir: str, bucket: str = "") -> str:
  """Returns the script that executes a command on a host.

  workdir   folder of the sweep there
  bucket    gs:// folder that the sweep's is copied from, once, and to each minute; "":
            none
  """
  start = f"cd {FOLDER} && . .venv/bin/activate"
  if not bucket:
    return f"{start} && {command}"
  here, there = shlex.quote(workdir), shlex.quote(bucket)
  save = f"gcloud storage rsync --recursive {here} {there}"
  # Once on a machine: after a broken connection its own files are the newer ones. A
  # bucket that cannot be read ends it: work from step 0 would replace what it holds.
  copied = shlex.quote(f"{workdir}.copied")
  copy = (
    f"test -e {copied} || (gcloud storage ls {there} 2>&1 | grep -q '{NONE}')"
    f" || gcloud storage rsync --recursive {there} {here}"
  )
  return (
    f"{start} && mkdir -p {here} && ({copy}) && touch {copied} || exit 1;"
    f" (while sleep 60; do {save}; done) & saving=$!; {command}; code=$?;"
    f" kill $saving; {save}; exit $code"
  )
