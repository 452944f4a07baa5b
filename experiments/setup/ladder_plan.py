"""Ladder of sizes: each variant at each size, for a fit of loss against FLOPs."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from experiments.setup.matching import Match
from experiments.setup.plan import Change


@dataclasses.dataclass(frozen=True)
class Ladder:
  """Each variant at each size: one group for each size, and a fit over all of them.

  name        of the ladder; its groups are named by it and their size
  runs        the variants
  sizes       changes that make a run larger: width, layers, steps
  overrides   common to all runs; sizes and variants win
  match       cost that the runs of a size share with its baseline; None: that of the
              plan

  >>> from experiments.setup.plan import Grid, Zipped
  >>> sizes = Zipped({"model.width": (16, 32), "train.steps": (100, 200)})
  >>> ladder = Ladder("text", Grid({"model.position": ("none", "rope")}), sizes)
  >>> [f"{change.group}: {change.label}" for change in ladder][1:3]
  ['text, width=16 steps=100: rope', 'text, width=32 steps=200: none']
  """

  name: str
  runs: Iterable[Change]
  sizes: Iterable[Change]
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  match: Match | str | None = None

  def __iter__(self) -> Iterator[Change]:
    for size in self.sizes:
      for change in self.runs:
        yield dataclasses.replace(
          change,
          overrides={**self.overrides, **size.overrides, **change.overrides},
          group=f"{self.name}, {size.label}",
          match=change.match or Match.of(self.match),
          ladder=self.name,
        )
