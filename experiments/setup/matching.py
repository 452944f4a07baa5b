"""Matched budgets of a plan: the cost that all runs of a group have in common."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.setup.validate import ConfigError
from transformer_jax.spec import nearest

WITHIN = 0.01  # relative difference up to which two costs are equal

# Costs that can be matched, with the keys that may be solved for, the default first.
KEYS = {
  "parameters": ("model.feedforward", "model.width", "model.layers"),
  "flops": ("train.steps", "model.feedforward", "model.width", "model.layers"),
  "tokens": ("train.steps",),
  "seconds": ("train.steps",),
}


@dataclasses.dataclass(frozen=True)
class Match:
  """A cost that each run shares with its group's baseline, and the key solved for it.

  quantity   parameters; or a seed's training in flops, tokens or seconds
  by         the key: model.width, model.layers, model.feedforward or train.steps

  Width and layers are coarse: model.feedforward takes what they leave.

  >>> Match("flops")
  Match(quantity='flops', by='train.steps')
  """

  quantity: str
  by: str = ""

  def __post_init__(self):
    if self.quantity not in KEYS:
      raise ConfigError(
        f"match='{self.quantity}':{nearest(self.quantity, KEYS)} Write one of"
        f" {', '.join(KEYS)}."
      )
    keys = KEYS[self.quantity]
    object.__setattr__(self, "by", self.by or keys[0])
    if self.by not in keys:
      raise ConfigError(
        f"Match('{self.quantity}', by='{self.by}'):{nearest(self.by, keys)} Write"
        f" {' or '.join(keys)}."
      )

  @classmethod
  def of(cls, match: "Match | str | None") -> "Match | None":
    """Returns the match that a plan names, or None."""
    return cls(match) if isinstance(match, str) else match


@dataclasses.dataclass(frozen=True)
class Matched:
  """What was solved for one run.

  baseline    label of the run whose cost is wanted
  key         identifies the problem: the ids of both runs before, and the match
  overrides   {flat key: value} that were solved for; {}: the costs were equal
  want        cost of the baseline
  got         cost of the run with these values

  >>> solved = {"train.steps": 390}
  >>> ours = Matched("flops", "train.steps", "none", "key", solved, want=2e9, got=2e9)
  >>> ours.sentence()
  'flops matched: train.steps=390; 2e+09 of the 2e+09 of none (+0.0%)'
  """

  quantity: str
  by: str
  baseline: str
  key: str
  overrides: Mapping[str, Any]
  want: float
  got: float

  @property
  def off(self) -> float:
    """Returns the relative difference that is left."""
    return self.got / self.want - 1

  def sentence(self) -> str:
    """Returns one line for a dry run."""
    solved = " ".join(f"{key}={value}" for key, value in self.overrides.items())
    return (
      f"{self.quantity} matched: {solved or 'nothing to change'};"
      f" {_count(self.got)} of the {_count(self.want)} of {self.baseline}"
      f" ({self.off:+.1%})"
    )

  def record(self) -> dict[str, Any]:
    """Returns the entry of sweep.json."""
    return dataclasses.asdict(self) | {"overrides": dict(self.overrides)}

  @classmethod
  def recorded(cls, entry: Mapping[str, Any]) -> "Matched | None":
    """Returns the value of an entry of sweep.json; None where it is not one."""
    names = {field.name for field in dataclasses.fields(cls)}
    if names - entry.keys() or not isinstance(entry["overrides"], dict):
      return None
    numbers = (entry["want"], entry["got"])
    if not all(isinstance(x, int | float) and x > 0 for x in numbers):
      return None
    return cls(**{name: entry[name] for name in names})


def _count(value: float) -> str:
  return f"{value:,.0f}" if 1000 <= value < 1e8 else f"{value:.3g}"
