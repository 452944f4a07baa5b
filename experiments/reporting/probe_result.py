"""Settings and result of probes of one run, with intervals over texts and seeds."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.reporting.crossed import interval
from experiments.reporting.statistics import Estimate, estimate

# Scores that are compared with those of the probes, paired by seed and text.
DIFFERENCES = {"selectivity": "control", "gain": "untrained"}
LONGEST_NAME = 120  # characters of a result's files; other files add a few


@dataclasses.dataclass(frozen=True)
class ProbeSettings:
  """What is probed, and how. Texts of the test split are scored.

  label        a label: `probe_labels`, or one that the task makes
  probe        a probe: `probes`
  layers       names or numbers of states, 0 being the embedding; (): all
  stack        encoder or decoder; "": the one that reads the task's input
  examples     texts to train probes on, and to score them on
  samples      the most tokens of those
  steps        updates of each probe
  length       of the task; 0: that of training
  extrapolate  allows a length beyond that of training
  task         another task, whose texts the model reads; "": that of the run
  texts        split that probes are trained on: validation, or train
  control      tokens that make a type of the control: 1, or more with those before; 0:
               no control
  mdl          whether code lengths are computed
  untrained    whether models with their first parameters are probed too

  >>> ProbeSettings("position").name
  'position_linear'
  """

  label: str
  probe: str = "linear"
  layers: tuple[str, ...] = ()
  stack: str = ""
  examples: int = 1000
  samples: int = 20_000
  steps: int = 1000
  length: int = 0
  extrapolate: bool = False
  task: str = ""
  texts: str = "validation"
  control: int = 1
  mdl: bool = False
  untrained: bool = True

  @property
  def name(self) -> str:
    """Returns the name of the result's files, another one for other settings.

    >>> ProbeSettings("position", stack="encoder", control=2).name
    'position_linear_stack_encoder_control_2'
    """
    words = [self.label, self.probe, str(self.length or "")]
    words += [f"{name} {value}" for name, value in others(vars(self)).items()]
    text = "_".join(word for word in words if word)
    name = "".join(x if x.isalnum() or x in "-." else "_" for x in text).strip("_")
    if len(name) <= LONGEST_NAME:
      return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9]}_{digest}"


def others(settings: Mapping[str, Any]) -> dict[str, str]:
  """Returns {name: value} of settings that are not their defaults, as words.

  settings   fields of `ProbeSettings`. Label, probe and length, which results are named
             by, are left out, and so is `extrapolate`, which the length implies.
  """
  named = {"label", "probe", "length", "extrapolate"}
  found = {}
  for field in dataclasses.fields(ProbeSettings):
    value = settings.get(field.name, field.default)
    value = tuple(value) if isinstance(value, list) else value  # of JSON
    if field.name not in named and value != field.default:
      found[field.name] = ",".join(value) if isinstance(value, tuple) else str(value)
  return found


@dataclasses.dataclass(frozen=True, eq=False)
class ProbeResult:
  """Scores of the probes of one run.

  settings    of the probes
  measure     accuracy, or precision of sets
  classes     number of classes
  layers      paths of the states
  seeds       of the run
  samples     {"train": number of samples, "test": ...}
  score_SPE   {"probe": scores of each seed, layer and text of the test, "control": ...,
              "untrained": ..., "majority": guessing the most frequent; of ordered
              classes "error": size of the errors, "median error": guessing the median}
  bits_SP     {"probe": bits of the labels' code for each sample, "control": ...}
  uniform     bits of a sample where all labels are equally likely
  shared      share of the test's texts that are among those that probes are trained on

  >>> scores = {"probe": np.array([[[1.0, 0.0]], [[1.0, 1.0]]])}
  >>> settings = ProbeSettings("position")
  >>> shape = ("accuracy", 2, ("decoder/output",), (0, 1), {"train": 9, "test": 2})
  >>> ProbeResult(settings, *shape, scores, {}, 1.0).estimate("probe", 0).mean
  0.75
  """

  settings: ProbeSettings
  measure: str
  classes: int
  layers: tuple[str, ...]
  seeds: tuple[int, ...]
  samples: Mapping[str, int]
  score_SPE: Mapping[str, np.ndarray]
  bits_SP: Mapping[str, np.ndarray]
  uniform: float
  shared: float = 0.0

  def estimate(self, name: str, layer: int, less: str = "") -> Estimate:
    """Returns a mean over seeds and texts with its 95% interval.

    name    of scores
    layer   index in `layers`
    less    scores that are subtracted, paired by seed and text; "": none
    """
    score_SE = self.score_SPE[name][:, layer]
    if less:
      return interval(score_SE - self.score_SPE[less][:, layer])
    return interval(score_SE, (0.0, None if name.endswith("error") else 1.0))

  def bits(self, name: str, layer: int) -> Estimate:
    """Returns the bits of a sample's label in the online code, over seeds."""
    return estimate(self.bits_SP[name][:, layer], (0.0, None))

  def record(self) -> dict[str, Any]:
    """Returns the result as JSON has it: estimates, and means by seed."""
    return {
      "measure": self.measure,
      "classes": self.classes,
      "layers": [*self.layers],
      "seeds": [*self.seeds],
      "samples": dict(self.samples),
      "shared_texts": self.shared,
      "estimates": self.estimates(),
      "by_seed": self.by_seed(),
    }

  def estimates(self) -> list[dict[str, Any]]:
    """Returns {layer, score, mean, low, high, seeds} of each layer and score."""
    found = []
    for layer, path in enumerate(self.layers):
      each = {name: self.estimate(name, layer) for name in self.score_SPE}
      each |= {f"bits of {name}": self.bits(name, layer) for name in self.bits_SP}
      each |= {
        name: self.estimate("probe", layer, less)
        for name, less in DIFFERENCES.items()
        if less in self.score_SPE
      }
      for name, x in each.items():
        ends = {"mean": x.mean, "low": x.low, "high": x.high, "seeds": x.count}
        found.append({"layer": path, "score": name, **ends})
    return found

  def by_seed(self) -> list[dict[str, Any]]:
    """Returns {layer, score, seed, value}: means over texts."""
    means = {name: np.nanmean(x_SPE, axis=2) for name, x_SPE in self.score_SPE.items()}
    means |= {f"bits of {name}": x_SP for name, x_SP in self.bits_SP.items()}
    return [
      {"layer": path, "score": name, "seed": seed, "value": float(x_SP[s, layer])}
      for name, x_SP in means.items()
      for layer, path in enumerate(self.layers)
      for s, seed in enumerate(self.seeds)
    ]
