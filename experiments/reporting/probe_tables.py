"""Tables of probes: a row for each run and layer."""

from collections.abc import Mapping

from experiments.reporting.probe_result import ProbeResult, ProbeSettings
from experiments.reporting.report_table import Table
from experiments.reporting.text import number, plus_minus

Results = Mapping[str, ProbeResult]  # by label of the run
# Columns beside the score: {header: (score, score that is subtracted)}.
SUBTRACTED = ("control", "untrained")
BESIDE = {
  "control": ("control", ""),
  "selectivity": ("probe", "control"),
  "untrained": ("untrained", ""),
  "gain": ("probe", "untrained"),
  "mean error": ("error", ""),
}
COLUMNS = ("run", "layer", "score", "mean", "low", "high", "seeds")


def table(results: Results, short: bool = False) -> Table:
  """Returns the scores of all runs and layers, with their intervals.

  short   leaves out the scores that differences are made of
  """
  first = next(iter(results.values()))
  columns = {
    name: pair
    for name, pair in {first.measure: ("probe", ""), **BESIDE}.items()
    if {*pair} - {""} <= {*first.score_SPE} and not (short and name in SUBTRACTED)
  }
  header = [
    "run",
    "layer",
    *columns,
    *(["bits", "compression"] if first.bits_SP else []),
  ]
  rows = []
  for label, result in results.items():
    for n, path in enumerate(result.layers):
      cells = [
        plus_minus(result.estimate(name, n, less), sign=bool(less))
        for name, less in columns.values()
      ]
      layer = path.partition("/")[2]
      rows.append((label, layer, *cells, *_code(result, n)))
  return Table("probes", title(first), tuple(header), tuple(rows), notes(first))


def title(result: ProbeResult) -> str:
  """Returns the heading: label, probe and number of classes."""
  settings = result.settings
  return f"{settings.label}, read by {settings.probe} ({result.classes} classes)"


def notes(result: ProbeResult) -> tuple[str, ...]:
  """Returns sentences on the columns, and on the level of guessing."""
  settings, counts = result.settings, result.samples
  majority = number(result.estimate("majority", 0).mean)
  lines = [
    f"± is a 95% interval over texts and {len(result.seeds)} seeds. Each probe took"
    f" {settings.steps:,} steps at each learning rate, on {counts['train']:,} tokens of"
    f" the {settings.texts} split; {counts['test']:,} tokens of the test split are"
    f" scored. Guessing the most frequent has {majority}."
  ]
  if result.shared:
    lines.append(
      f"{result.shared:.1%} of the test's texts are also among the texts that probes"
      " are trained on."
    )
  if "median error" in result.score_SPE:
    guess = number(result.estimate("median error", 0).mean, 1)
    lines.append(f"mean error: in classes; always guessing the median has {guess}.")
  if "control" in result.score_SPE:
    lines.append(
      f"control: a probe of random labels, one for each type:"
      f" {_tokens(settings)};"
      " selectivity: the difference (Hewitt and Liang, 2019)."
    )
  if "untrained" in result.score_SPE:
    lines.append(
      "untrained: the same probe on models with their first parameters; gain: the"
      " difference."
    )
  if result.bits_SP:
    lines.append(
      f"bits: of a label in the online code (Voita and Titov, 2020); with all labels"
      f" equally likely it has {number(result.uniform)}, and compression is the ratio."
    )
  return tuple(lines)


def _code(result: ProbeResult, layer: int) -> list[str]:
  """Returns bits of a label and compression; []: no code was computed."""
  if not result.bits_SP:
    return []
  bits = result.bits("probe", layer)
  ratio = result.uniform / bits.mean if bits.mean else None
  return [plus_minus(bits), number(ratio, 2)]


def _tokens(settings: ProbeSettings) -> str:
  """Returns what a type of the control is, in words."""
  before = settings.control - 1
  return f"the token and {before} before it" if before else "the token"
