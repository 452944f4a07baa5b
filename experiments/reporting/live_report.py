"""A report that follows a running sweep, kept in memory; the folder is only read."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.reporting import comparisons, figures, html_page, ladder_curves
from experiments.reporting import picture as pictures
from experiments.reporting.load import ReportError
from experiments.runner.sweep_progress import progress
from transformer_jax.training.json_files import plain
from transformer_jax.untrusted import shown

EVERY = 10.0  # seconds between two reports, at least
SHARE = 5  # a report takes at most one part in so many of the time
FRESH = 1.0  # seconds for which one reading of the folder serves all readers
NOTHING = "No run has finished yet. The report comes with the first."
STAMPED = ("runs/*/result.json", "runs/*/evaluations/*/result.json")


class LiveReport:
  """The page of a sweep, and its progress.

  workdir   folder of the sweep; it may not be there yet
  every     seconds between two reports, at least
  number    of reports so far
  page      the newest page, as HTML

  >>> report = LiveReport(Path("no/such/sweep"))
  >>> report.renew()
  True
  >>> report.number, "no sweep.json" in report.page
  (1, True)
  """

  def __init__(self, workdir: Path, every: float = EVERY):
    self.workdir, self.every = workdir, every
    self._note = "the report is on its way"
    # Both at once: a reader must not get the page of one and the number of another.
    self._newest = 0, html_page.page_alone("The report is on its way.", live=0)
    self._stamp: object = None
    self._lock = threading.Lock()
    self._asked, self._progress = float("-inf"), dict[str, Any]()

  @property
  def number(self) -> int:
    return self._newest[0]

  @property
  def page(self) -> str:
    return self._newest[1]

  def progress(self) -> dict[str, Any]:
    """Returns the sweep's progress, the number of the report, and a note on it."""
    with self._lock:
      now = time.monotonic()
      if now - self._asked >= FRESH:
        self._progress, self._asked = plain(progress(self.workdir)), now
      return self._progress | {"report": self.number, "report_note": self._note}

  def renew(self) -> bool:
    """Writes the page again if a run has ended since; returns whether it did."""
    now = progress(self.workdir)
    failed = [(run["id"], run["attempts"]) for run in now["failed"]]
    stamp = now["planned"], now["done"], failed, _stamps(self.workdir)
    if stamp == self._stamp:
      return False
    self._note = "a new report is on its way"
    number = self.number + 1
    self._newest = number, self._text(number, now)
    self._stamp, self._note = stamp, ""
    return True

  def _text(self, number: int, now: Mapping[str, Any]) -> str:
    """Returns the page; without a report, the reason instead."""
    if now["planned"] and not now["done"]:
      return html_page.page_alone(NOTHING, number, now["question"])
    try:
      return _live_page(self.workdir, number)
    except ReportError as error:
      return shown(html_page.page_alone(str(error), number))
    except Exception as error:  # the page goes on showing the progress
      words = f"No report: {type(error).__name__}: {error}"
      return shown(html_page.page_alone(words, number))

  def follow(self, wait: Callable[[float], Any]) -> None:
    """Renews the page again and again, until `wait(seconds)` returns True."""
    pause = 0.0
    while not wait(pause):
      start = time.monotonic()
      self.renew()
      pause = max(self.every, SHARE * (time.monotonic() - start))


def _stamps(workdir: Path) -> list[tuple[str, int, int]]:
  """Returns name, time and size of the files that the report's numbers come from."""
  files = [workdir / "sweep.json", *(x for name in STAMPED for x in workdir.glob(name))]
  found = [(path, _stat(path)) for path in sorted(files)]
  return [(str(path), x.st_mtime_ns, x.st_size) for path, x in found if x]


def _stat(path: Path) -> os.stat_result | None:
  try:
    return path.stat()
  except OSError:
    return None


def _live_page(workdir: Path, number: int) -> str:
  findings = comparisons.find(workdir)
  ladders = ladder_curves.ladders(findings)
  with pictures.for_page_alone():
    drawn, risen = figures.draw(findings, ladders)
  rising = [html_page.ladder_part(fits, risen[fits.name]) for fits in ladders]
  return shown(html_page.page(findings, drawn, rising, live=number))
