"""Figures of the probes of a sweep's runs, from the files of `experiments.probe`."""

from collections.abc import Mapping
from pathlib import Path

from experiments.reporting import picture, style
from experiments.reporting.findings import Findings
from experiments.reporting.picture import Picture
from experiments.reporting.probe_figures import score_by_layer
from experiments.reporting.style import Style
from transformer_jax.training.json_files import FileError, read_object, warn

FOLDER = "probes"  # of the results, below that of a sweep


def probe_curves(findings: Findings, group: str) -> list[Picture]:
  """Returns a figure for each label that runs of a group were probed for."""
  labels = {run.id: run.label for run in findings.sweep.of(group)}
  pictures = []
  for path in sorted((findings.sweep.workdir / FOLDER).glob("*.json")):
    if (figure := _figure(path, labels, group, style.styles(findings))) is not None:
      pictures.append(figure)
  return pictures


def _figure(
  path: Path, labels: Mapping[str, str], group: str, looks: dict[str, Style]
) -> Picture | None:
  """Returns the figure of one file; None without runs of the group, or if damaged."""
  try:
    found = read_object(path)
    ours = {labels[x["id"]]: x for x in found["runs"] if x["id"] in labels}
    name = picture.file_name(f"probes_{path.stem}", group)
    return score_by_layer(found["settings"], ours, name, looks) if ours else None
  except (FileError, OSError, KeyError, TypeError, ValueError) as error:
    warn(f"{path} is not shown ({type(error).__name__}); probe its runs again")
    return None
