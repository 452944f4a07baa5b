"""Two small pictures: time and memory of attention against the length."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.bench.measure import spread

LINES = {  # contender: legend, colour, line
  "t5 auto": ("this project, T5 bias", "#0b6e4f", "-"),
  "none auto": ("this project, no bias", "#0b6e4f", ":"),
  "t5 dense": ("dense, T5 bias", "#c1666b", "-"),
  "t5 jax.nn": ("jax.nn, T5 bias", "#d4a017", "-"),
  "torch bias": ("PyTorch SDPA, T5 bias", "#4357ad", "-"),
  "torch causal": ("PyTorch SDPA, no bias", "#4357ad", ":"),
}


def draw(op: dict[str, Any], folder: Path) -> tuple[str, ...]:
  """Writes the pictures beside the raw figures; returns the names of the files."""
  groups = [group for group in op.values() if group["backward"]]
  if not groups:
    return ()
  groups.sort(key=lambda group: group["L"])
  return (
    _picture(groups, _seconds, "seconds", folder / "benchmarks_time.png"),
    _picture(groups, _mebibytes, "MiB", folder / "benchmarks_memory.png"),
  )


def _seconds(group: dict[str, Any], name: str) -> float:
  return spread(group["times"][name])["median"]


def _mebibytes(group: dict[str, Any], name: str) -> float:
  return (group["bytes"].get(name) or 0) / 2**20


def _picture(
  groups: list[dict[str, Any]],
  value: Callable[[dict[str, Any], str], float],
  unit: str,
  path: Path,
) -> str:
  from matplotlib import pyplot as plt

  figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
  for name, (text, colour, line) in LINES.items():
    points = [(g["L"], value(g, name)) for g in groups if name in g["times"]]
    points = [(L, y) for L, y in points if y > 0]
    if points:
      axes.plot(*zip(*points, strict=True), line, color=colour, label=text, marker=".")
  axes.set_xscale("log", base=2)
  axes.set_yscale("log")
  axes.set_xlabel("tokens in the text")
  axes.set_ylabel(f"{unit}, forward and backward")
  axes.grid(alpha=0.3)
  axes.legend(frameon=False, fontsize=8)
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, dpi=120)
  plt.close(figure)
  return path.name
