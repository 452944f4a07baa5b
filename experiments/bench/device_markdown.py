"""Part of docs/benchmarks.md about accelerators, from the files of their figures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.bench.device_runner import ALL, wrong_in
from experiments.bench.measure import spread
from experiments.bench.worker import ROOT
from experiments.catalogue.parts import table

FOLDER = ROOT / "docs" / "results"
AS_NONE = "To a core the encodings that change vectors alone, as RoPE, are `none`."
NONE_YET = "No accelerator has run this yet."
LABELS = {
  "jax.nn": "`jax.nn.dot_product_attention`",
  "splash": "JAX's splash attention",
  "torch flash": "PyTorch, FlashAttention",
  "torch flex": "PyTorch, FlexAttention",
  ALL: ALL,
}


def accelerators(folder: Path = FOLDER) -> str:
  """Returns a section for each device whose figures are there."""
  from transformer_jax.training.json_files import read_json

  files = sorted(folder.glob("device_*.json"))
  return "\n\n".join(device_section(read_json(path)) for path in files) or NONE_YET


def device_section(figures: dict[str, Any]) -> str:
  """Returns the tables of one device."""
  versions, sections = figures["versions"], figures["sections"]
  groups = [group for section in sections.values() for group in section.values()]
  commits = sorted({group["commit"].partition("+")[0] for group in groups})
  dates = sorted({group["date"] for group in groups})
  parts = [
    f"### {versions['kind']}",
    f"Device: {versions['device']}; jax {versions['jax']}; commit"
    f" {', '.join(commits)}; {' to '.join(dates[:1] + dates[1:][-1:])}.",
    f"Comparison with `dense`, values and all gradients. {AS_NONE}",
    comparison_table(sections.get("compare", {})),
    "Causal attention forward and backward in bfloat16, milliseconds of a call.",
    speed_table(sections.get("speed", {})),
    "A training step of `experiments/configs/pod.py`, on random bytes.",
    step_table(sections.get("step", {})),
  ]
  return "\n\n".join(part or "Not measured." for part in parts)


def comparison_table(compare: dict[str, Any]) -> str:
  """Returns one line for each encoding, a column for each core."""
  cores = list(dict.fromkeys(x for g in compare.values() for x in _contenders(g)))
  rows = [
    (f"`{name}`", *(_compared(group, core) for core in cores))
    for name, group in compare.items()
  ]
  return table(("encoding", *(f"`{core}`" for core in cores)), rows) if rows else ""


def _contenders(group: dict[str, Any]) -> list[str]:
  return [*group["facts"], *group["errors"]]


def _compared(group: dict[str, Any], core: str) -> str:
  if core in group["errors"]:
    return f"failed: {group['errors'][core]}"
  outcomes = group["facts"].get(core, {})
  wrong = wrong_in({"facts": {core: outcomes}})
  passed = [x for x in outcomes.values() if x.get("passed")]
  if wrong:
    return f"**differs**: {', '.join(x.removeprefix(f'{core} ') for x in wrong)}"
  if not passed:
    return "refused" if outcomes else "–"
  part = max(x["error"] / x["tolerance"] for x in passed)
  return f"equal in {len(passed)} of {len(outcomes)}, {part:.0%} of the tolerance"


def speed_table(speed: dict[str, Any]) -> str:
  """Returns milliseconds with quartiles, share of the peak and temporary memory."""
  rows = [row for group in speed.values() for row in _speeds(group)]
  header = ("encoding", "L", "attention", "ms", "of the peak", "MiB temporary")
  return table(header, rows) if rows else ""


def _speeds(group: dict[str, Any]) -> Iterator[tuple[str, ...]]:
  start = f"`{group['encoding']}`", f"{group['L']:,}"
  peak = next((f["peak"] for f in group["facts"].values() if f.get("peak")), None)
  for name, times in group.get("times", {}).items():
    facts = group["facts"][name]
    each = [x / facts["calls"] for x in times]
    share = f"{facts['flops'] / spread(each)['median'] / peak:.0%}" if peak else "–"
    size = facts.get("temporary_bytes")
    memory = "–" if size is None else f"{size / 2**20:,.0f}"
    yield (*start, _label(name), _milliseconds(each), share, memory)
  for name, error in group["errors"].items():
    yield (*start, _label(name), error, "–", "–")


def _label(name: str) -> str:
  return LABELS.get(name, f"`{name}`")


def _milliseconds(seconds: list[float]) -> str:
  found = spread([1e3 * x for x in seconds])
  low, median, high = (f"{found[n]:.3g}" for n in ("low", "median", "high"))
  return f"{median} [{low}, {high}]"


def step_table(step: dict[str, Any]) -> str:
  """Returns tokens a second and the share of the peak, by what is computed again."""
  rows = []
  for group in step.values():
    for name, times in group.get("times", {}).items():
      facts = group["facts"][name]
      seconds = spread([x / facts["calls"] for x in times])["median"]
      peak = facts["peak"]
      share = f"{facts['flops'] / seconds / peak:.1%}" if peak else "–"
      speed = f"{facts['tokens'] / seconds:,.0f}"
      rows.append((f"`{name}`", f"`{facts['core']}`", speed, share))
    rows += [(_label(n), error, "–", "–") for n, error in group["errors"].items()]
  header = ("config", "core", "tokens/s", "model FLOPs of the peak")
  return table(header, rows) if rows else ""
