"""One variant's figures, marked as counted, compiled or estimated; CSV and JSON."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.estimating.chips import Topology
from experiments.estimating.compiler import Compiled
from experiments.estimating.roofline import Efficiency, StepTime
from experiments.estimating.training_work import TrainingWork
from experiments.setup.validate import ConfigError
from transformer_jax.training.json_files import write_json


@dataclasses.dataclass(frozen=True)
class VariantEstimate:
  """One variant.

  time       None: it does not fit
  price      of an hour of a chip; 0: unknown
  smallest   slice of the chip that holds it; "": was not looked for, or there is none
  searched   whether it was looked for

  >>> from experiments.estimating.traffic import Traffic
  >>> work = TrainingWork(7, 1e9, 1e9, 64, steps=9, seeds=3, devices=4, in_slice=4)
  >>> compiled = Compiled(2**30, 2**34, 2**20, Traffic(1e9, {}, 0))
  >>> time = StepTime(2e-3, 4e-3, 1e-3, tokens_per_s=1e6, chip_hours=8.0)
  >>> VariantEstimate("text", "rope", work, compiled, time, price=1.5).cost
  12.0
  """

  group: str
  label: str
  work: TrainingWork
  compiled: Compiled
  time: StepTime | None
  price: float = 0.0
  smallest: str = ""
  searched: bool = False

  @property
  def name(self) -> str:
    """Returns group and label."""
    return f"{self.group} {self.label}"

  @property
  def cost(self) -> float | None:
    """Returns the price of the whole training; None without a price or an estimate."""
    return self.price * self.time.chip_hours if self.price and self.time else None

  def figures(self) -> dict[str, Any]:
    """Returns all figures, by where they come from; JSON knows their kinds."""
    return {
      "group": self.group,
      "label": self.label,
      "counted": dataclasses.asdict(self.work),
      "compiled": _of_compiled(self.compiled),
      "estimated": self._estimated(),
    }

  def _estimated(self) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if self.time:
      step = {"seconds": self.time.seconds, "bound": self.time.bound}
      found = step | dataclasses.asdict(self.time) | {"cost": self.cost}
    return found | ({"smallest": self.smallest or None} if self.searched else {})


def _of_compiled(compiled: Compiled) -> dict[str, Any]:
  """Returns figures of the compiler; traffic is that of a step on one device."""
  traffic = compiled.traffic
  found: dict[str, Any] = {"fits": compiled.fits, **dataclasses.asdict(compiled)}
  del found["traffic"], found["facts"]
  if traffic:
    found |= {"hbm_traffic_bytes": traffic.hbm, "open_loops": traffic.open_loops}
    found |= {
      f"sent_bytes_{kind.replace('-', '_')}": each.sent
      for kind, each in traffic.collectives.items()
    }
  if compiled.facts:
    found["facts"] = compiled.facts.figures()
  return found


def facts(
  topology: Topology, efficiency: Efficiency, versions: Mapping[str, str]
) -> dict[str, Any]:
  """Returns what all rows have in common: the slice, its chip and the assumptions."""
  return {
    "topology": topology.name,
    "chips": topology.chips,
    "chip": dataclasses.asdict(topology.chip),
    "efficiency": dataclasses.asdict(efficiency),
    "versions": dict(versions),
  }


def save_json(
  path: Path, rows: Sequence[VariantEstimate], common: Mapping[str, Any]
) -> None:
  """Writes all figures with their sources."""
  write_json(path, {**common, "runs": [row.figures() for row in rows]})


def save_csv(
  path: Path, rows: Sequence[VariantEstimate], common: Mapping[str, Any]
) -> None:
  """Writes a line for each variant; columns name where a figure comes from."""
  lines = [{"topology": common["topology"], **flat(row.figures())} for row in rows]
  names = list(dict.fromkeys(name for line in lines for name in line))
  with path.open("w", encoding="utf-8", newline="") as file:
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows(lines)


def flat(figures: Mapping[str, Any]) -> dict[str, Any]:
  """Returns nested figures with names such as compiled.peak_bytes; lists as they are.

  >>> flat({"label": "rope", "compiled": {"fits": True}})
  {'label': 'rope', 'compiled.fits': True}
  """
  found: dict[str, Any] = {}
  for name, value in figures.items():
    if isinstance(value, dict):
      found |= {f"{name}.{below}": each for below, each in flat(value).items()}
    else:
      found[name] = value
  return found


def check_writable(flag: str, path: Path | None) -> None:
  """Raises ConfigError where a file of results could not be written later."""
  if path is None:
    return
  if path.is_dir() or not path.absolute().parent.is_dir():
    raise ConfigError(
      f"--{flag}={path}: write the name of a file in a folder that is there"
    )
