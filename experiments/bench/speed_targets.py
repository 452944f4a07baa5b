"""Targets of the benchmark, and whether they are met."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.bench.measure import ratio

Sections = dict[str, dict[str, dict[str, Any]]]
BACKWARD = "forward and backward"
RELATIVE = ("t5", "alibi", "per_distance")
OTHERS = ("torch", "flax")  # how names of peers start
PEERS = {"float32": "float32", "bfloat16": "bfloat16 autocast"}
ANCHOR = "torch x_transformers float32"  # the peer in every group of training steps


@dataclasses.dataclass(frozen=True)
class Target:
  """A quotient with its spread, and a bound for its median.

  title      of the quotient
  at_least   the bound is a lower one; else an upper one
  spread     low, median, high and rounds; None: not measured
  worst      name of the case, where the worst of several is shown

  >>> faster = Target("times faster than PyTorch", 5, True, {"median": 7.1})
  >>> faster.met, Target("times slower", 1.1, False, {"median": 1.2}).met
  (True, False)
  """

  title: str
  bound: float
  at_least: bool
  spread: dict[str, Any] | None
  worst: str = ""

  @property
  def met(self) -> bool | None:
    if self.spread is None:
      return None
    median = self.spread["median"]
    return median >= self.bound if self.at_least else median <= self.bound


def targets(sections: Sections) -> Iterator[Target]:
  """Yields every target, with None where nothing was measured."""
  op, step = sections.get("op", {}), sections.get("step", {})
  group = op.get(f"L=4096 {BACKWARD}", {})
  ours = "t5 auto"
  place = "attention with T5 bias, L = 4096, forward and backward"
  yield _one(f"{place}: times faster than PyTorch SDPA with the bias", 5, True, group,
    "torch bias", ours)  # fmt: skip
  yield _one(f"{place}: time over PyTorch's fused causal kernel without bias", 1.1,
    False, group, ours, "torch causal")  # fmt: skip
  yield _one(f"{place}: times faster than dense", 3, True, group, "t5 dense", ours)
  yield memory(op)
  yield worst("a relative bias: time over no bias, any L from 1024", 1.15, False,
    _bias_costs(op))  # fmt: skip
  yield worst("auto: time over the fastest core, any L", 1.05, False, _auto(op))
  yield from _steps(step)
  yield from _mixers(sections.get("mixers", {}))
  cold = sections.get("sweep", {})
  for name in sorted(cold) or ["cold cache"]:
    title = f"quickstart plan, {name}: share of compile and idle"
    yield Target(title, 0.2, False, _overhead(cold.get(name)))


def _mixers(groups: dict[str, Any]) -> Iterator[Target]:
  """Yields the targets of the recurrence in chunks, and of a layer with it."""
  title = "the gated delta rule in chunks, any L: times faster than PyTorch's chunks"
  cases = {n: quotient(group, "torch chunks", "chunks") for n, group in groups.items()}
  yield worst(title, 1.0, True, {n: x for n, x in cases.items() if x})
  cases = {
    n: quotient(group, "layer gated_delta", "layer multihead")
    for n, group in groups.items()
    if group["L"] == 4096
  }
  title = "a layer of gated_delta, L = 4096: time over one of softmax attention"
  yield worst(title, 1.0, False, {n: x for n, x in cases.items() if x})


def quotient(group: dict[str, Any], above: str, below: str) -> dict[str, Any] | None:
  """Returns the spread of a quotient of two contenders, None if one is missing."""
  times = group.get("times", {})
  return ratio(times[above], times[below]) if {above, below} <= {*times} else None


def _one(
  title: str, bound: float, at_least: bool, group: dict, above: str, below: str
) -> Target:
  """Returns the target of one quotient.

  title          of the quotient
  bound          for its median; at_least: a lower bound
  group          with the measured times
  above, below   contenders
  """
  return Target(title, bound, at_least, quotient(group, above, below))


def worst(
  title: str, bound: float, at_least: bool, cases: Mapping[str, dict[str, Any]]
) -> Target:
  """Returns the target for the worst case."""
  if not cases:
    return Target(title, bound, at_least, None)
  pick = min if at_least else max
  name = pick(cases, key=lambda name: cases[name]["median"])
  return Target(title, bound, at_least, cases[name], name)


def memory(op: dict[str, Any]) -> Target:
  """Peak memory for each doubling of L: 2 is linear, 4 would be quadratic.

  Over the whole range, since the memory of one length varies by a tenth.
  """
  title = "peak memory for each doubling of L up to 32768, forward and backward"
  title += " (2 is linear)"
  long = [g for g in op.values() if g["backward"] and g["L"] >= 8192]
  held = {g["L"]: g["bytes"].get("t5 auto") or 0 for g in long}
  held = {L: size for L, size in held.items() if size}
  if len(held) < 2:
    return Target(title, 2.2, False, None)
  planned = {g["L"]: g["facts"]["t5 auto"]["temporary_bytes"] for g in long}
  ends = min(held), max(held)

  def growth(sizes: Mapping[int, float]) -> float:
    return (sizes[ends[1]] / sizes[ends[0]]) ** (1 / math.log2(ends[1] / ends[0]))

  case = f"{ends[0]} to {ends[1]}; XLA's plan: {growth(planned):.2f}"
  return Target(title, 2.2, False, _exact(growth(held)), case)


def _overhead(seconds: Mapping[str, float] | None) -> dict[str, Any] | None:
  """Returns the share of workers' time that compiles or idles; None: not measured."""
  if seconds is None:
    return None
  time = seconds["wall"] * seconds["workers"]
  return _exact((seconds["compile"] + seconds["idle"]) / time)


def _exact(value: float) -> dict[str, Any]:
  return {"low": value, "median": value, "high": value, "rounds": 1}


def _bias_costs(op) -> dict[str, dict]:
  return {
    f"{encoding}, {name}": spread
    for name, group in op.items()
    if group["L"] >= 1024
    for encoding in RELATIVE
    if (spread := quotient(group, f"{encoding} auto", "none auto"))
  }


def _auto(op) -> dict[str, dict[str, Any]]:
  """Returns auto against the core that is fastest by its median."""
  cases: dict[str, dict[str, Any]] = {}
  for name, group in op.items():
    for encoding in {c.split()[0] for c in group["times"] if c.endswith(" dense")}:
      others = [f"{encoding} {core}" for core in ("dense", "blockwise")]
      against = [_against(group, f"{encoding} auto", other) for other in others]
      measured = [spread for spread in against if spread is not None]
      if measured:
        cases[f"{encoding}, {name}"] = max(measured, key=lambda x: x["median"])
  return cases


def _against(group, auto: str, other: str) -> dict[str, Any] | None:
  """Returns the quotient of two cases; where both are one program it is 1."""
  programs = [group["facts"].get(x, {}).get("program", x) for x in (auto, other)]
  spread = quotient(group, auto, other)
  return _exact(1.0) if spread and programs[0] == programs[1] else spread


def _steps(step) -> Iterator[Target]:
  """Yields the targets of whole training steps at 256 tokens."""
  place = "training step, L = 256, slowest encoding"
  for dtype, kind in PEERS.items():
    cases = {n: x for n, _, x in speedups(step, 256, dtype, dtype) if x}
    title = f"{place}: {dtype} speed over the fastest {kind} peer"
    yield worst(title, 1.5 if dtype == "float32" else 1.0, True, cases)
  cases = {
    name: share
    for name, group in encodings(step, 256)
    if (share := peak_share(group, f"{name} float32"))
  }
  yield worst(f"{place}: share of the measured matmul peak", 0.5, True, cases)


def encodings(step, L: int, dtype="float32") -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields our encodings, each with the group it was measured in."""
  for group in step.values():
    if group["L"] == L:
      for name in group["times"]:
        if name.endswith(f" {dtype}") and not name.startswith(OTHERS):
          yield name.split()[0], group


def speedups(
  step, L: int, dtype: str, our_dtype: str = "float32"
) -> Iterator[tuple[str, dict, dict | None]]:
  """Yields how much faster a step of each encoding is than the fastest peer.

  L           tokens in a text
  dtype       of the peer
  our_dtype   of this project

  Groups after the first hold one peer only: their quotients are taken with that one
  and multiplied with the ratio of the two in the first group.
  """
  main = step.get(f"L={L}", {})
  peer = fastest_peer(main, dtype)
  for name, group in encodings(step, L, our_dtype):
    spread = quotient(group, peer, f"{name} {our_dtype}")
    between = quotient(main, peer, ANCHOR)
    if spread is None and between:
      spread = scaled(quotient(group, ANCHOR, f"{name} {our_dtype}"), between["median"])
    yield name, group, spread


def scaled(spread: dict[str, Any] | None, factor: float) -> dict[str, Any] | None:
  """Returns a spread in other units."""
  if spread is None:
    return None
  return {k: v if k == "rounds" else v * factor for k, v in spread.items()}


def fastest_peer(group: dict[str, Any], dtype: str) -> str:
  """Returns the peer with the lowest median."""
  times = group.get("times", {})
  peers = [n for n in times if n.startswith(OTHERS) and n.endswith(dtype)]

  def median(name: str) -> float:
    return sorted(times[name])[len(times[name]) // 2]

  return min(peers, key=median, default="")


def peak_share(group: dict[str, Any], name: str) -> dict[str, Any] | None:
  """Returns a step's share of the matrix products' speed, round by round."""
  spread = quotient(group, "matmul", name)
  if not spread:
    return None
  work = step_flops(group["B"], group["L"]) / group["facts"]["matmul"]["flops"]
  return scaled(spread, work)


def step_flops(B: int, L: int, V=8192, D=256, N=6) -> int:
  """Returns a training step's operations: the model's own, nothing recomputed.

  B         sequences
  L         tokens of each
  V, D, N   vocabulary, width and layers

  6 for each weight in a matrix product and token (12 D^2 in a layer, D V at the end)
  and 12 L D in a layer for scores and mixture, half of it for causal attention.
  """
  return B * L * (6 * (N * 12 * D * D + D * V) + N * 12 * L * D // 2)
