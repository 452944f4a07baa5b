"""Files on the heads of runs: page, JSON, CSV, Markdown, the figure of pruning."""

import csv
import dataclasses
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.heads import head_tables, heads_page
from experiments.heads.head_runs import DescribedRun, HeadSettings
from experiments.reporting.line_curves import LineChart, draw_curves
from experiments.reporting.picture import Picture
from experiments.reporting.report_table import Table, to_markdown
from experiments.reporting.style import COLORS, LINES, MARKERS, Style
from transformer_jax.training.json_files import plain, replace_file
from transformer_jax.untrusted import cell, shown


def write(
  out: Path, runs: Sequence[DescribedRun], settings: HeadSettings
) -> Iterator[str]:
  """Writes all files into a folder; yields lines for the terminal."""
  names = head_tables.names_of(runs)
  tables = every_table(runs, names)
  drawn = pruning_picture(runs)
  out.mkdir(parents=True, exist_ok=True)
  for ending, drawing in drawn.files.items() if drawn else ():
    replace_file(out / f"pruning.{ending}", drawing)
  records = [dataclasses.asdict(x) for x in head_tables.records(runs)]
  content = {"settings": dataclasses.asdict(settings), "runs": _facts(runs, names)}
  lines = heads_page.page(runs, names, drawn, _command())
  files = {
    "heads.json": json.dumps(content | {"heads": records}, indent=1) + "\n",
    "heads.csv": _csv(records),
    "heads.md": shown("\n".join(map(to_markdown, tables))),
    "heads.html": shown(lines),
  }
  for name, text in files.items():
    replace_file(out / name, text.encode())
  yield from head_tables.role_sentences(runs, names)
  yield from dict.fromkeys(note for run in runs for note in run.notes)
  yield f"page: {out / 'heads.html'}"


def every_table(runs: Sequence[DescribedRun], names: Sequence[str]) -> list[Table]:
  """Returns the tables that have rows, in the order of the page."""
  tables = [head_tables.role_table(runs, names)]
  if len(runs) > 1:
    tables += [
      head_tables.role_differences(runs, names),
      head_tables.difference_table(runs, names),
    ]
  tables += [head_tables.layer_table(runs, name) for name in names]
  similar = dict.fromkeys(name for run in runs for name in run.similarity)
  tables += [head_tables.similarity_table(runs, name) for name in similar]
  return [table for table in tables if table.rows and len(table.header) > 1]


def pruning_picture(runs: Sequence[DescribedRun]) -> Picture | None:
  """Returns the figure of the loss against the share of heads taken away."""
  chosen = [run for run in runs if run.pruning]
  if not chosen:
    return None
  curves: dict[str, Any] = {}
  guides: dict[str, Any] = {}
  for run in chosen:
    loss_SN = np.asarray(run.pruning["importance"])
    share_N = np.linspace(0, 100, loss_SN.shape[1])
    curves[run.label] = share_N, loss_SN
    guides[run.label] = share_N, np.mean(run.pruning["random"], axis=0)
  chart = LineChart(
    curves,
    x="% of heads taken away",
    y="loss in nats",
    title="Pruning without training again",
    file="pruning",
    caption="The least important heads first, by the gradient on the other half of the"
    " texts; dashed: mean of three random orders.",
    guides=guides,
    dashed="random order",
  )
  looks = {
    run.label: Style(
      COLORS[n % len(COLORS)],
      MARKERS[n % len(MARKERS)],
      LINES[n // len(COLORS) % len(LINES)],
    )
    for n, run in enumerate(chosen)
  }
  return draw_curves(chart, looks)


def _facts(runs: Sequence[DescribedRun], names: Sequence[str]) -> list[dict[str, Any]]:
  """Returns what is known of each run beside the numbers of single heads."""
  chosen = head_tables.roles(names)
  return [
    {
      "label": run.label,
      "folder": str(run.folder),
      "seeds": run.seeds,
      "tokens": run.length,
      "heads": run.heads,
      "roles": {
        name: {
          "role": x.role,
          "threshold": x.threshold,
          "by_seed": run.above(name, x.threshold).tolist(),
        }
        for name, x in chosen.items()
        if run.defined(name)
      },
      "pruning": {name: np.asarray(x).tolist() for name, x in run.pruning.items()},
      "similarity": {
        name: {
          kind: plain(np.round(mean_SHH, 4)) for kind, (mean_SHH, _) in kinds.items()
        }
        for name, kinds in run.similarity.items()
      },
      "notes": run.notes,
    }
    for run in runs
  ]


def _csv(records: Sequence[dict[str, Any]]) -> str:
  """Returns a CSV file with all digits, whose cells are no formulas."""
  out = io.StringIO()
  writer = csv.writer(out, lineterminator="\n")
  writer.writerow([x.name for x in dataclasses.fields(head_tables.HeadRecord)])
  writer.writerows([cell(x) for x in record.values()] for record in records)
  return out.getvalue()


def _command() -> str:
  return " ".join(["python -m experiments.heads", *sys.argv[1:]])
