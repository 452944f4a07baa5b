"""Tables of runs: their cost, what has no result, samples of what they write."""

from typing import Any

from experiments.reporting import generations
from experiments.reporting.findings import Findings
from experiments.reporting.report_table import Table
from experiments.reporting.text import count, listed


def samples_table(findings: Findings, group: str) -> Table:
  """Returns some sources with their references and each variant's generations."""
  title = f"{group}: texts from the shortest to the longest, by the first seed"
  rows = tuple(generations.samples(findings, group))
  return Table(f"samples_{group}", title, ("", "text"), rows, folds=(0, 1))


def cost_table(findings: Findings) -> Table:
  """Returns parameters, FLOPs, memory, speed and attention core of each result."""
  rows: list[tuple[str, ...]] = []
  notes: dict[str, list[str]] = {}
  for run in findings.finished:
    seconds = run.fact("seconds") or {}
    peak = run.fact("peak_bytes")
    rows.append(
      (
        run.label,
        run.group,
        count(run.fact("parameters")),
        count(run.fact("position_parameters")),
        count(run.fact("flops_per_token")),
        count(run.fact("tokens_per_s")),
        "–" if not peak else f"{peak / 2**20:,.0f}",
        *(_seconds(seconds.get(name)) for name in ("compile", "train", "evaluate")),
        str(run.fact("core") or "–"),
      )
    )
    for core, reason in (run.fact("core_refusals") or {}).items():
      notes.setdefault(f"{core} refused: {reason}", []).append(run.label)
  header = (
    "variant",
    "group",
    "parameters",
    "of position",
    "FLOPs/token",
    "tokens/s",
    "peak MiB",
    "compile s",
    "train s",
    "evaluate s",
    "attention",
  )
  lines = (f"{listed([*dict.fromkeys(runs)])}: {x}" for x, runs in notes.items())
  return Table("cost", "Cost of each run", header, tuple(rows), tuple(lines))


def trouble_table(findings: Findings) -> Table:
  """Returns every run, seed and length without a result, with the reason."""
  rows = [
    (run.label, run.group, state, details, str(run.attempts or "–"), run.id)
    for run, state, details in findings.troubled
  ]
  header = ("variant", "group", "state", "details", "attempts", "run")
  title = "Failed, diverged, undefined"
  return Table("trouble", title, header, tuple(rows), folds=(0, 3))


def _seconds(value: Any) -> str:
  return f"{value:.1f}" if isinstance(value, int | float) else "–"
