"""Probes of one run or of those of a sweep, and the files of their results."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import rich.console

from experiments.analysis import load_run
from experiments.reporting import page, probe_figures, probe_tables
from experiments.reporting.load import ReportError, read
from experiments.reporting.probe_result import ProbeResult, ProbeSettings
from experiments.reporting.report_table import to_markdown
from experiments.setup.validate import ConfigError
from transformer_jax.spec import nearest
from transformer_jax.training.json_files import replace_file, write_json
from transformer_jax.untrusted import shown


def chosen(
  run: Path, groups: Sequence[str] = (), labels: Sequence[str] = ()
) -> dict[str, Path]:
  """Returns {label: folder} of a run, or of the finished runs of a sweep.

  run      folder of either
  groups   of the sweep; (): all
  labels   of its runs; (): all

  A label has its group where several groups are chosen. Raises ConfigError.
  """
  if not (run / "sweep.json").exists():
    if groups or labels:
      raise ConfigError(f"{run} is no sweep: leave out --groups and --labels")
    return {run.name: run}
  try:
    runs = [x for x in read(run).runs if not x.again_of]
  except ReportError as error:
    raise ConfigError(str(error)) from error
  _check("groups", groups, [x.group for x in runs])
  _check("labels", labels, [x.label for x in runs])
  ours = [x for x in runs if x.group in (groups or [x.group])]
  ours = [x for x in ours if x.label in (labels or [x.label]) and x.result]
  if not ours:
    raise ConfigError(f"{run} has no finished run to probe: finish its sweep")
  several = len({x.group for x in ours}) > 1
  name = lambda x: f"{x.group} {x.label}" if several else x.label
  return {name(x): run / "runs" / x.id for x in ours}


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


def _check(flag: str, wanted: Sequence[str], known: Sequence[str]) -> None:
  for name in wanted:
    if name not in known:
      near, names = nearest(name, known), ", ".join(dict.fromkeys(known))
      raise ConfigError(f"--{flag}: there is no '{name}'.{near} {names}.")
