"""Matched budgets, solved: width, layers, units or steps that cost what is wanted."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.runner.cost import COSTS
from experiments.runner.step_time import Timer
from experiments.setup.matching import KEYS, WITHIN, Match, Matched
from experiments.setup.runs import Run
from experiments.setup.validate import SPLIT, ConfigError, resolve
from transformer_jax.mesh_shape import MeshShape
from transformer_jax.training.json_files import FileError, read_object

UNITS = "model.feedforward"
STEPS = "train.steps"
DISPATCH = "train.steps_per_dispatch"
TRIES = 12  # evaluations of one search: interpolation needs three to five
COARSEST = 8  # heads of even or quadruple widths make the largest steps of a width


def solve(
  runs: Sequence[Run],
  baseline: str | None,
  recorded: Mapping[str, Matched],
  timer: Timer | None,
) -> list[Run]:
  """Returns the runs with the values that match them to their group's baseline.

  baseline   label of the run whose cost is wanted, in each group
  recorded   {key: what an earlier command solved}
  timer      measures seconds; None: runs matched by seconds stay unsolved

  Raises ConfigError where no value comes within 1%.
  """
  baselines = {run.group: run for run in runs if run.label == baseline}
  if lacking := [r for r in runs if r.match and r.group not in baselines]:
    raise ConfigError(
      f"group '{lacking[0].group}' has no '{baseline}', whose {_match(lacking[0])} its"
      " runs are to match; add it to the group, or match=None"
    )
  return [_solve(run, baselines.get(run.group), recorded, timer) for run in runs]


def _match(run: Run) -> str:
  assert run.match is not None
  return run.match.quantity


def _solve(
  run: Run,
  baseline: Run | None,
  recorded: Mapping[str, Matched],
  timer: Timer | None,
) -> Run:
  match = run.match
  if match is None or baseline is None or run is baseline:
    return run
  key = " ".join((run.id, baseline.id, match.quantity, match.by))
  matched = recorded.get(key)
  if matched is None and (match.quantity != "seconds" or timer):
    solution = _solution(run, baseline, match, timer)
    matched = Matched(
      match.quantity, match.by, baseline.label, key, *dataclasses.astuple(solution)
    )
    if abs(matched.off) > WITHIN:
      raise ConfigError(_refusal(run, matched))
  if matched is None:
    return run
  return dataclasses.replace(run.with_values(matched.overrides), matched=matched)


@dataclasses.dataclass(frozen=True)
class Solution:
  """Values that were found, with the wanted cost and theirs.

  >>> Solution({"train.steps": 51}, want=1000.0, got=1005.0).equal
  True
  """

  overrides: dict[str, Any]
  want: float
  got: float

  @property
  def equal(self) -> bool:
    """Returns whether the costs are equal to 1%."""
    return abs(self.got / self.want - 1) <= WITHIN


def _solution(run: Run, baseline: Run, match: Match, timer: Timer | None) -> Solution:
  """Returns the values nearest to the baseline's cost."""
  if match.quantity == "seconds":
    assert timer is not None
    return by_seconds(run.config, baseline.config, timer)
  cost = COSTS[match.quantity]
  want, got = cost(baseline.config), cost(run.config)
  solution = Solution({}, want, got)
  if solution.equal:
    return solution
  if match.by == STEPS:
    return by_steps(run.config, got / run.config.train.steps, want)
  solution = by_size(run.config, match.by, cost, want)
  if solution.equal or match.by == UNITS:
    return solution
  coarse = solution.overrides
  finer = by_size(resolve(run.config, coarse), UNITS, cost, want)
  return dataclasses.replace(finer, overrides=coarse | finer.overrides)


def _refusal(run: Run, matched: Matched) -> str:
  others = [key for key in KEYS[matched.quantity] if key != matched.by]
  write = f"Match('{matched.quantity}', by='{others[0]}')" if others else "more steps"
  keys = dict.fromkeys([matched.by, *matched.overrides])
  return (
    f"{run.group} {run.label}: no {' with '.join(keys)} has the {matched.quantity} of"
    f" {matched.baseline} within {WITHIN:.0%}: the nearest is {matched.off:+.1%}; write"
    f" {write}"
  )


def by_seconds(config: ConfigDict, baseline: ConfigDict, timer: Timer) -> Solution:
  """Returns the steps that take as long as the baseline's.

  Steps of shorter dispatches take longer: they are measured again.
  """
  shorter: dict[str, int] = {}
  while True:
    # Both in the same minutes: another load of the machine would be a difference.
    each, want_each = timer(resolve(config, shorter), baseline)
    want = want_each * baseline.train.steps
    solution = by_steps(resolve(config, shorter), each, want)
    if DISPATCH not in solution.overrides:
      return dataclasses.replace(solution, overrides=solution.overrides | shorter)
    shorter = {DISPATCH: solution.overrides[DISPATCH]}


def by_steps(config: ConfigDict, each: float, want: float) -> Solution:
  """Returns the steps nearest to a cost of training.

  each   cost of one step
  want   cost of all

  Dispatches become shorter where whole ones do not come near.
  """
  target, dispatch = want / each, config.train.steps_per_dispatch
  for length in (n for n in range(dispatch, 0, -1) if dispatch % n == 0):
    steps = max(1, round(target / length)) * length
    if abs(steps / target - 1) <= WITHIN / 2:
      break
  overrides = {STEPS: steps}
  overrides |= {} if length == dispatch else {DISPATCH: length}
  return Solution(overrides, want, steps * each)


def by_size(
  config: ConfigDict, key: str, cost: Callable[[ConfigDict], float], want: float
) -> Solution:
  """Returns the value of a size nearest to a cost that grows with it.

  Interpolates between the nearest values tried: costs are polynomials of sizes.
  """
  section, _, name = key.partition(".")
  start = config[section][name]
  known: dict[int, float] = {}

  def attempt(value: int) -> float | None:
    if value not in known:
      try:
        known[value] = cost(resolve(config, {key: value}))
      except ValueError:
        return None
    return known[value]

  step = _step(attempt, config, key, start)
  if attempt(start) is not None and step:
    for _ in range(TRIES):
      value = _next(known, want, start, step)
      if value in known or attempt(value) is None or _near(known[value], want):
        break
  best = min(known, key=lambda value: (abs(known[value] - want), value))
  changed = {} if best == start else {key: best}
  return Solution(changed, want, known[best])


def _step(
  attempt: Callable[[int], float | None], config: ConfigDict, key: str, start: int
) -> int:
  """Returns the smallest change of a size that the model allows; 0: none."""
  shape = MeshShape(**config.mesh)
  heads = 1 if config.model.head_width else config.model.heads
  divided = {k: shape.parts(letter)[1] for k, letter in SPLIT.items()}
  divided["model.width"] = math.lcm(divided["model.width"], heads)
  least = divided.get(key, 1)
  steps = [least * 2**n for n in range(COARSEST.bit_length())]
  return next((step for step in steps if attempt(start + step) is not None), 0)


def _next(known: Mapping[int, float], want: float, start: int, step: int) -> int:
  """Returns the value at which the line through the two nearest has the wanted cost."""
  below = [x for x, cost in known.items() if cost <= want]
  above = [x for x, cost in known.items() if cost > want]
  if below and above:
    low, high = max(below), min(above)
  else:
    low, high = sorted(known, key=lambda x: abs(known[x] - want))[:2]
  slope = (known[high] - known[low]) / (high - low)
  if not slope:
    return start
  value = low + (want - known[low]) / slope
  return _on_grid(value, known, start, step)


def _near(cost: float, want: float) -> bool:
  return abs(cost / want - 1) <= WITHIN / 20


def _on_grid(value: float, known: Iterable[int], start: int, step: int) -> int:
  """Returns the allowed value nearest to one; at least one step, at most doubling."""
  least = start % step or step
  value = min(max(value, least), 4 * max(known))
  return start + round((value - start) / step) * step


def recorded(workdir: Path) -> dict[str, Matched]:
  """Returns {key: what is solved} of a folder's sweep.json, {} where it has none."""
  try:
    entries = read_object(workdir / "sweep.json").get("runs", ())
  except (OSError, FileError):
    return {}
  dicts = [x.get("matched") for x in entries if isinstance(x, dict)]
  values = [Matched.recorded(x) for x in dicts if isinstance(x, dict)]
  return {value.key: value for value in values if value}
