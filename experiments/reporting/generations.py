"""Generated texts in a report: baseline scores, samples, an attention map."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.reporting import picture, return_curves, style
from experiments.reporting.findings import Findings
from experiments.reporting.line_curves import LineChart, draw_curves
from experiments.reporting.loaded_run import LoadedRun
from experiments.reporting.picture import Numbers, Picture
from experiments.reporting.style import FONT, INK
from experiments.reporting.summary import ranking
from experiments.reporting.text import listed, measure_name

MAP_TOKENS = 40  # tokens of a text in a map that can still be read


def writers(findings: Findings, group: str) -> list[LoadedRun]:
  """Returns the finished runs of a group that generated texts."""
  return [run for run in findings.sweep.of(group) if run.fact("written")]


def floor_notes(findings: Findings, group: str) -> tuple[str, ...]:
  """Returns notes on baseline scores, runs below them, and how scores were computed."""
  runs = writers(findings, group)
  if not runs:
    return ()
  facts = runs[0].fact("written")
  notes_of = return_curves.notes if facts.get("kind") == "rollouts" else _text_notes
  return tuple(notes_of(runs, facts))


def _text_notes(runs: list[LoadedRun], facts: dict[str, Any]) -> list[str]:
  """Returns notes on the baselines of texts, and how BLEU was computed.

  facts   those of the first run, which are those of all but for its scores
  """
  from transformer_jax.evaluation.generation_eval import GenerationEval

  floors = facts["floors"].items()
  words = facts.get("baselines", GenerationEval.baselines)
  by_measure = (
    f"{measure} {listed([f'{name} {scores[measure]:.1f}' for name, scores in floors])}"
    for measure in next(iter(facts["floors"].values()), ())
  )
  notes = [
    f"Trivial baselines: {'; '.join(by_measure)}"
    f" ({'; '.join(f'{name}: {text}' for name, text in words.items())})."
  ]
  notes = notes if floors else []
  below = [run.label for run in runs if any(run.fact("written")["below"])]
  if below:
    made = facts.get("made", GenerationEval.made)
    notes.append(
      f"At or below a trivial baseline, which is no {made}, in one seed or more:"
      f" {listed(below)}."
    )
  margins = [values[0] for run in runs for values in run.fact("written")["margins"]]
  margins = [margin for margin in margins if margin is not None]
  if margins:
    notes.append(
      f"The choice of test sentences moves one seed's score by ± {min(margins):.1f} to"
      f" {max(margins):.1f} (95%, bootstrap)."
    )
  notes.append(
    f"{facts['texts']:,} texts by {facts['search']}: {', '.join(facts['signatures'])}"
  )
  return notes


def samples(findings: Findings, group: str) -> Iterator[tuple[str, str]]:
  """Yields (name, text): each source, its reference, and each variant's generation."""
  runs = writers(findings, group)
  shown = runs[0].fact("written")["samples"] if runs else ()
  for n, (source, reference, _) in enumerate(shown):
    yield f"{n + 1}. source", source
    yield "reference", reference
    for run in runs:
      yield run.label, run.fact("written")["samples"][n][2]


def length_scores(findings: Findings, group: str) -> Picture | None:
  """Draws scores by the words of a source, as Bahdanau et al., 2015, figure 2.

  Runs that were scored before this was recorded are left out.
  """
  facts = {run.label: run.fact("written") for run in writers(findings, group)}
  curves, ticks, measure = {}, {}, ""
  for label in style.leading(findings, group):
    written = facts.get(label) or {}
    whole = [x for x in written.get("by_length") or () if x]
    if not whole or len(written["lengths"]) < 2:
      continue
    measure = next(iter(whole[0][0]))
    score_SX = [[float(each[measure]) for each in seed] for seed in whole]
    curves[label] = range(len(score_SX[0])), score_SX
    ticks = {
      x: f"{here['first']}-{here['last']}\n{here['texts']}"
      for x, here in enumerate(written["lengths"])
    }
  if not curves:
    return None
  measure = measure_name(measure)
  caption = f"{measure} by the words of the source; below, the number of texts."
  chart = LineChart(
    curves,
    x="words of the source, and number of texts",
    y="higher is better",
    title=f"{group}: {measure} by length of the source",
    file=picture.file_name("source_lengths", group),
    caption=caption,
    ticks=ticks,
  )
  return draw_curves(chart, style.styles(findings))


def attention_map(findings: Findings, group: str) -> Picture | None:
  """Draws the cross-attention weights of the best variant, in one text."""
  maps = {run.label: run.fact("written").get("map") for run in writers(findings, group)}
  trained = findings.trained(group)
  if not maps or trained is None:
    return None
  best = ranking(findings.at(group, trained), findings.sweep.baseline)
  label = next((c.label for c in best if maps.get(c.label)), None)
  if label is None:
    return None
  weight_LM = np.array(maps[label]["weights_LM"])[:MAP_TOKENS, :MAP_TOKENS]
  source, output = (maps[label][side][:MAP_TOKENS] for side in ("source", "found"))
  figure = _draw(weight_LM, source, output)
  title = f"{group}: cross-attention of {label}"
  subtitle = "row: generated token; column: source token; darker: more weight"
  style.heading(figure.axes[0], title, subtitle)
  caption = (
    f"Cross-attention weights of {label} between a source and the first seed's"
    " translation, the mean over the heads of the last layer."
  )
  numbers = Numbers(
    ("generated", "token", "source", "source_token", "weight"),
    [
      (n, output[n], m, source[m], float(weight))
      for (n, m), weight in np.ndenumerate(weight_LM)
    ],
  )
  file = picture.file_name("map", group)
  return picture.finish(figure, file, title, caption, numbers)


def _draw(weight_LM: np.ndarray, source: list[str], output: list[str]):
  """Returns a figure with one square for each weight, the largest in full ink.

  weight_LM        attention of generated token L to source token M
  source, output   their tokens as text
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.colors import to_rgba
  from matplotlib.figure import Figure

  L, M = weight_LM.shape
  figure = Figure(figsize=(1.5 + 0.3 * M, 1.8 + 0.3 * L))
  FigureCanvasAgg(figure)
  ax = figure.subplots()
  ink_LMC = np.zeros((L, M, 4)) + to_rgba(style.COLORS[0])
  ink_LMC[..., 3] = weight_LM / weight_LM.max()
  for n in range(L):
    ax.bar(np.arange(M), 0.94, 0.94, bottom=n - 0.47, color=ink_LMC[n], linewidth=0)
  ax.set_xlim(-0.5, M - 0.5)
  ax.set_ylim(L - 0.5, -0.5)
  ax.set_aspect("equal")
  ax.set_facecolor("none")
  ax.set_xticks(range(M), _shown(source), rotation=90)
  ax.set_yticks(range(L), _shown(output))
  ax.tick_params(colors=INK, labelsize=FONT - 3, length=0)
  for spine in ax.spines.values():
    spine.set_visible(False)
  return figure


def _shown(tokens: list[str]) -> list[str]:
  """Returns tokens with an underscore for the space that begins a word."""
  return [token.replace("\u2581", "_") for token in tokens]
