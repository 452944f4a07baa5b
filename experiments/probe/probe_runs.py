"""Probes of one run or of those of a sweep, and the files of their results."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import rich.console

from experiments.analysis import load_run
from experiments.reporting import page, probe_figures, probe_tables
from experiments.reporting.probe_result import ProbeResult, ProbeSettings
from experiments.reporting.report_table import to_markdown
from transformer_jax.training.json_files import replace_file, write_json
from transformer_jax.untrusted import shown


def probed(folders: dict[str, Path], settings: ProbeSettings) -> dict[str, ProbeResult]:
  """Returns the results by label; prints each run as it is done."""
  results = {}
  for label, folder in folders.items():
    run = load_run(folder)
    results[label] = run.probe(**dataclasses.asdict(settings))
    print(f"{shown(label)}: {len(results[label].layers)} layers probed", flush=True)
  return results


def write(
  results: dict[str, ProbeResult], folders: dict[str, Path], folder: Path
) -> Iterator[Path]:
  """Writes table, numbers and picture, prints the table, yields the paths.

  results, folders   of the runs, by label
  folder             of the files
  """
  settings = next(iter(results.values())).settings
  rich.console.Console().print(page.grid(probe_tables.table(results, short=True)))
  records = {
    label: {"id": folders[label].name, "label": label, **result.record()}
    for label, result in results.items()
  }
  fields = dataclasses.asdict(settings)
  files = dict(probe_figures.score_by_layer(fields, records, settings.name).files)
  files["md"] = shown(to_markdown(probe_tables.table(results))).encode()
  for ending, content in files.items():
    path = folder / f"{settings.name}.{ending}"
    replace_file(path, content)
    yield path
  path = folder / f"{settings.name}.json"
  write_json(path, {"settings": fields, "runs": [*records.values()]})
  yield path
