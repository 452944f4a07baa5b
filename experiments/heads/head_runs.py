"""Heads of finished runs: statistics, similarities, importance, texts, by seed."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.analysis import TrainedRun, load_run
from experiments.heads.head_selection import select
from experiments.heads.head_texts import HeadText, texts_of
from experiments.reporting import chosen_runs
from experiments.setup.validate import ConfigError
from transformer_jax.analysis import HeadAnalysis, head_similarities, head_statistics
from transformer_jax.analysis.head_analysis import EVEN, means
from transformer_jax.training import sharding

IMPORTANCE = ("ablation", "gradient")


@dataclasses.dataclass(frozen=True)
class HeadSettings:
  """What is measured of each run.

  statistics   specs
  head         LAYER:HEAD or LAYER; (): all heads
  examples     texts
  batch_size   texts in memory at once
  length       of the task; 0: that of training
  shown        texts of each head on the page
  importance   also measure importance and pruning
  similarity   also compare heads with each other

  >>> HeadSettings(("entropy",)).examples
  128
  """

  statistics: tuple[str, ...]
  head: tuple[str, ...] = ()
  examples: int = 128
  batch_size: int = 32
  length: int = 0
  shown: int = 2
  importance: bool = True
  similarity: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class DescribedRun:
  """The heads of one run.

  label        of the run
  folder       of the run
  seeds        of the run
  length       of the texts, in tokens
  heads        {path of a layer: heads that are described}
  value_SEH    {statistic: {path: seeds by texts by heads}}, NaN: there is none; of a
               head that attends evenly at path "even/..."
  similarity   {name: {kind of layers: (means, standard errors)}}, seeds by pairs
  pruning      {order: losses in nats, seeds by number of heads taken away}
  texts        {(path, head): texts of the first seed}
  notes        on how it was computed, and what was left out

  >>> path = "decoder/layer_0/attention"
  >>> value_SEH = {"entropy": {path: np.ones((1, 2, 4))}}
  >>> run = DescribedRun("rope", Path("ID"), (0,), 8, {path: (0, 2)}, value_SEH)
  >>> run.of_head("entropy", path, 2).shape
  (1, 2)
  """

  label: str
  folder: Path
  seeds: tuple[int, ...]
  length: int
  heads: Mapping[str, tuple[int, ...]]
  value_SEH: Mapping[str, Mapping[str, np.ndarray]]
  similarity: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]] = (
    dataclasses.field(default_factory=dict)
  )
  pruning: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  texts: Mapping[tuple[str, int], Sequence[HeadText]] = dataclasses.field(
    default_factory=dict
  )
  notes: tuple[str, ...] = ()

  def of_head(self, name: str, path: str, head: int) -> np.ndarray:
    """Returns a statistic of one head, seeds by texts."""
    return self.value_SEH[name][path][:, :, head]

  def of_layer(self, name: str, path: str) -> np.ndarray:
    """Returns the mean over a layer's described heads, seeds by texts; NaN: none."""
    return _mean(self.value_SEH[name][path][:, :, list(self._known(name, path))])

  def of_all(self, name: str) -> np.ndarray:
    """Returns the mean over all described heads, seeds by texts."""
    every = [
      self.value_SEH[name][path][:, :, list(self._known(name, path))]
      for path in self.heads
      if path in self.value_SEH[name]
    ]
    return _mean(np.concatenate(every, axis=2))

  def means_of(self, name: str, path: str) -> np.ndarray:
    """Returns means over texts, seeds by heads."""
    return np.stack([means(x_EH) for x_EH in self.value_SEH[name][path]])

  def above(self, name: str, threshold: float) -> np.ndarray:
    """Returns the number of described heads with a mean above a threshold, by seed."""
    counts = np.zeros(len(self.seeds))
    for path in self.heads:
      mean_SH = self.means_of(name, path)[:, list(self._known(name, path))]
      counts += np.sum(mean_SH > threshold, axis=1)  # NaN is not above
    return counts

  def defined(self, name: str) -> bool:
    """Returns whether any head has a number."""
    some = self.value_SEH.get(name, {})
    return any(np.isfinite(x).any() for x in some.values())

  def _known(self, name: str, path: str) -> Sequence[int]:
    # Some variants have more weights than outputs, or fewer.
    H = self.value_SEH[name][path].shape[2]
    return [head for head in self.heads[path] if head < H]


def specs(text: str) -> tuple[str, ...]:
  """Returns specs that commas separate, those in brackets left alone; "": all.

  >>> specs("previous, induction(match=3, threshold=0.3)")
  ('previous', 'induction(match=3, threshold=0.3)')
  """
  if not text.strip():
    return tuple(head_statistics)
  found, depth, start = [], 0, 0
  for place, character in enumerate(text):
    depth += (character in "([") - (character in ")]")
    if character == "," and not depth:
      found.append(text[start:place].strip())
      start = place + 1
  return tuple(filter(None, [*found, text[start:].strip()]))


def describe_all(
  folder: Path, groups: Sequence[str], settings: HeadSettings
) -> list[DescribedRun]:
  """Returns the heads of a run, or of all finished runs of a sweep; raises ConfigError.

  groups   of the sweep; (): all
  """
  chosen = {spec: head_statistics.build(spec) for spec in settings.statistics}
  return [
    describe(label, load_run(run), chosen, settings)
    for label, run in chosen_runs.folders(folder, groups).items()
  ]


def describe(
  label: str, run: TrainedRun, chosen: Mapping[str, Any], settings: HeadSettings
) -> DescribedRun:
  """Returns the heads of a run; raises ConfigError for a head that is not there.

  label    of the run; "": its encoding
  chosen   statistics, by name
  """
  length = settings.length or None
  analysis = run.head_analysis(settings.examples, length, settings.batch_size)
  with jax.set_mesh(sharding.make_mesh()):
    heads = analysis.heads(run.params[run.seeds[0]])
    if not heads:
      raise ConfigError(f"{run.folder}: its model has no attention, so it has no heads")
    ours = select(heads, settings.head)
    value, similarity, pruning = _measured(run, analysis, chosen, settings)
    texts = texts_of(run, analysis.batch, ours, settings.shown)
  tokens = analysis.batch.at.order_BL.shape[1]
  return DescribedRun(
    label or str(run.config.model.position),
    run.folder,
    run.seeds,
    tokens,
    ours,
    value,
    similarity,
    pruning,
    texts,
    _notes(run, analysis, chosen, settings),
  )


def _measured(run, analysis: HeadAnalysis, chosen, settings: HeadSettings) -> Any:
  """Returns value_SEH, similarities and pruning curves of all seeds."""
  statistics = analysis.statistics(chosen)
  importance, half = analysis.importance(), len(analysis.batch.target_BL) // 2
  similar = analysis.similarities(
    {name: head_similarities.build(name) for name in head_similarities}
  )
  # Importance of one half of the texts orders the heads, the other half is scored.
  pruning = dataclasses.replace(
    analysis, batch=analysis.batch.texts(half), vocabulary=None
  ).pruning()
  values, similarities, losses = [], [], []
  for params in run.params.values():
    values.append(dict(statistics(params).value_EH))
    if settings.similarity:
      similarities.append(similar(params))
    if settings.importance:
      values[-1] |= (weights := importance(params).value_EH)
      first = [means(x_EH[:half]) for x_EH in weights["gradient"].values()]
      losses.append(pruning(params, np.concatenate(first)))
  curves = [{name: means(x_EN) for name, x_EN in found.items()} for found in losses]
  stacked = _stacked(values)  # jax sorts names
  ordered = {name: stacked[name] for name in [*chosen, *IMPORTANCE] if name in stacked}
  return ordered, _stacked(similarities), _stacked(curves)


def _stacked(trees: list[Any]) -> Any:
  return jax.tree.map(lambda *x: np.stack(x), *trees) if trees else {}


def _mean(x_SEH: np.ndarray) -> np.ndarray:
  """Returns means over heads that have a number; NaN: none has."""
  number_SE = np.sum(np.isfinite(x_SEH), axis=2)
  total_SE = np.nansum(x_SEH, axis=2)
  return np.where(number_SE > 0, total_SE / np.maximum(number_SE, 1), np.nan)


def _notes(
  run, analysis: HeadAnalysis, chosen, settings: HeadSettings
) -> tuple[str, ...]:
  notes = []
  core = run.result.get("core") or run.config.model.core  # of auto the one that ran
  if not core.endswith("dense"):
    H = max(analysis.heads(run.params[run.seeds[0]]).values())
    B = min(settings.batch_size, settings.examples)
    notes.append(core_note(core, B, H, analysis.batch.at.order_BL.shape[1]))
  trained = run.experiment.trainer.length
  if settings.length > trained:
    notes.append(
      f"Texts have length {settings.length}; the model was trained with {trained}."
    )
  left = {name: analysis.missing(x) for name, x in chosen.items()}
  notes += [f"{name} is left out: {reason}." for name, reason in left.items() if reason]
  return tuple(notes)


def core_note(core: str, B: int, H: int, L: int) -> str:
  """Returns which core is taken where a run's own never holds weights, and its cost."""
  return (
    f"The core {core} never holds weights. Statistics and similarities are those of the"
    f" core dense, the same numbers, which holds L x M floats for each head:"
    f" {4 * B * H * L * L / 2**20:,.1f} MiB for a layer of {H} heads, {B} texts and {L}"
    f" tokens. Importance and pruning are of the core {core}."
  )


def shown_layers(run: DescribedRun, name: str) -> list[str]:
  """Returns the paths of the layers that have a statistic, in their order."""
  some = run.value_SEH.get(name, {})
  return [path for path in run.heads if path in some and not path.startswith(EVEN)]
