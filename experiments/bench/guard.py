"""`make bench-check`: quotients measured again and compared with the recorded ones."""

from collections.abc import Iterator
from typing import Any

from experiments.bench.speed_targets import peak_share, quotient

SLACK = 1.3  # how much worse than recorded still passes: other machines, other loads


def quotients(groups: dict[str, dict[str, Any]]) -> dict[str, tuple[bool, dict]]:
  """Returns, by name, whether more is better and the spread."""
  return {name: (more, spread) for name, more, spread in _quotients(groups) if spread}


def _quotients(groups) -> Iterator[tuple[str, bool, dict | None]]:
  for L in (512, 2048):
    group = groups.get(f"L={L}", {})
    yield f"T5, L={L}: dense over auto", True, quotient(group, "t5 dense", "t5 auto")
    for encoding in ("t5", "rope", "fire"):
      spread = quotient(group, f"{encoding} auto", "none auto")
      yield f"L={L}: {encoding} over none", False, spread
    for core in ("dense", "blockwise"):
      spread = quotient(group, "t5 auto", f"t5 {core}")
      yield f"T5, L={L}: auto over {core}", False, spread
  yield "T5: memory of L=2048 over L=512", False, _memory(groups)
  step = groups.get("step", {})
  share = peak_share(step, "rope float32") if step else None
  yield "training step: share of the matmul peak", True, share


def _memory(groups) -> dict[str, Any] | None:
  """Returns the quotient of XLA's plans, which has no spread."""

  def plan(L: int) -> int:
    return groups[f"L={L}"]["facts"]["t5 auto"]["temporary_bytes"]

  try:
    value = plan(2048) / plan(512)
  except KeyError:
    return None
  return {"low": value, "median": value, "high": value, "rounds": 1}


def worse(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
  """Returns a line for each quotient that got worse by more than the slack.

  A quotient is held by its better quartile: noise in a few rounds does not fail it.
  """
  before, lines = quotients(recorded), []
  for name, (more, spread) in quotients(now).items():
    if name not in before:
      continue
    was = before[name][1]["median"]
    best = spread["high"] if more else spread["low"]
    loss = was / best if more else best / was
    if loss > SLACK:
      lines.append(
        f"{name}: {spread['median']:.2f} now, {was:.2f} recorded ({loss:.2f}x worse,"
        f" {SLACK}x is the limit)"
      )
  return lines
