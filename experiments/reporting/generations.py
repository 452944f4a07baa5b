"""What a report says of texts that models wrote: floors, samples, a map."""

from collections.abc import Iterator

import numpy as np

from experiments.reporting import style
from experiments.reporting.comparisons import Findings
from experiments.reporting.load import Run
from experiments.reporting.style import FONT, INK, Picture
from experiments.reporting.summary import ranking
from experiments.reporting.text import listed

LONG = 40  # pieces of a text, above which a map cannot be read


def writers(findings: Findings, group: str) -> list[Run]:
  """Returns the finished runs of a group that wrote texts."""
  return [run for run in findings.sweep.of(group) if run.fact("written")]


def floor_notes(findings: Findings, group: str) -> tuple[str, ...]:
  """Says what a score must beat, who does not, and how it was computed."""
  runs = writers(findings, group)
  if not runs:
    return ()
  facts = runs[0].fact("written")
  floors = facts["floors"].items()
  by_measure = (
    f"{measure} {listed([f'{name} {own[measure]:.1f}' for name, own in floors])}"
    for measure in next(iter(facts["floors"].values()))
  )
  notes = [
    f"Floors: {'; '.join(by_measure)} (copy: the source itself; nearest: the target of"
    " the training source most like it)."
  ]
  below = [run.label for run in runs if any(run.fact("written")["below"])]
  if below:
    notes.append(
      f"A score at or below a floor is no translation, in one seed or more:"
      f" {listed(below)}."
    )
  margins = [row[0] for run in runs for row in run.fact("written")["margins"]]
  margins = [margin for margin in margins if margin is not None]
  if margins:
    notes.append(
      f"Which sentences are scored leaves ± {min(margins):.1f} to {max(margins):.1f} of"
      " one seed's score (95%, resampled)."
    )
  notes.append(
    f"{facts['texts']:,} texts by {facts['search']}: {', '.join(facts['signatures'])}"
  )
  return tuple(notes)


def samples(findings: Findings, group: str) -> Iterator[tuple[str, str]]:
  """Yields (who, text): each source, its reference, and what each variant wrote."""
  runs = writers(findings, group)
  shown = runs[0].fact("written")["samples"] if runs else ()
  for n, (source, reference, _) in enumerate(shown):
    yield f"{n + 1}. source", source
    yield "reference", reference
    for run in runs:
      yield run.label, run.fact("written")["samples"][n][2]


def attention_map(findings: Findings, group: str) -> Picture | None:
  """Draws what the best of the variants that look back looked at in one text."""
  maps = {run.label: run.fact("written")["map"] for run in writers(findings, group)}
  trained = findings.trained(group)
  rows = findings.at(group, trained)
  best = ranking(rows, findings.sweep.baseline) if maps else ()
  label = next((row.label for row in best if maps.get(row.label)), None)
  if label is None:
    return None
  source, found, weight_LM = (maps[label][x] for x in ("source", "found", "weights_LM"))
  drawn = np.array(weight_LM)[:LONG, :LONG]
  figure = _draw(drawn, source[:LONG], found[:LONG])
  title = f"{group}: what {label} looked at"
  subtitle = "row: the piece it wrote; column: the source; darker: more weight"
  style.heading(figure.axes[0], title, subtitle)
  caption = (
    f"Weights of {label} between a source and what the first seed wrote, the mean over"
    " heads of the last layer."
  )
  return style.finish(figure, style.file_name("map", group), title, caption)


def _draw(weight_LM: np.ndarray, source: list[str], found: list[str]):
  """Returns a figure with one square for each weight, the largest being full ink."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.colors import to_rgba
  from matplotlib.figure import Figure

  L, M = weight_LM.shape
  figure = Figure(figsize=(1.5 + 0.3 * M, 1.8 + 0.3 * L))
  FigureCanvasAgg(figure)
  ax = figure.subplots()
  ink_LMC = np.zeros((L, M, 4)) + to_rgba(style.COLORS[0])
  ink_LMC[..., 3] = weight_LM / weight_LM.max()
  for row in range(L):
    ax.bar(np.arange(M), 0.94, 0.94, bottom=row - 0.47, color=ink_LMC[row], linewidth=0)
  ax.set_xlim(-0.5, M - 0.5)
  ax.set_ylim(L - 0.5, -0.5)
  ax.set_aspect("equal")
  ax.set_facecolor("none")
  ax.set_xticks(range(M), _shown(source), rotation=90)
  ax.set_yticks(range(L), _shown(found))
  ax.tick_params(colors=INK, labelsize=FONT - 3, length=0)
  for spine in ax.spines.values():
    spine.set_visible(False)
  return figure


def _shown(pieces: list[str]) -> list[str]:
  """Returns pieces with a low line for the space that begins a word."""
  return [piece.replace("\u2581", "_") for piece in pieces]
