"""Page on whether attention explains a classifier: Markdown, JSON and a figure."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.explain import explanation_figure
from experiments.explain.explaining import ExplainSettings, ExplanationStudy
from experiments.reporting.crossed import interval, seed_pairs
from experiments.reporting.statistics import UNBOUNDED, Bounds, Estimate
from experiments.reporting.text import plus_minus
from transformer_jax.training.json_files import plain
from transformer_jax.untrusted import shown

PAGE, NUMBERS = "explanation.md", "explanation.json"
TEXTS, WORDS = 4, 5  # examples on the page, and words of each
LOG2 = float(np.log(2))
NO_SPREAD = "two seeds are one pair, which has no spread: train three or more"
# Measures in the order of the page: {name: (sentence, least, largest value)}.
ROWS = {
  "right": ("accuracy", 0, 1),
  "uniform_right": ("accuracy with equal weights, not retrained", 0, 1),
  "largest": ("largest share of a text", 0, 1),
  "tau_gradient": ("Kendall's tau: attention, gradient × (input − mean)", -1, 1),
  "significant_gradient": ("... share of texts with p < 0.05", 0, 1),
  "tau_leave_one_out": ("Kendall's tau: attention, leave-one-out", -1, 1),
  "significant_leave_one_out": ("... share of texts with p < 0.05", 0, 1),
  "tau_between": ("Kendall's tau: gradient × (input − mean), leave-one-out", -1, 1),
  "permuted": ("output moved by permuted weights, median (TVD)", 0, 1),
  "uniform": ("output moved by equal weights (TVD)", 0, 1),
  "uniform_shift": ("equal weights from the model's (JSD)", 0, LOG2),
  "adversarial": ("adversarial weights from the model's (JSD)", 0, LOG2),
  "found": ("... share of texts with any", 0, 1),
  "adversarial_moved": ("output moved by them (TVD)", 0, 1),
  "seeds": ("another seed's weights from the model's (JSD)", 0, LOG2),
  "seeds_moved": ("another seed's output from the model's (TVD)", 0, 1),
}
OF_PAIRS = {"seeds", "seeds_moved"}  # rows of pairs of seeds


def write(
  folder: Path,
  study: ExplanationStudy,
  settings: ExplainSettings,
  tokenizer: Any,
  name: str,
) -> str:
  """Writes page, numbers and figure; returns the page.

  folder      is made
  study       what was measured
  settings    its settings
  tokenizer   of the run
  name        of the run
  """
  folder.mkdir(parents=True, exist_ok=True)
  estimates = {
    row: _estimate(study.value_SE, row) for row in ROWS if row in study.value_SE
  }
  gap = _gap(study)
  text = _page(study, settings, tokenizer, name, estimates, gap)
  picture = explanation_figure.draw(study)
  for kind, content in picture.files.items():
    (folder / f"{picture.name}.{kind}").write_bytes(content)
  numbers = {
    "run": name,
    "layer": study.path,
    "settings": dataclasses.asdict(settings),
    "measures": {row: _json(each) for row, each in estimates.items()},
    "adversarial_minus_seeds": _json(gap) if gap else None,
    "by_text": {row: plain(np.round(x_SE, 6)) for row, x_SE in study.value_SE.items()},
  }
  (folder / NUMBERS).write_text(json.dumps(numbers, indent=1), encoding="utf-8")
  (folder / PAGE).write_text(text, encoding="utf-8")
  return text


def verdict(gap: Estimate | None) -> str:
  """Returns what adversarial weights say beside those of other seeds.

  gap   divergence of adversarial weights minus that of other seeds'; None: one seed

  >>> verdict(Estimate(0.3, 0.2, 0.4, 3)).partition(":")[0]
  'Adversarial weights lie farther from the model than those of another seed'
  """
  if gap is None or gap.mean is None:
    return (
      "One seed has no other to compare with: train several, since only their spread"
      " tells whether adversarial weights are far away (Wiegreffe and Pinter, 2019)."
    )
  if gap.interval is None:
    return (
      f"Not resolved: {gap.mean:+.3f} nats between adversarial weights and those of"
      f" another seed; there is no interval: {gap.note}."
    )
  low, high = gap.interval
  by = f"by {plus_minus(gap, sign=True)} nats"
  if low > 0:
    return (
      "Adversarial weights lie farther from the model than those of another seed:"
      f" {by}. Weights that no training gave have the same output."
    )
  if high < 0:
    return (
      "Adversarial weights lie nearer to the model than those of another seed:"
      f" {by}. As much happens by chance of the seed: they say nothing of attention."
    )
  return (
    f"Not resolved whether adversarial weights are farther than another seed: {by}."
  )


def _gap(study: ExplanationStudy) -> Estimate | None:
  """Returns the divergence of adversarial weights minus that of seeds; None: one."""
  if "seeds" not in study.value_SE:
    return None
  own_SE, apart_SE = study.value_SE["adversarial"], study.value_SE["seeds"]
  return _jackknifed(own_SE - apart_SE, own_SE - seed_pairs(apart_SE))


def _estimate(value_SE: dict[str, np.ndarray], row: str) -> Estimate:
  """Returns the mean of a row of the page with its interval over seeds and texts."""
  x_SE, (_, low, high) = value_SE[row], ROWS[row]
  if row in OF_PAIRS:
    return _jackknifed(x_SE, seed_pairs(x_SE), (low, high))
  return interval(x_SE, (low, high))


def _jackknifed(
  x_SE: np.ndarray, pseudo_SE: np.ndarray, bounds: Bounds = UNBOUNDED
) -> Estimate:
  """Returns the mean of x_SE with the interval of its jackknife values, if any."""
  if np.isnan(pseudo_SE).all():
    return Estimate(float(np.mean(x_SE)), None, None, len(x_SE), NO_SPREAD)
  return interval(pseudo_SE, bounds)


def _page(study, settings, tokenizer, name, estimates, gap) -> str:
  S, E = study.value_SE["right"].shape
  lines = [
    "# Is attention an explanation?",
    "",
    f"Run {name}, {study.path}, one of {len(study.paths)} layers that attend; {E}"
    f" texts, {S} seeds. The explanation of a text is the share of each token in the"
    " weights of the queries that the output reads, mean over heads.",
    "",
    "| measure | mean ± 95% interval over seeds and texts |",
    "|---|---|",
    *(f"| {ROWS[row][0]} | {plus_minus(x)} |" for row, x in estimates.items()),
    "",
    f"**{verdict(gap)}**",
    "",
    f"Adversarial weights move the output by at most {settings.search.epsilon:g} (total"
    f" variation distance); found in {settings.search.steps} steps from"
    f" {settings.search.starts} random starts, so farther ones may exist. Largest"
    f" possible divergence: log 2 = {LOG2:.3f}. A text for which none are found counts"
    " as 0 there. Rows of another seed are means over pairs of seeds, which were"
    " trained independently: of their weights, and of their outputs with their own"
    " weights; their intervals are by the jackknife over seeds, and need three. Equal"
    " weights are evaluated, not trained: for Wiegreffe and Pinter's control train the"
    " run with --config.model.attention='scale(factor=1e-9)'.",
    "",
    f"![Figure]({explanation_figure.NAME}.png)",
    "",
    "## Texts",
    "",
    "The words with the largest shares, by the first seed and by adversarial weights"
    " that leave its output as it is.",
    "",
    "| class | attention of the model | adversarial attention | JSD |",
    "|---|---|---|---|",
    *(_text(study, tokenizer, n) for n in range(min(TEXTS, E))),
    "",
  ]
  return "\n".join(lines)


def _text(study: ExplanationStudy, tokenizer: Any, n: int) -> str:
  """Returns a text's line: its predicted class and words under both weights."""
  found = [study.labels[study.class_SE[0, n]]]
  for share_SEM in (study.share_SEM, study.adversarial_SEM):
    share_M = np.where(study.word_EM[n], share_SEM[0, n], -1.0)
    top = np.argsort(-share_M, kind="stable")[:WORDS]
    words = [tokenizer.decode([int(study.token_EM[n, m])]).strip() for m in top]
    found.append(
      ", ".join(f"{_cell(w)} {share_M[m]:.2f}" for w, m in zip(words, top, strict=True))
    )
  return f"| {' | '.join(found)} | {study.value_SE['adversarial'][0, n]:.3f} |"


def _cell(word: str) -> str:
  return shown(word).replace("|", "\\|") or "·"


def _json(each: Estimate) -> dict[str, float | None]:
  return {"mean": each.mean, "low": each.low, "high": each.high}
