"""Tables on the heads of runs: roles, layers, differences, similarities; records."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.heads.head_runs import IMPORTANCE, DescribedRun, shown_layers
from experiments.reporting import crossed, text
from experiments.reporting.report_table import Table
from experiments.reporting.statistics import Bounds, Estimate, estimate
from transformer_jax.analysis import head_similarities, head_statistics
from transformer_jax.analysis.head_analysis import EVEN, kind_of

BOUNDS = {"ablation": (None, None), "gradient": (0.0, None)}
WORDS = {
  "ablation": "Loss of a text without the head minus that with it, in nats. Michel et"
  " al., 2019, equation 1; Voita et al., 2019. https://arxiv.org/abs/1905.10650",
  "gradient": "Size of the derivative of a text's loss by the gate of the head, in"
  " nats. Michel et al., 2019, equation 2. https://arxiv.org/abs/1905.10650",
}


def bounds(name: str) -> Bounds:
  """Returns the least and largest value of a statistic or of an importance."""
  return BOUNDS[name] if name in BOUNDS else head_statistics.build(name).bounds


def words(name: str) -> str:
  """Returns what a statistic is, and its source: its docstring up to the arguments."""
  if name in WORDS:
    return WORDS[name]
  paragraphs = (type(head_statistics.build(name)).__doc__ or "").split("\n\n")
  prose = [x for x in paragraphs if ">>>" not in x and "   " not in x.strip("\n ")]
  return " ".join(" ".join(prose).split())


def names_of(runs: Sequence[DescribedRun]) -> list[str]:
  """Returns the statistics and importances that some run has."""
  every = dict.fromkeys(name for run in runs for name in run.value_SEH)
  return [name for name in every if any(run.defined(name) for run in runs)]


def roles(names: Sequence[str]) -> dict[str, Any]:
  """Returns {name: statistic} of those with a role."""
  built = {x: head_statistics.build(x) for x in names if x not in IMPORTANCE}
  return {name: x for name, x in built.items() if x.role and hasattr(x, "threshold")}


def _role(name: str, statistic: Any) -> str:
  """Returns a role, with the spec of a statistic that has arguments."""
  return statistic.role if name in head_statistics else f"{statistic.role}, {name}"


def count_of(run: DescribedRun, name: str, threshold: float) -> Estimate:
  """Returns the number of heads with a role, over seeds."""
  return estimate(run.above(name, threshold), (0, total(run)))


def total(run: DescribedRun) -> int:
  """Returns the number of described heads."""
  return sum(map(len, run.heads.values()))


def counted(found: Estimate) -> str:
  """Returns 6 where seeds agree, 9.3 ± 1.4 where not, 0.3 [0.0, 1.8] at a bound."""
  if found.interval is None:
    return text.number(found.mean, 0 if found.mean == round(found.mean or 0) else 1)
  mean = text.number(found.mean, 1)
  if found.skewed:
    return f"{mean} [{', '.join(text.number(x, 1) for x in found.interval)}]"
  return f"{mean} ± {text.number(found.half, 1)}"


def role_sentences(runs: Sequence[DescribedRun], names: Sequence[str]) -> list[str]:
  """Returns a sentence on each role: how many heads of each run have it."""
  sentences = []
  for name, x in roles(names).items():
    some = [
      f"{run.label} {counted(count_of(run, name, x.threshold))}"
      for run in runs
      if run.defined(name)
    ]
    heads = {total(run) for run in runs}
    of = f" of {heads.pop()}" if len(heads) == 1 else ""
    kind = f"{x.role[0].upper()}{x.role[1:]} heads{of} ({name} > {x.threshold:g})"
    sentences.append(f"{kind}: {', '.join(some)}.")
  return sentences


def role_table(runs: Sequence[DescribedRun], names: Sequence[str]) -> Table:
  """Returns the number of heads of each role, by run."""
  chosen = roles(names)
  rows = [
    (
      run.label,
      str(total(run)),
      *(
        counted(count_of(run, name, x.threshold)) if run.defined(name) else "–"
        for name, x in chosen.items()
      ),
    )
    for run in runs
  ]
  header = ("run", "heads", *(f"{_role(*item)} > {item[1].threshold:g}"
                              for item in chosen.items()))  # fmt: skip
  note = (
    "Heads whose mean share over texts is above the threshold; mean over seeds, ± 95%"
    " interval over seeds. Without an interval the seeds agree, or there is one."
  )
  return Table("roles", "Heads by role", header, tuple(rows), (note,))


def role_differences(runs: Sequence[DescribedRun], names: Sequence[str]) -> Table:
  """Returns the differences of the counts to the first run, paired by seed."""
  chosen, first = roles(names), runs[0]
  rows = []
  for run in runs[1:]:
    cells = []
    for name, x in chosen.items():
      both = run.defined(name) and first.defined(name) and run.seeds == first.seeds
      if not both:
        cells.append("–")
        continue
      gap_S = run.above(name, x.threshold) - first.above(name, x.threshold)
      cells.append(counted(estimate(gap_S)))
    rows.append((run.label, *cells))
  header = ("run", *(_role(*item) for item in chosen.items()))
  note = "Means over seeds, ± 95% interval over seeds; exploratory: not corrected."
  title = f"Number of heads by role, minus {first.label}"
  return Table("role_differences", title, header, tuple(rows), (note,))


def layer_table(runs: Sequence[DescribedRun], name: str) -> Table:
  """Returns a statistic's means over the heads of each layer, by run."""
  paths = list(dict.fromkeys(p for run in runs for p in shown_layers(run, name)))
  rows = []
  for run in runs:
    if not run.defined(name):
      continue
    there = shown_layers(run, name)
    cells = [over(run.of_layer(name, x), name) if x in there else "–" for x in paths]
    rows.append((run.label, *cells, over(run.of_all(name), name), _even(run, name)))
  header = ("run", *map(short_name, paths), "all heads", "even head")
  if name in IMPORTANCE:
    header, rows = header[:-1], [row[:-1] for row in rows]
  title = f"{text.measure_name(name)}: means over heads, ± 95% over texts and seeds"
  return Table(f"layers_{name}", title, header, tuple(rows))


def _even(run: DescribedRun, name: str) -> str:
  """Returns the mean of heads that attend evenly, over layers and texts."""
  some = [
    x_SEH
    for path, x_SEH in run.value_SEH[name].items()
    if path.startswith(EVEN) and path.removeprefix(f"{EVEN}/") in run.heads
  ]
  if not some or not np.isfinite(np.concatenate(some)).any():
    return "–"
  return text.number(float(np.nanmean(np.concatenate(some))))


def over(x_SE: np.ndarray, name: str) -> str:
  """Returns a mean with its interval over texts and seeds."""
  return text.plus_minus(crossed.interval(x_SE, bounds(name)))


def difference_table(runs: Sequence[DescribedRun], names: Sequence[str]) -> Table:
  """Returns differences of the means over all heads to the first run."""
  first, rows = runs[0], []
  for name in names:
    cells = []
    for run in runs[1:]:
      alike = run.seeds == first.seeds and run.length == first.length
      if not (alike and run.defined(name) and first.defined(name)):
        cells.append("–")
        continue
      gap_SE = run.of_all(name) - first.of_all(name)
      cells.append(text.plus_minus(crossed.interval(gap_SE), sign=True))
    rows.append((text.measure_name(name), *cells))
  header = ("statistic", *(run.label for run in runs[1:]))
  note = (
    "Paired by seed and text, ± 95% interval over both; exploratory: not corrected for"
    " the number of differences."
  )
  title = f"Means over all heads, minus {first.label}"
  return Table("differences", title, header, tuple(rows), (note,))


def similarity_table(runs: Sequence[DescribedRun], name: str) -> Table:
  """Returns mean similarities of pairs of heads in one layer, and in two."""
  rows = []
  for run in runs:
    for kind, (mean_SHH, _) in run.similarity.get(name, {}).items():
      same_HH = _same_layer(run, kind, mean_SHH.shape[1])
      others = ~np.eye(len(same_HH), dtype=bool)
      cells = []
      for pairs in (same_HH & others, ~same_HH):
        some = [float(np.nanmean(x_HH[pairs])) for x_HH in mean_SHH if pairs.any()]
        limits = head_similarities.build(name).bounds
        cells.append(text.plus_minus(estimate(some, limits)) if some else "–")
      rows.append((run.label, kind, *cells))
  header = ("run", "layers", "two heads of a layer", "heads of two layers")
  title = f"{text.measure_name(name)}: means over pairs of heads, ± 95% over seeds"
  return Table(f"similar_{name}", title, header, tuple(rows))


def _same_layer(run: DescribedRun, kind: str, heads: int) -> np.ndarray:
  """Returns whether two heads of a kind are of one layer."""
  layers = max(1, sum(kind_of(path) == kind for path in all_paths(run)))
  layer_H = np.arange(heads) // max(1, heads // layers)
  return layer_H[:, None] == layer_H


def all_paths(run: DescribedRun) -> list[str]:
  """Returns the paths of all layers, chosen or not."""
  some = next(iter(run.value_SEH.values()), {})
  return [path for path in some if not path.startswith(EVEN)]


def short_name(path: str) -> str:
  """Returns `layer 2` of a decoder's or encoder's own attention, else its path.

  >>> short_name("decoder/layer_2/attention"), short_name("decoder/layer_0/cross")
  ('decoder 2', 'decoder 0 cross')
  """
  return path.replace("/attention", "").replace("/layer_", " ").replace("/", " ")


@dataclasses.dataclass(frozen=True)
class HeadRecord:
  """One statistic of one head of one seed, with its interval over texts.

  >>> HeadRecord("rope", 0, "entropy", "decoder/layer_0/attention", 1, 0.5, 0.4, 0.6, 9)
  ... # doctest: +ELLIPSIS
  HeadRecord(run='rope', seed=0, statistic='entropy', ...)
  """

  run: str
  seed: int
  statistic: str
  layer: str
  head: int
  mean: float
  low: float | None
  high: float | None
  texts: int


def records(runs: Sequence[DescribedRun]) -> Iterator[HeadRecord]:
  """Yields all statistics of all heads; those without a number are left out."""
  for run in runs:
    for name in run.value_SEH:
      for path in shown_layers(run, name):
        x_SEH = run.value_SEH[name][path]
        for head in (x for x in run.heads[path] if x < x_SEH.shape[2]):
          yield from _of_head(run, name, path, head)


def _of_head(run: DescribedRun, name: str, path: str, head: int):
  for seed, x_E in zip(run.seeds, run.of_head(name, path, head), strict=True):
    found = crossed.interval(x_E[None], bounds(name))
    if found.mean is not None:
      texts = int(np.isfinite(x_E).sum())
      place = (run.label, seed, name, path, head)
      yield HeadRecord(*place, found.mean, found.low, found.high, texts)


def by_head(runs: Sequence[DescribedRun]) -> Mapping[tuple, HeadRecord]:
  """Returns {(run, seed, statistic, layer, head): record}."""
  return {(x.run, x.seed, x.statistic, x.layer, x.head): x for x in records(runs)}
