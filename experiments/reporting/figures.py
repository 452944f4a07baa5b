"""Figures of a report; each has a file name of its own."""

from collections.abc import Iterator, Sequence

from experiments.reporting import (
  generations,
  picture,
  return_curves,
  tuning_report,
)
from experiments.reporting.differences import differences
from experiments.reporting.findings import Findings
from experiments.reporting.ladder_curves import Fits, ladder_figure
from experiments.reporting.layer_curves import layer_curves
from experiments.reporting.length_curves import length_curves
from experiments.reporting.picture import Picture
from experiments.reporting.probe_curves import probe_curves
from experiments.reporting.training_curves import training_curves


def draw(
  findings: Findings, ladders: Sequence[Fits] = ()
) -> tuple[dict[str, list[Picture]], dict[str, list[Picture]]]:
  """Returns ({group: its figures}, {ladder: its figures}).

  A group's figures begin with the length curves of its headline.
  """
  taken: set[str] = set()
  by_group = {
    group: picture.named_apart(_of_group(findings, group), taken)
    for group in findings.sweep.groups
  }
  by_ladder = {
    fits.name: picture.named_apart(_of_ladder(findings, fits), taken)
    for fits in ladders
  }
  return by_group, by_ladder


def _of_group(findings: Findings, group: str) -> list[Picture]:
  measures = findings.measures(group)
  pictures = [length_curves(findings, group, measure) for measure in measures]
  if any(c.difference.count for c in findings.of(group)):
    pictures.insert(1, differences(findings, group))
  for optional in (
    tuning_report.tuning_curves(findings, group),
    training_curves(findings, group),
    generations.length_scores(findings, group),
    generations.attention_map(findings, group),
    return_curves.return_curves(findings, group),
  ):
    pictures += [optional] if optional else []
  pictures += layer_curves(findings, group)
  pictures += probe_curves(findings, group)
  return pictures


def _of_ladder(findings: Findings, fits: Fits) -> Iterator[Picture]:
  if figure := ladder_figure(fits, findings):
    yield figure
