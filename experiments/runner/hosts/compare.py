"""Comparison of the processes of a run, before its first step: they must be alike."""

import collections
import importlib.metadata
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from experiments.runner import process, provenance, user_code
from experiments.setup.command_line import Request
from experiments.setup.launcher_flags import LOCAL
from experiments.setup.runs import Run
from experiments.setup.validate import ConfigError, flatten
from transformer_jax import hosts
from transformer_jax.mesh_shape import MeshShape

MOST_CONFIGS = 20  # runs whose keys are compared one by one; of others their ids
MOST_SHOWN = 20  # differences
VISIBLE = 10.0  # seconds in which a file of the leader appears at the others


def check(request: Request, todo: Sequence[Run], own: Callable[[], None]) -> None:
  """Raises ConfigError on all processes where one has problems, or they differ.

  own   raises ConfigError with the problems of this process
  """
  if hosts.count() == 1:
    return own()
  if request.workers > 1:
    in_one_process(f"--workers={request.workers}")
  if request.launcher != LOCAL:
    in_one_process(f"--launcher={request.launcher}")
  problems: tuple[str, ...] = ()
  try:
    own()
    facts = facts_of(request, todo)
  except ConfigError as error:
    problems, facts = error.problems, {}
  everywhere = hosts.group().exchange("problems", list(problems))
  if any(everywhere):
    raise ConfigError(*_named(everywhere))
  if found := differences(hosts.group().exchange("facts", facts), hosts.group().names):
    more = [f"and {len(found) - MOST_SHOWN} more"] if len(found) > MOST_SHOWN else []
    raise ConfigError("the processes differ:", *found[:MOST_SHOWN], *more)


def _named(problems: Sequence[Sequence[str]]) -> Iterator[str]:
  """Yields each problem once, with the processes that have it unless all do."""
  owners: dict[str, list[str]] = collections.defaultdict(list)
  for name, own in zip(hosts.group().names, problems, strict=True):
    for problem in own:
      owners[problem].append(name)
  for problem, names in owners.items():
    where = "" if len(names) == hosts.count() else f"{' and '.join(names)}: "
    yield f"{where}{problem}"


def differences(facts: Sequence[Mapping[str, str]], names: Sequence[str]) -> list[str]:
  """Returns a line for each fact that differs: its values and who has them.

  >>> facts = [{"jax": "0.10.2", "steps": "9"}, {"jax": "0.12.0", "steps": "9"}]
  >>> differences(facts, ["process 0 on a", "process 1 on b"])
  ['jax: 0.10.2 on process 0 on a; 0.12.0 on process 1 on b']
  """
  found = []
  for key in dict.fromkeys(key for own in facts for key in own):
    owners: dict[str, list[str]] = {}
    for own, name in zip(facts, names, strict=True):
      owners.setdefault(own.get(key, "none"), []).append(name)
    if len(owners) > 1:
      parts = (f"{value} on {', '.join(who)}" for value, who in owners.items())
      found.append(f"{key}: {'; '.join(parts)}")
  # Without git on one host the commit differs, and the code need not.
  same_code = not any(line.startswith(f"{CODE}: ") for line in found)
  return [x for x in found if not (same_code and x.startswith(f"{COMMIT}: "))]


CODE, COMMIT = "hash of the source files", "commit"


def facts_of(request: Request, todo: Sequence[Run]) -> dict[str, str]:
  """Returns what must be the same on all processes, in words."""
  import jax

  versions = provenance.versions()
  versions["transformer_jax"] = importlib.metadata.version("transformer_jax")
  kind = jax.local_devices()[0].device_kind
  facts = {
    **versions,
    CODE: provenance.sources(),
    COMMIT: provenance.commit()[0] or "unknown",
    "devices": f"{jax.local_device_count()} x {kind}",
    "--cores": str(process.cores()),
    "--workdir": str(request.workdir.expanduser().absolute()),
    "runs": f"{len(todo)}: {' '.join(run.id for run in todo)}",
  }
  for run in todo[:MOST_CONFIGS]:
    of_run = f" of {run.group} {run.label}" if len(todo) > 1 else ""
    flat = flatten(run.config)
    facts |= {f"config.{key}{of_run}": repr(value) for key, value in flat.items()}
    code = user_code.facts(run.config).get("own_code", {})
    facts |= {f"code of {name}{of_run}": digest for name, digest in code.items()}
  return facts if request.dry_run else facts | _data(todo)


def _data(todo: Sequence[Run]) -> dict[str, str]:
  """Returns the fingerprints of the data of each task."""
  from experiments.runner.build import build
  from experiments.runner.train import load

  prints = {}
  for run in todo:
    name = f"data of {run.config.task}"
    if name not in prints:
      try:
        _, facts = load(build(run.config).task)
        prints[name] = str(facts.get("fingerprint"))
      except (ValueError, OSError) as error:
        prints[name] = f"not read ({type(error).__name__}: {error})"
  return prints


def idle_processes(todo: Sequence[Run]) -> list[str]:
  """Returns a sentence for each mesh that leaves a process without work."""
  import jax

  count, devices = hosts.count(), jax.device_count()
  if count == 1:
    return []
  meshes = dict.fromkeys(MeshShape(**run.config.mesh).filled(devices) for run in todo)
  return [
    f"{mesh}: takes {mesh.least} of the {devices} devices of {count} processes, which"
    " must all take part; write mesh.data=-1 for all that are left"
    for mesh in meshes
    if mesh.least < devices
  ]


def check_folder(workdir: Path) -> None:
  """Raises ConfigError on all processes unless they have one folder in common."""
  name = (
    hosts.from_leader("a file", lambda: _written(workdir)) if hosts.count() > 1 else ""
  )
  if not name:
    return
  seen = _appears(workdir / name)
  everywhere = hosts.group().exchange("the file", seen)
  if hosts.is_leader():
    (workdir / name).unlink(missing_ok=True)
  blind = [
    who for who, sees in zip(hosts.group().names, everywhere, strict=True) if not sees
  ]
  if blind:
    raise ConfigError(
      f"--workdir={workdir}: {' and '.join(blind)} has another folder there than"
      f" {hosts.group().names[0]}; all hosts need one shared folder, as over NFS"
    )


def _written(workdir: Path) -> str:
  """Writes an empty file, which is visible where the folder is shared."""
  name = f".hosts.{secrets.token_hex(8)}.tmp"
  (workdir / name).touch()
  return name


def _appears(path: Path) -> bool:
  until = time.monotonic() + VISIBLE
  while not path.exists():
    if time.monotonic() > until:
      return False
    time.sleep(0.1)
    os.listdir(path.parent)  # makes NFS look again
  return True


def in_one_process(what: str) -> None:
  """Raises ConfigError where several processes are asked to do what only one can."""
  if hosts.count() > 1:
    raise ConfigError(
      f"{what} works in one process: leave out --coordinator, or add --processes=1"
    )
