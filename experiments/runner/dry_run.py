"""What a dry run prints: configs, parameters, FLOPs, memory and attention cores."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.setup import config_file
from experiments.setup.command_line import Request
from experiments.setup.runs import Run
from experiments.setup.validate import flatten
from transformer_jax.untrusted import shown

# `train` imports all libraries, for half a second: the function that needs it does.


def describe(request: Request, todo: Sequence[Run]) -> int:
  """Prints configs, parameters, FLOPs, memory and cores of the runs; trains nothing."""
  from experiments.runner.train import describe as cost_of

  file = config_file.short(request.path)
  print(f"{counted(todo)} of {file} would go to {request.workdir}")
  if not request.compile:
    print("no data is read and nothing compiled; --compile does both: peak memory")
  flat = [flatten(run.config) for run in todo]
  common = {key for key in flat[0] if all(f[key] == flat[0][key] for f in flat)}
  for key, value in flat[0].items():
    print(f"  {key} = {value!r}" if key in common else f"  {key}: see the runs")
  failed = 0
  for number, (run, keys) in enumerate(zip(todo, flat, strict=True), 1):
    varied = " ".join(f"{key}={keys[key]!r}" for key in keys if key not in common)
    print(f"[{number}/{len(todo)}] {run.group} {run.label} ({run.id}) {varied}")
    if run.matched:
      print(f"  {run.matched.sentence()}")
    elif run.match and run.match.quantity == "seconds":
      print("  seconds matched: steps are measured as the sweep starts")
    if run.tuned:
      print(f"  tuned: {run.tuned.sentence()}")
    try:
      print(f"  {summary(cost_of(run.config, request.compile))}", flush=True)
    except (ValueError, NotImplementedError) as error:
      print(f"  error: {shown(error)}", flush=True)
      failed += 1
  return 1 if failed else 0


def summary(cost: Mapping[str, Any]) -> str:
  """Returns one line on the cost of a run; cost is that of `train.describe`."""
  parts = [
    f"{cost['parameters']:,} parameters ({cost['position_parameters']:,} positional"
    + (f", {cost['active_parameters']:,} for a token)" if _chosen(cost) else ")"),
    f"{cost['flops_per_token']:,.0f} FLOPs per token",
    f"{_mib(cost['state_bytes'])} of parameters and moments",
    f"attention {cost['core']}",
  ]
  parts += [f"{_mib(cost['peak_bytes'])} to train"] if "peak_bytes" in cost else []
  parts += [f"not {core}: {reason}" for core, reason in cost["core_refusals"].items()]
  parts += [_starts(cost["start"])] if "start" in cost else []
  return "; ".join(parts)


def _chosen(cost: Mapping[str, Any]) -> bool:
  """Returns whether tokens choose some of the parameters, those of experts."""
  return "active_parameters" in cost


def _mib(size: int) -> str:
  return f"{size / 2**20:,.1f} MiB"


def _starts(start: Mapping[str, Any]) -> str:
  """Returns a clause on the pretrained parameters."""
  counts = (f"{len(start[key])} {key.replace('_', ' ')}" for key in ("new", "left_out"))
  return (
    f"starts from {start['parameters']:,} parameters of {start['folder']}"
    f" ({', '.join(counts)})"
  )


def counted(todo: Sequence[Run]) -> str:
  """Returns "3 runs"."""
  return f"{len(todo)} run{'s' * (len(todo) > 1)}"
