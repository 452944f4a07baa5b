"""Outcomes of faults: a JSON file of one tree, and the page of one tree or of two."""

import itertools
import json
import pathlib
import subprocess
import threading
import time
from collections.abc import Sequence

from faults import Fault, faults


class Record:
  """Outcomes by name of the fault, in a JSON file that is written after each."""

  def __init__(self, path: pathlib.Path):
    self.path, self._lock = path, threading.Lock()
    there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    self.facts = {name: there.get(name, "") for name in ("date", "commit")}
    self.results: dict[str, dict] = there.get("results", {})

  def began(self, tree: pathlib.Path) -> None:
    """Notes the date and the commit of a tree."""
    show = ["git", "-C", str(tree), "rev-parse", "--short=10", "HEAD"]
    commit = subprocess.run(show, capture_output=True, text=True, check=False).stdout
    self.facts = {"date": time.strftime("%Y-%m-%d"), "commit": commit.strip()}

  def add(self, name: str, outcome: dict) -> None:
    with self._lock:
      self.results[name] = outcome
      text = json.dumps(self.facts | {"results": self.results}, indent=1) + "\n"
      self.path.write_text(text, encoding="utf-8")


def write_page(path: pathlib.Path, records: Sequence[Record]) -> None:
  """Writes the page; of two records the first is that of the tree before a change."""
  known = faults()
  lines = [
    "# Deliberate faults",
    "",
    "Written by `python tools/mutations/run.py page`, whose folder has the faults: each"
    " is put into a copy of the code by itself, and the quick tests are run up to the"
    " first that fails.",
    "",
    *(f"{_counts(record, known)}" for record in records),
  ]
  if len(records) > 1:
    lost = [x.name for x in known if [_state(r, x) for r in records] == LOST]
    lines += ["", f"Caught before and not after: {', '.join(lost) or 'none'}."]
  for room, some in itertools.groupby(known, lambda fault: fault.room):
    lines += ["", f"## {room}", "", *_table(list(some), records)]
  path.write_text("\n".join(lines) + "\n", encoding="utf-8")


LOST = ["caught", "survived"]


def _state(record: Record, fault: Fault) -> str:
  return record.results.get(fault.name, {}).get("state", "not run")


def _counts(record: Record, known: Sequence[Fault]) -> str:
  """Returns a line on how many faults a tree catches."""
  caught = sum(_state(record, fault) == "caught" for fault in known)
  date, commit = record.facts["date"], record.facts["commit"]
  return f"- {caught} of {len(known)} faults are caught at commit {commit} ({date})"


def _table(some: Sequence[Fault], records: Sequence[Record]) -> list[str]:
  """Returns the lines of a room's table: faults, and the test that caught each."""
  *earlier, last = records
  header = ["fault", "file", *("before" for _ in earlier), "caught by"]
  rows = [
    [
      fault.name,
      f"`{pathlib.Path(fault.file).name}`",
      *(_state(record, fault) for record in earlier),
      _shown(last.results.get(fault.name, {})),
    ]
    for fault in some
  ]
  cells = [header, ["---"] * len(header), *rows]
  return ["| " + " | ".join(x.replace("|", "\\|") for x in row) + " |" for row in cells]


def _shown(outcome: dict) -> str:
  """Returns the test that caught a fault, or what became of it instead."""
  if outcome.get("state") != "caught":
    return f"**{outcome.get('state', 'not run')}**"
  file, _, test = outcome["test"].partition("::")
  return f"`{pathlib.PurePosixPath(file).name}::{test}`" if test else f"`{file}`"
