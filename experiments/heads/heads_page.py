"""The page on the heads of runs: maps of layers by heads, tables, texts of heads."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe
import numpy as np

from experiments.heads import head_tables
from experiments.heads.head_runs import DescribedRun, shown_layers
from experiments.heads.head_tables import HeadRecord
from experiments.reporting import html_page, style, text
from experiments.reporting.picture import Picture

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(
  runs: Sequence[DescribedRun],
  names: Sequence[str],
  pruning: Picture | None,
  command: str,
) -> str:
  """Returns one self-contained HTML page, without scripts.

  names     statistics and importances that some run has
  pruning   figure of pruning; None: it was not measured
  command   that makes the page
  """
  found = head_tables.by_head(runs)
  several = len(runs) > 1
  template = html_page.environment().get_template("heads.html")
  return template.render(
    policy=markupsafe.Markup(POLICY),
    colors=list(zip(style.COLORS, style.ON_DARK, strict=True)),
    runs=runs,
    command=command,
    sentences=head_tables.role_sentences(runs, names),
    roles=head_tables.role_table(runs, names),
    gaps=[
      head_tables.role_differences(runs, names),
      head_tables.difference_table(runs, names),
    ]
    if several
    else [],
    statistics=[
      {
        "name": text.measure_name(name),
        "words": head_tables.words(name),
        "table": head_tables.layer_table(runs, name),
        "maps": maps(runs, name, found),
      }
      for name in names
    ],
    similarities=similarities(runs),
    pruning=pruning,
    texts=[(run.label, examples(run)) for run in runs if run.texts],
    notes=dict.fromkeys(note for run in runs for note in run.notes),
  )


def maps(
  runs: Sequence[DescribedRun], name: str, found: Mapping[tuple, HeadRecord]
) -> list[dict[str, Any]]:
  """Returns a map of layers by heads for each run and seed of a statistic."""
  limits = head_tables.bounds(name)
  sizes = [abs(x.mean) for x in found.values() if x.statistic == name]
  largest = limits[1] if limits[1] is not None else max(sizes, default=1.0)
  return [
    {
      "run": run.label,
      "seeds": [_map(run, name, seed, found, largest or 1.0) for seed in run.seeds],
    }  # fmt: skip
    for run in runs
    if run.defined(name)
  ]


def _map(run, name, seed, found, largest) -> dict[str, Any]:
  paths = shown_layers(run, name)
  heads = sorted({head for path in paths for head in run.heads[path]})
  return {
    "seed": seed,
    "heads": heads,
    "rows": [
      (
        head_tables.short_name(path),
        [_cell(found.get((run.label, seed, name, path, h)), largest) for h in heads],
      )
      for path in paths
    ],
  }


def _cell(record: HeadRecord | None, largest: float) -> dict[str, Any]:
  """Returns a cell of a map: its text, shade from 0 to 1, and interval over texts."""
  if record is None:
    return {"text": "–", "shade": 0, "hint": "no text has a number"}
  digits = 2 if largest >= 0.1 else 3
  interval = ""
  if record.low is not None and record.high is not None:
    interval = f", 95% over texts {text.number(record.low)} to"
    interval += f" {text.number(record.high)}"
  return {
    "text": text.number(record.mean, digits if largest < 10 else 1),
    "shade": round(min(1.0, max(0.0, record.mean / largest)), 3),
    "hint": f"{record.layer}:{record.head}: {text.number(record.mean)}{interval}",
  }


def similarities(runs: Sequence[DescribedRun]) -> list[dict[str, Any]]:
  """Returns the table and the maps of heads by heads of each similarity."""
  names = dict.fromkeys(name for run in runs for name in run.similarity)
  return [
    {
      "name": text.measure_name(name),
      "words": _words(name),
      "table": head_tables.similarity_table(runs, name),
      "maps": [
        {
          "run": f"{run.label}, {kind}, seed {run.seeds[0]}",
          "image": image(mean_SHH[0]),
        }
        for run in runs
        for kind, (mean_SHH, _) in run.similarity.get(name, {}).items()
      ],
    }
    for name in names
  ]


def _words(name: str) -> str:
  from transformer_jax.analysis import head_similarities

  paragraphs = (head_similarities[name].__doc__ or "").split("\n\n")
  return " ".join(" ".join(x for x in paragraphs if ">>>" not in x).split())


def examples(run: DescribedRun) -> list[dict[str, Any]]:
  """Returns the texts of each head of a run, as the page shows them."""
  return [
    {
      "head": f"{head_tables.short_name(path)}, head {head}",
      "texts": [
        {
          "image": image(x.weight_LM),
          "query": x.query,
          "tokens": [
            (piece, round(float(min(1, w)), 3), place == x.place)
            for place, (piece, w) in enumerate(zip(x.pieces, x.weight_M, strict=True))
          ],
          "strongest": x.strongest,
          "weight": text.number(float(x.weight_M.max()), 2),
        }
        for x in texts
      ],
    }
    for (path, head), texts in run.texts.items()
  ]


def image(x_LM: np.ndarray) -> str:
  """Returns a PNG of numbers from 0 (light) to 1 (dark) as a data URI."""
  from matplotlib.image import imsave

  out = io.BytesIO()
  x_LM = np.nan_to_num(np.asarray(x_LM, float))
  imsave(out, x_LM, cmap="Blues", vmin=0, vmax=1, format="png")
  return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
