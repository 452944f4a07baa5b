"""A sweep and its runs, as a report reads them."""

import dataclasses
import functools
import math
import pathlib
from typing import Any

from experiments.setup.matching import Matched
from experiments.setup.primary import DEFAULT, Comparisons
from experiments.setup.tuning import Tuned
from transformer_jax.evaluation import example_scores
from transformer_jax.evaluation.example_scores import ExampleScores
from transformer_jax.training.json_files import warn


@dataclasses.dataclass(frozen=True)
class LoadedRun:
  """One run of a sweep's folder: its state always, its scores once it finished.

  state     finished, running, failed, interrupted, damaged, "not started"
  step      last recorded training step; None: unknown
  config    flat config, {} where it cannot be read
  result    result.json of a finished run, else None
  losses    {seed: {step: training loss}}
  matched   what was solved to match its cost to the baseline's; None: nothing
  tuned     its search on the validation split; None: none
  ladder    name of its ladder of sizes; "": it is on none
  folder    of the run; None: it is in no folder
  again_of  group of the run where these are not its own scores but those of
            experiments.evaluate
  adding    state of the seeds or scores that a finished run is getting, as in
            "interrupted"; "": none

  >>> result = {"train_length": 16, "lengths": [16, 64]}
  >>> run = LoadedRun("a1", "rope", "copy", "finished", result=result)
  >>> run.times
  {16: 1.0, 64: 4.0}
  """

  id: str
  label: str
  group: str
  state: str
  attempts: int = 0
  error: str = ""
  step: int | None = None
  config: dict[str, Any] = dataclasses.field(default_factory=dict)
  result: dict[str, Any] | None = None
  losses: dict[int, dict[int, float]] = dataclasses.field(default_factory=dict)
  matched: Matched | None = None
  tuned: Tuned | None = None
  ladder: str = ""
  folder: pathlib.Path | None = None
  again_of: str = ""
  adding: str = ""

  @property
  def divergences(self) -> list[str]:
    """Where each diverged seed did, and by which auxiliary loss: `seed 1 at step 9`."""
    causes = self.fact("diverged_by") or {}
    return [
      f"seed {seed} at step {step}" + (f", by {causes[seed]}" if seed in causes else "")
      for seed, step in (self.fact("diverged") or {}).items()
    ]

  @functools.cached_property
  def examples(self) -> ExampleScores | None:
    """Scores of single examples; None without a result, and in older runs.

    A file of other examples than result.json names counts as none, and a line says so.
    """
    if self.result is None or self.folder is None:
      return None
    scores = example_scores.read(self.folder)
    if scores and not self._scored(scores):
      warn(
        f"{self.folder / example_scores.FILE} has other seeds or examples than"
        f" result.json; run {'experiments.evaluate' if self.again_of else 'the sweep'}"
        " again, which makes it again"
      )
      return None
    return scores

  def _scored(self, scores: ExampleScores) -> bool:
    """Returns whether scores of examples have the seeds and number of the result's."""
    targets = self.fact("targets") or {}
    return {*scores.seeds} == {*self.fact("seeds")} and all(
      value_SE.shape[1] == targets[str(length)]["examples"]
      for (length, measure, _), value_SE in scores.value_SE.items()
      if str(length) in targets and not self.writes(measure)
    )

  @property
  def times(self) -> dict[int, float]:
    """Maps each scored length to how often the training length fits into it."""
    if self.result is None:
      return {}
    train = self.result["train_length"]
    return {length: length / train for length in self.result["lengths"]}

  def values(self, length: int, measure: str, part: str) -> dict[int, float]:
    """Returns {seed: value} of one cell, without seeds that have no finite value."""
    values = {}
    for score in self.fact("scores") or ():
      cell = (score["length"], score["measure"], score.get("part", "mean"))
      if cell == (length, measure, part) and finite(score["value"]):
        values[score["seed"]] = float(score["value"])
    return values

  def writes(self, measure: str) -> bool:
    """Returns whether a measure scores generated texts."""
    written = (self.fact("written") or {}).get("scores", ())
    return any(measure in scores for scores in written)

  def target(self, length: int, measure: str) -> str | None:
    """Returns the fingerprint of a cell's scored targets; None in older runs."""
    if self.writes(measure):
      written = self.fact("written")
      texts = written.get("fingerprint")
      return texts and " ".join([texts, *written.get("signatures", ())])
    targets = (self.fact("targets") or {}).get(str(length)) or {}
    return targets.get("fingerprint")

  def fact(self, name: str) -> Any:
    """Returns an entry of result.json, or None."""
    return (self.result or {}).get(name)


@dataclasses.dataclass(frozen=True)
class Sweep:
  """A plan and its runs, in the plan's order.

  config      config file of the plan
  command     shell command that repeats the sweep
  baseline    label that others are compared with
  unplanned   number of run folders that the plan does not name
  comparisons those that have verdicts

  >>> copying = LoadedRun("a1", "rope", "copy", "finished")
  >>> reading = LoadedRun("b2", "rope", "text", "failed")
  >>> groups, runs = ("copy", "text"), (copying, reading)
  >>> sweep = Sweep(pathlib.Path("runs"), "Why?", "", "", "rope", groups, runs)
  >>> [run.state for run in sweep.of("text")]
  ['failed']
  """

  workdir: pathlib.Path
  question: str
  config: str
  command: str
  baseline: str | None
  groups: tuple[str, ...]
  runs: tuple[LoadedRun, ...]
  unplanned: int = 0
  comparisons: Comparisons = DEFAULT

  def of(self, group: str) -> list[LoadedRun]:
    """Returns the runs of a group."""
    return [run for run in self.runs if run.group == group]


def finite(value: Any) -> bool:
  """Returns whether a value of a result is a finite number."""
  return isinstance(value, int | float) and math.isfinite(value)
