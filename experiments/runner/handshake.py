"""What a worker on another machine must have in common with the command's process.

Else it would train with other code or versions, or write into a folder of its own.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.runner import provenance, user_code
from experiments.setup.runs import Run
from transformer_jax.training.json_files import replace_file


def expected(workdir: Path, todo: Sequence[Run]) -> dict[str, Any]:
  """Returns what workers must have, as JSON; makes a file of this command's own.

  The file stays in the sweep's folder: jobs may start after the command has ended, and
  while other commands work on the same sweep.
  """
  mark = os.urandom(8).hex()
  replace_file(_file(workdir, mark), b"")
  return {"host": socket.gethostname(), "mark": mark, **_own(todo)}


def refusal(wanted: Mapping[str, Any], workdir: Path, todo: Sequence[Run]) -> str:
  """Returns a sentence on why this process may not work on the sweep, "" if it may.

  wanted   of `expected`, in the command's process
  todo     the runs, as received
  """
  here, there, own = socket.gethostname(), wanted["host"], _own(todo)
  for name, version in wanted["versions"].items():
    if own["versions"].get(name) != version:
      return (
        f"the worker on {here} has {name} {own['versions'].get(name)}, the command on"
        f" {there} has {version}: install the same on both"
      )
  if own["code"] != wanted["code"]:
    return (
      f"the worker on {here} has other files of this project or of your own code than"
      f" the command on {there} ({own['commit']} and {wanted['commit']}): check out the"
      " same commit on both"
    )
  if not _file(workdir, wanted["mark"]).exists():
    return (
      f"the worker on {here} does not see the files of {there} in"
      f" --workdir={workdir.absolute()}: choose a folder that all machines share"
    )
  return ""


def _file(workdir: Path, mark: str) -> Path:
  """Returns a file that shows to a worker that it sees the folder of the command."""
  return workdir / f".workers.{mark}"


def _own(todo: Sequence[Run]) -> dict[str, Any]:
  commit, _ = provenance.commit()
  own_code: dict[str, Any] = {}
  for run in todo:
    own_code |= user_code.facts(run.config)["own_code"]
  return {
    "versions": provenance.versions(),
    "commit": commit or "no commit",
    "code": {"project": provenance.sources(), **own_code},
  }
