"""First screen of the page: how sure the answers are, and what makes them surer."""

import math
from collections.abc import Sequence

from scipy import stats

from experiments.reporting import budget, sampling, scored_examples
from experiments.reporting.findings import Comparison, Findings
from experiments.reporting.loaded_run import LoadedRun
from experiments.reporting.sampling import OPEN, RESOLVED
from experiments.reporting.statistics import LEVEL
from experiments.reporting.text import listed


def overview(findings: Findings) -> list[tuple[str, list[str]]]:
  """Returns (question, sentences) that stand beside the answers."""
  return [
    ("How sure is that?", sure(findings)),
    ("What would make it surer?", surer(findings)),
    ("What was not tuned or matched?", unequal(findings)),
  ]


def main(findings: Findings, group: str) -> list[list[Comparison]]:
  """Returns the comparisons of a group's main table, one list for each length."""
  if not findings.lengths(group):
    return []
  return [findings.cell(cell) for cell in findings.main(group)]


def sure(findings: Findings) -> list[str]:
  """Returns a sentence for each group: its verdicts, seeds and scored examples."""
  lines: dict[str, list[str]] = {}
  for group in findings.sweep.groups:
    runs = [run for run in findings.sweep.of(group) if run.result]
    if not runs:
      continue
    every = (*findings.comparisons, *findings.pairs)
    judged = [c.verdict for c in every if c.group == group]
    resolved = sum(verdict in RESOLVED for verdict in judged)
    among = resolved + judged.count(OPEN)
    parts = [f"{resolved} of {among} comparisons are resolved"] if among else []
    parts.append(f"{_seeds(runs)} a variant")
    if scored := budget.by_value(runs, budget.examples):
      parts.append(f"{scored} examples scored at each length")
    lines.setdefault("; ".join(parts), []).append(group)
  texts = [f"{listed(groups)}: {text}." for text, groups in lines.items()]
  texts += sampling.sentences(findings)
  planned = [run for run in findings.sweep.runs if not run.again_of]
  missing = len(planned) - len(findings.finished)
  lost = sum(len(run.fact("diverged") or {}) for run in findings.finished)
  if missing:
    texts.append(f"{missing} planned runs have no result.")
  if lost:
    texts.append(f"{lost} seeds diverged and are in no verdict.")
  return texts or ["No run has finished."]


def surer(findings: Findings) -> list[str]:
  """Returns the cost of twice the seeds, and the width of intervals with them."""
  done = findings.finished
  if not done:
    return ["The first finished run will tell what a seed costs."]
  if findings.looks:
    return _next_look(findings)
  seeds = max(len(run.fact("seeds")) for run in done)
  seconds = sum(sum((run.fact("seconds") or {}).values()) for run in done)
  texts = []
  if seconds:
    texts.append(
      f"Twice the seeds, {2 * seeds} instead of {seeds}, cost about as much again:"
      f" {duration(seconds)} of computing on one worker of this machine"
      f" ({duration(seconds / seeds)} a seed for all {len(done)} runs)."
    )
  groups = findings.sweep.groups
  few = [group for group in groups if scored_examples.needed(findings, group)]
  if few:
    texts.append(
      f"{listed(few)}: more scored examples before more seeds, since the test set's"
      " standard error is more than a third of the seeds'."
    )
  elif seeds > 1:
    ratio = _half(2 * seeds) / _half(seeds)
    texts.append(
      f"Intervals would be about {ratio:.2f} times as wide, if the new seeds vary like"
      " the old ones."
    )
  else:
    texts.append("One seed has no interval: nothing is resolved without a second.")
  if findings.sweep.command and "--config.seeds" not in findings.sweep.command:
    there = max((run.fact("seeds") for run in done), key=len)
    more = [*there, *range(max(there) + 1, max(there) + 1 + len(there))]
    texts.append(f"Run it with --config.seeds='({', '.join(map(str, more))})'.")
  return texts


def _seeds(runs: Sequence[LoadedRun]) -> str:
  """Returns "3 seeds", or "3 to 20 seeds" where runs have unequal numbers."""
  counts = sorted({len(run.fact("seeds")) for run in runs})
  ends = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
  return f"{ends} seed{'s' * (counts[-1] != 1)}"


def _next_look(findings: Findings) -> list[str]:
  """Returns what a sweep with looks does next, and what no seeds of it will."""
  assert findings.looks is not None
  state, texts = sampling.outlook(findings), []
  if state.open:
    texts.append(
      f"{len(state.open)} comparisons have a further look; the command of the sweep"
      " with --until=resolved continues."
    )
  if state.futile or state.exhausted:
    texts.append(
      f"Verdicts have no look after {findings.looks.counts[-1]} seeds. A sweep with a"
      " larger --max_seeds in another folder has; so do fewer primary comparisons, or a"
      " margin of equivalence."
    )
  if not state.count:
    return ["The first look tells which comparisons get seeds."]
  return texts or ["Every tested comparison is resolved."]


def _half(seeds: int) -> float:
  """Returns half the width of a t interval of a mean over seeds of unit spread."""
  return float(stats.t.ppf((1 + LEVEL) / 2, seeds - 1)) / math.sqrt(seeds)


def duration(seconds: float) -> str:
  """Returns 40 s, 12 min or 3.5 h."""
  if seconds < 90:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def unequal(findings: Findings) -> list[str]:
  """Returns a sentence on tuning and one on matching, for groups that share it."""
  lines: dict[str, list[str]] = {}
  trained = [
    group
    for group in findings.sweep.groups
    if not any(run.again_of for run in findings.sweep.of(group))
  ]
  for group in trained:
    runs = [run for run in findings.sweep.of(group) if run.config]
    done = [run for run in runs if run.result]
    if tuned := budget.tuned(runs):
      lines.setdefault(f"tuned: {tuned}", []).append(group)
    if matched := budget.matched(done):
      lines.setdefault(f"matched: {matched}", []).append(group)
  return [
    f"{text[0].upper()}{text[1:]}."
    if groups == trained
    else f"{listed(groups)}, {text}."
    for text, groups in lines.items()
  ] or ["No config was recorded."]
