"""Outcomes of faults: a JSON file of one tree, and the page of one tree or of two."""

import json
import pathlib
import subprocess
import threading
import time
from collections.abc import Sequence

from faults import faults


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

  def add(self, name: str, found: dict) -> None:
    with self._lock:
      self.results[name] = found
      text = json.dumps(self.facts | {"results": self.results}, indent=1) + "\n"
      self.path.write_text(text, encoding="utf-8")


def write_page(path: pathlib.Path, records: Sequence[Record]) -> None:
  """Writes the page; of two records the first is that of the tree before a change."""
  last, several = records[-1], len(records) > 1
  known = faults()
  rows = []
  for fault in known:
    found = [record.results.get(fault.name, {}) for record in records]
    cells = [fault.room, fault.name, f"`{pathlib.Path(fault.file).name}`"]
    cells += [one.get("state", "not run") for one in found[:-1]]
    rows.append([*cells, _shown(found[-1])])
  header = ["room", "fault", "file", *(["before"] if several else []), "caught by"]
  where = " and ".join(f"{r.facts['commit']} ({r.facts['date']})" for r in records)
  states = [last.results.get(fault.name, {}).get("state") for fault in known]
  lines = [
    "# Deliberate faults",
    "",
    "Written by `python tools/mutations/run.py page`; do not edit. Each fault is put"
    " into a copy of the code by itself, and the quick tests are run up to the first"
    " that fails.",
    "",
    f"{states.count('caught')} of {len(known)} faults are caught, at commit {where}.",
    "",
    "| " + " | ".join(header) + " |",
    "|" + " --- |" * len(header),
    *("| " + " | ".join(x.replace("|", "\\|") for x in row) + " |" for row in rows),
  ]
  path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _shown(found: dict) -> str:
  """Returns the test that caught a fault, or what became of it instead."""
  if found.get("state") != "caught":
    return f"**{found.get('state', 'not run')}**"
  file, _, test = found["test"].partition("::")
  return f"`{pathlib.PurePosixPath(file).name}::{test}`" if test else f"`{file}`"
