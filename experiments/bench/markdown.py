"""Page docs/benchmarks.md, generated from the raw figures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2

from experiments.bench import device_markdown, plots
from experiments.bench.groups import SIZES
from experiments.bench.measure import spread
from experiments.bench.speed_targets import (
  OTHERS,
  PEERS,
  Target,
  encodings,
  fastest_peer,
  peak_share,
  quotient,
  speedups,
  step_flops,
  targets,
)
from experiments.bench.worker import ROOT
from experiments.catalogue.parts import table
from transformer_jax.training.json_files import read_json

PAGE = ROOT / "docs" / "benchmarks.md"
TEMPLATE = jinja2.Template(
  (ROOT / "experiments" / "templates" / "benchmarks.md").read_text("utf-8"),
  keep_trailing_newline=True,
  trim_blocks=True,
  lstrip_blocks=True,
)
GPU = ROOT / "docs" / "results" / "aot_gpu.json"  # by experiments.bench.aot_gpu
TPU = ROOT / "docs" / "results" / "aot_tpu.json"  # written by experiments.bench.aot
NAMES = {  # how contenders are called on the page
  "torch bias": "PyTorch SDPA, T5 bias and its gradient",
  "torch fixed bias": "PyTorch SDPA, fixed bias",
  "torch causal": "PyTorch SDPA, causal, no bias",
  "torch flex": "PyTorch FlexAttention, T5 bias",
  "t5 jax.nn": "jax.nn.dot_product_attention, T5 bias",
  "torch x_transformers": "x-transformers",
  "torch x_transformers_t5": "x-transformers, T5 bias",
  "torch x_transformers_alibi": "x-transformers, ALiBi",
  "torch hf_gpt2": "HuggingFace GPT-2, PyTorch",
  "torch hf_t5": "HuggingFace T5 decoder, PyTorch",
  "flax hf_gpt2": "HuggingFace GPT-2, Flax",
  "chunks": "in chunks",
  "chunks, decays of features": "in chunks, decays of features",
  "lax.scan of the definition": "`lax.scan` of the definition",
  "torch chunks": "PyTorch, chunks of `transformers`",
  "layer gated_delta": "a layer of `gated_delta`",
  "layer multihead": "a layer of `multihead`, `auto`",
}


def write(figures: dict[str, Any], raw: Path, path: Path = PAGE) -> Path:
  """Writes the page and its plots, and returns where it is."""
  pictures = plots.draw(figures["sections"].get("op", {}), raw.parent)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(render(figures, pictures), encoding="utf-8")
  return path


def render(figures: dict[str, Any], pictures: tuple[str, ...] = ()) -> str:
  """Returns the page as Markdown."""
  sections = figures["sections"]
  op, step = sections.get("op", {}), sections.get("step", {})
  groups = [group for section in sections.values() for group in section.values()]
  dates = sorted({group["date"] for group in groups})
  apart = (
    "recurrence",
    "mixers",
    "sweep",
  )  # sections with a line of their own on the device
  main = {n: x for n, x in sections.items() if n not in apart}
  named = {k: v for x in main.values() for k, v in x.items()}
  return TEMPLATE.render(
    device=_devices(named) or _device(figures.get("versions", {})),
    versions=figures.get("versions", {}),
    # After a plus stand uncommitted changes: here the raw figures themselves.
    commits=sorted({group["commit"].partition("+")[0] for group in groups}),
    dates=dates[:1] + dates[1:][-1:],
    targets=target_table(list(targets(sections))),
    forward=times_table(op, False),
    backward=times_table(op, True),
    memory=memory_table(op),
    failed=list(failures(sections)),
    steps={L: step_table(step, L) for L in SIZES if f"L={L}" in step},
    gigaflops={L: step_flops(B, L) / 1e9 for L, B in SIZES.items()},
    peak=matmul_peak(step),
    decode=decode_table(sections.get("decode", {})),
    recurrence=recurrence_table(sections.get("recurrence", {})),
    sweep=sweep_table(sections.get("sweep", {})),
    sweep_device=_devices(sections.get("sweep", {})),
    pictures=pictures,
    busy=max(map(_busy, main.values()), default=0),
    mixers=mixers_tables(sections.get("mixers", {})),
    mixers_busy=_busy(sections.get("mixers", {})),
    recurrence_device=_devices(sections.get("recurrence", {})),
    recurrence_busy=_busy(sections.get("recurrence", {})),
    tpu=tpu_table(),
    accelerators=device_markdown.accelerators(),
    gpu=gpu_table(),
  )


def _busy(section: dict[str, Any]) -> float:
  """Returns the most cores that other programs kept busy before its groups."""
  return max((group.get("busy") or 0 for group in section.values()), default=0)


def _devices(section: dict[str, Any]) -> str:
  """Returns the devices of a section's groups, where they are recorded."""
  return ", ".join(sorted({x["device"] for x in section.values() if x.get("device")}))


def _device(versions: dict[str, dict[str, str]]) -> str:
  named = [side["device"] for side in versions.values() if "device" in side]
  return named[0] if named else "unknown"


def target_table(listed: list[Target]) -> str:
  """Returns one row per target: bound, measured value, verdict."""
  words = {None: "not measured", True: "**met**", False: "not met"}
  rows = []
  for target in listed:
    bound = f"{'≥' if target.at_least else '≤'} {target.bound:g}"
    value = "–" if target.spread is None else with_spread(target.spread)
    value += f" ({target.worst})" if target.worst else ""
    rows.append((target.title, bound, value, words[target.met]))
  return table(("target", "bound", "measured", ""), rows)


def with_spread(quartiles: dict[str, Any]) -> str:
  """Returns the median, with quartiles where there were several rounds."""
  text = number(quartiles["median"])
  if quartiles["rounds"] < 2:
    return text
  return f"{text} [{number(quartiles['low'])}, {number(quartiles['high'])}]"


def _spread_or_dash(quartiles: dict[str, Any] | None) -> str:
  return "–" if quartiles is None else with_spread(quartiles)


def number(value: float) -> str:
  """Returns a number with three significant digits."""
  return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def times_table(op: dict[str, Any], backward: bool) -> str:
  """Returns median milliseconds with quartiles, contenders by lengths."""
  groups = by_length(op, backward)
  names = dict.fromkeys(name for group in groups.values() for name in group["times"])

  def cell(group, name):
    times = group["times"].get(name)
    return with_spread(spread([1e3 * x for x in times])) if times else "–"

  rows = [
    (label(name), *(cell(group, name) for group in groups.values())) for name in names
  ]
  return table(("milliseconds", *(f"L={L}" for L in groups)), rows) if rows else ""


def by_length(op: dict[str, Any], backward: bool) -> dict[int, dict[str, Any]]:
  """Returns the groups of one pass in the order of their lengths."""
  groups = (group for group in op.values() if group["backward"] == backward)
  return {group["L"]: group for group in sorted(groups, key=lambda group: group["L"])}


def memory_table(op: dict[str, Any]) -> str:
  """Returns measured MiB of forward and backward, contenders by lengths."""
  groups = by_length(op, True)
  names = dict.fromkeys(name for group in groups.values() for name in group["bytes"])

  def cell(group, name):
    size = group["bytes"].get(name)
    return "–" if size is None else number(size / 2**20)

  rows = [
    (label(name), *(cell(group, name) for group in groups.values())) for name in names
  ]
  return table(("MiB", *(f"L={L}" for L in groups)), rows) if rows else ""


def label(name: str) -> str:
  """Returns a contender's name for readers."""
  return NAMES.get(name) or f"`{name.split()[0]}`, {' '.join(name.split()[1:])}"


def step_table(step: dict[str, Any], L: int) -> str:
  """Returns speed, share of the peak and speed-ups of everything that trained."""
  main, rows = step[f"L={L}"], []
  for our_dtype in PEER_DTYPES:
    over = [
      {n: x for n, _, x in speedups(step, L, peer, our_dtype)} for peer in PEER_DTYPES
    ]
    for name, group in encodings(step, L, our_dtype):
      cells = (_spread_or_dash(spreads[name]) for spreads in over)
      rows.append(
        (f"`{name}`", our_dtype, *_step_cells(group, f"{name} {our_dtype}"), *cells)
      )
  for name in main["times"]:
    if name.startswith(OTHERS):
      kind, _, dtype = name.rpartition(" ")
      who, dtype = NAMES[kind], PEERS[dtype] if kind.startswith("torch") else dtype
    elif name.endswith("on one device"):
      kind, _, dtype = name.partition(" ")
      who = f"`{kind}`"
    else:
      continue
    rows.append((who, dtype, *_step_cells(main, name), "–", "–"))
  best = [fastest_peer(main, dtype).rpartition(" ")[0] for dtype in PEER_DTYPES]
  columns = [
    f"speed over {NAMES.get(name, 'a peer')} ({dtype})"
    for name, dtype in zip(best, PEER_DTYPES, strict=True)
  ]
  fixed = ("decoder", "numbers", "parameters", "tokens/s", "of the matmul peak")
  header = (*fixed, *columns)
  return table(header, rows)


PEER_DTYPES = tuple(PEERS)


def _step_cells(group: dict[str, Any], name: str) -> Iterator[str]:
  yield f"{group['facts'][name]['parameters']:,}"
  tokens = group["B"] * group["L"]
  speeds = spread([tokens / x for x in group["times"][name]])
  yield f"{speeds['median']:,.0f} [{speeds['low']:,.0f}, {speeds['high']:,.0f}]"
  share = peak_share(group, name)
  yield f"{share['median']:.0%}" if share else "–"


def matmul_peak(step: dict[str, Any]) -> str:
  """Returns the speed of float32 matrix products in 10^9 operations a second."""
  speeds = [
    group["facts"]["matmul"]["flops"] / seconds / 1e9
    for group in step.values()
    for seconds in group["times"].get("matmul", ())
  ]
  return with_spread(spread(speeds)) if speeds else "not measured"


def decode_table(decode: dict[str, Any]) -> str:
  """Returns new tokens a second, and our speed over the peer's."""
  rows = []
  for group in decode.values():
    tokens = group["B"] * group["new"]
    for name, times in group["times"].items():
      speed = with_spread(spread([tokens / x for x in times]))
      ours = not name.startswith(OTHERS)
      over = _spread_or_dash(quotient(group, "torch hf_gpt2", name) if ours else None)
      rows.append((str(group["B"]), NAMES.get(name, f"`{name}`"), speed, over))
  header = ("texts at once", "decoder", "tokens/s", "speed over HuggingFace generate")
  return table(header, rows) if rows else ""


def recurrence_table(recurrence: dict[str, Any]) -> str:
  """Returns milliseconds and sequential operations of a step, models by lengths."""
  groups = sorted(recurrence.values(), key=lambda group: group["L"])
  if not groups:
    return ""

  def cells(name: str) -> Iterator[str]:
    for group in groups:
      yield with_spread(spread([1e3 * x for x in group["times"][name]]))
    for group in groups:
      yield f"{group['facts'][name]['sequential_operations']:,}"

  header = ("model", "parameters", *(f"ms, L={group['L']}" for group in groups))
  header += tuple(f"operations, L={group['L']}" for group in groups)
  facts = groups[0]["facts"]
  rows = [(x, f"{facts[x]['parameters']:,}", *cells(x)) for x in groups[0]["times"]]
  return table(header, rows)


def mixers_tables(mixers: dict[str, Any]) -> dict[str, str]:
  """Returns tables of milliseconds by the pass, and of XLA's plan of memory."""
  tables = {
    "Forward": times_table(mixers, False),
    "Forward and backward": times_table(mixers, True),
  }
  groups = by_length(mixers, True)
  names = dict.fromkeys(n for x in groups.values() for n in x["facts"])
  rows = [
    (NAMES.get(name, name), *(_planned(x, name) for x in groups.values()))
    for name in names
    if not name.startswith(OTHERS)
  ]
  tables["Temporary memory that XLA plans, forward and backward"] = table(
    ("MiB", *(f"L={L}" for L in groups)), rows
  )
  return tables if mixers else {}


def _planned(group: dict[str, Any], name: str) -> str:
  size = group["facts"].get(name, {}).get("temporary_bytes")
  return "–" if size is None else number(size / 2**20)


def sweep_table(sweep: dict[str, Any]) -> str:
  """Returns where the time of the plan's workers went."""
  parts = ("compile", "train", "evaluate", "idle")

  def cells(times: dict[str, Any]) -> Iterator[str]:
    whole = times["wall"] * times["workers"]
    yield f"{times['wall']:.0f} s"
    yield str(times["workers"])
    for part in parts:
      yield f"{times[part]:.0f} s ({times[part] / whole:.0%})"

  rows = [(name, *cells(times)) for name, times in sweep.items()]
  return table(("", "wall", "workers", *parts), rows) if rows else ""


def failures(sections: dict[str, Any]) -> Iterator[str]:
  """Yields the failed cases, once for each contender and message."""
  places: dict[tuple[str, str], list[str]] = {}
  for section in sections.values():
    for name, group in section.items():
      for contender, error in group.get("errors", {}).items():
        places.setdefault((contender, error), []).append(name)
  for (contender, error), where in places.items():
    yield f"{label(contender)} ({', '.join(where)}): {error}"


def gpu_table() -> str:
  """Returns the table of `experiments.bench.aot_gpu`, of programs for an H100."""
  if not GPU.exists():
    return ""
  from experiments.bench import aot_gpu

  return aot_gpu.lines(read_json(GPU))


def tpu_table() -> str:
  """Returns the table of `experiments.bench.aot`, of programs compiled for TPUs."""
  if not TPU.exists():
    return ""
  from experiments.bench import aot

  return aot.table()
