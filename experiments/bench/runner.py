"""Measurement of groups; each result is written as soon as it is there."""

import dataclasses
import datetime
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.bench import measure
from experiments.bench.groups import Contender, ContenderGroup
from experiments.bench.worker import Worker, WorkerError
from experiments.runner import provenance
from transformer_jax.training.json_files import read_json, write_json

LONGEST = 90.0  # seconds that one call may be expected to take
SETTLE = 0.3  # seconds for which threads of another process may spin after its turn
NOISY = 0.2  # cores kept busy by others, above which a person should know


class Sides:
  """Workers by side, each started on its first use.

  >>> class Worker:
  ...   def close(self):
  ...     print("closed")
  >>> with Sides(lambda side: Worker()) as sides:
  ...   sides["ours"] is sides["ours"]
  True
  closed
  """

  def __init__(self, start: Callable[[str], Worker]):
    self._start = start
    self._workers: dict[str, Worker] = {}

  def __enter__(self) -> "Sides":
    return self

  def __exit__(self, *exception: object) -> None:
    for worker in self._workers.values():
      worker.close()

  def __getitem__(self, side: str) -> Worker:
    if side not in self._workers:
      self._workers[side] = self._start(side)
    return self._workers[side]

  def restart(self, *sides: str) -> None:
    """Ends workers; the next request starts new ones."""
    for worker in [self._workers.pop(side) for side in sides if side in self._workers]:
      worker.close()

  def device(self) -> str:
    """Returns the device of this project's side, "" where it does not run."""
    here = self._workers.get("ours")
    return here.versions().get("device", "") if here else ""

  def versions(self) -> dict[str, Any]:
    return {side: worker.versions() for side, worker in self._workers.items()}


class Turns:
  """Times contenders one after another, with a pause between processes.

  OpenMP's threads spin for a while after their work, which slows the next process.
  """

  def __init__(self, sides: Sides):
    self._sides, self._last = sides, ""

  def seconds(self, contender: Contender) -> float:
    if contender.side != self._last:
      time.sleep(SETTLE)
    self._last = contender.side
    return self._sides[contender.side].seconds(contender.name)


def busy(seconds: float = 0.5) -> float | None:
  """Returns the cores that other programs keep busy; None: unknown."""

  def working() -> float:
    line = Path("/proc/stat").read_text().split("\n")[0].split()
    user, nice, system = (int(ticks) for ticks in line[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")

  try:
    before = working()
    time.sleep(seconds)
    return round((working() - before) / seconds, 2)
  except OSError:  # only Linux has it
    return None


def measured(group: ContenderGroup, sides: Sides) -> dict[str, Any]:
  """Returns seconds by round, memory, facts and errors of each contender."""
  others = busy()
  if others and others > NOISY:
    print(f"  other programs keep {others} cores busy: these figures will be wrong")
  sittings = []
  for n in range(group.patience.sittings):
    if n:
      sides.restart(*{c.side for c in group.contenders})
    sittings.append(_sitting(group, sides))
  failed = {name for sitting in sittings for name in sitting["errors"]}
  times = {
    name: [x for sitting in sittings for x in sitting["times"][name]]
    for name in sittings[0]["times"]
    if name not in failed
  }
  return {
    **group.facts,
    **sittings[0],
    "times": times,
    "errors": {k: v for sitting in sittings for k, v in sitting["errors"].items()},
    "busy": others,
    "commit": provenance.commit()[0],
    "device": sides.device(),
    "date": datetime.date.today().isoformat(),
  }


def _sitting(group: ContenderGroup, sides: Sides) -> dict[str, Any]:
  """Measures a group in the present processes."""
  facts: dict[str, dict] = {}
  errors: dict[str, str] = {}
  first: dict[str, dict] = {}
  for contender in group.contenders:
    try:
      facts[contender.name], first[contender.name] = _prepared(contender, sides)
    except WorkerError as error:
      errors[contender.name] = str(error)
  turns = Turns(sides)
  run = {
    c.name: lambda c=c: turns.seconds(c) for c in group.contenders if c.name in first
  }
  seconds = {name: call["seconds"] for name, call in first.items()}
  times = measure.rounds(run, seconds, group.patience) if run else {}
  for contender in group.contenders:
    if contender.name in first:
      sides[contender.side].drop(contender.name)
  return {
    "times": {name: [round(x, 6) for x in seconds] for name, seconds in times.items()},
    "bytes": {name: call["bytes"] for name, call in first.items()},
    "facts": facts,
    "errors": errors,
  }


def affordable(
  group: ContenderGroup, last: dict[str, tuple[int, float]]
) -> tuple[ContenderGroup, dict[str, str]]:
  """Returns the group without cases that would run for minutes, and their reasons.

  last   length and seconds of each case in its last measurement; attention takes four
         times as long for twice the length
  """
  remaining: list[Contender] = []
  left_out: dict[str, str] = {}
  for contender in group.contenders:
    L, seconds = last.get(_kind(contender), (0, 0.0))
    expected = seconds * (contender.args.get("L", 0) / L) ** 2 if L else 0.0
    if contender.case == "attention" and expected > LONGEST:
      left_out[contender.name] = f"left out: it took {seconds:.0f} s at L={L}"
    else:
      remaining.append(contender)
  return dataclasses.replace(group, contenders=tuple(remaining)), left_out


def _kind(contender: Contender) -> str:
  """Returns the name of a case without its length."""
  return f"{contender.name} {contender.args.get('backward')}"


def _prepared(contender: Contender, sides: Sides) -> tuple[dict, dict]:
  """Prepares a case and runs it once; restarts a worker that fails."""
  worker = sides[contender.side]
  try:
    facts = worker.prepare(contender.name, contender.case, **contender.args)
    return facts, worker.first(contender.name)
  except WorkerError:
    if worker.ended:
      sides.restart(contender.side)
    raise


class Store:
  """The file of raw figures: sections of groups, each replaced when measured.

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   store = Store(Path(folder, "figures.json"))
  ...   store.put("op", "L=1024", {"seconds": {"ours": [0.1]}})
  ...   list(Store(store.path).figures["sections"]["op"])
  ['L=1024']
  """

  def __init__(self, path: Path):
    self.path = path
    self.figures = read_json(path) if path.exists() else {"sections": {}}

  def put(self, section: str, name: str, group: dict[str, Any]) -> None:
    self.figures["sections"].setdefault(section, {})[name] = group
    self.save()

  def save(self) -> None:
    self.path.parent.mkdir(parents=True, exist_ok=True)
    write_json(self.path, self.figures)


def run(
  section: str, groups: Iterator[ContenderGroup], sides: Sides, store: Store
) -> None:
  """Measures a section's groups; writes each as soon as it is there."""
  last: dict[str, tuple[int, float]] = {}
  for group in groups:
    print(f"{section} {group.name} ...", flush=True)
    short, left_out = affordable(group, last)
    figures = measured(short, sides)
    figures["errors"] |= left_out
    for c in short.contenders:
      if c.name in figures["times"]:
        last[_kind(c)] = c.args.get("L", 0), min(figures["times"][c.name])
    store.put(section, group.name, figures)
    _name_devices(store.figures)
    store.figures["versions"] = store.figures.get("versions", {}) | sides.versions()
    store.save()


def _name_devices(figures: dict[str, Any]) -> None:
  """Names the device of earlier groups that lack it, before the versions change."""
  device = figures.get("versions", {}).get("ours", {}).get("device")
  if not device:
    return
  for groups in figures["sections"].values():
    for group in groups.values():
      group.setdefault("device", device)
