"""Quick checks of a user's measure on small random outputs, with NumPy."""

import dataclasses
import functools
from typing import Any

import numpy as np

from transformer_jax import numpy_interpreter
from transformer_jax.evaluation.measures import (
  ANY,
  Measure,
  Outputs,
  measures,
  name_of,
)
from transformer_jax.members import check_members, failed, outside
from transformer_jax.spec import SpecError

B, L, V = 4, 6, 5


class _NeedsModelError(Exception):
  """A measure reads activations: only the model itself can try it."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Probe(Outputs):
  """Outputs of no model."""

  def attention_weights(self):
    raise _NeedsModelError

  def hidden_states(self):
    raise _NeedsModelError


@functools.lru_cache(maxsize=128)
def check(measure: Measure) -> None:
  """Raises SpecError if a user's measure contradicts what Measure promises.

  Each example has one finite score, which depends on no other example and on no
  prediction that does not count.
  """
  if not outside(type(measure)):
    return
  check_members(measure, Measure)
  name = type(measure).__name__
  if measure.better not in ("lower", "higher"):
    raise SpecError(
      f"{name}.better is {measure.better!r}; write better = 'lower' or 'higher'"
    )
  _check_bounds(measure.bounds, name)
  if type(measure).score is Measure.score:
    raise SpecError(f"{name} has no score(); write what Measure.score says")
  try:
    _check_numbers(measure, f"{name}.score")
  except _NeedsModelError:
    return


def check_targets(measure: Measure, targets: str) -> None:
  """Raises SpecError for a measure of labels where targets are numbers, or reversed."""
  if measure.targets not in (ANY, targets):
    fitting = [
      name for name, each in measures.items() if _targets(each) in (ANY, targets)
    ]
    raise SpecError(
      f"the measure {name_of(measure)} is of {measure.targets}, and this task's targets"
      f" are {targets}; write one of {', '.join(fitting)}"
    )


def _targets(kind: Any) -> str:
  return kind.targets


def _check_bounds(bounds: Any, name: str) -> None:
  ends = bounds if isinstance(bounds, tuple) else ()
  known = [end for end in ends if end is not None]
  numbers = all(isinstance(end, int | float) for end in known)
  if len(ends) != 2 or not numbers or known != sorted({*known}):
    raise SpecError(
      f"{name}.bounds is {bounds!r}; write the least and the largest value, as in"
      " bounds = (0.0, 1.0), with None where there is none"
    )


def _check_numbers(measure: Measure, where: str) -> None:
  rng = np.random.default_rng(0)
  logits_BLV = rng.normal(size=(B, L, V)).astype(np.float32)
  target_BL = rng.integers(0, V, (B, L)).astype(np.int32)
  weight_BL = np.tile(np.array([0, 0, 1, 1, 0, 1], np.float32), (B, 1))
  x_B = _score(measure, where, logits_BLV, target_BL, weight_BL)
  check_scores(where, x_B.shape, B)
  if not np.isfinite(x_B).all():
    raise SpecError(
      f"{where} returns {x_B.tolist()} for plain logits; scores must be finite"
    )
  half_B = _score(measure, where, logits_BLV[:2], target_BL[:2], weight_BL[:2])
  if not np.allclose(half_B, x_B[:2], rtol=1e-4, atol=1e-5):
    raise SpecError(
      f"{where} gives an example another score beside other examples; reduce over the"
      " places and features of each example alone"
    )
  other_BLV = np.where(weight_BL[..., None] > 0, logits_BLV, -logits_BLV)
  other_B = _score(measure, where, other_BLV, target_BL, weight_BL)
  if not np.allclose(other_B, x_B, rtol=1e-4, atol=1e-5):
    raise SpecError(
      f"{where} reads predictions whose weight is 0, padding among them; return"
      " outputs.mean(x_BL), or multiply by outputs.weight_BL"
    )


def check_scores(where: str, shape: tuple[int, ...], examples: int) -> None:
  """Raises SpecError unless there is one score for each example."""
  if shape != (examples,):
    raise SpecError(
      f"{where} returns shape {shape} for {examples} examples, and it must be"
      f" {(examples,)}: one score for each"
    )


def _score(measure: Measure, where: str, *arrays: np.ndarray) -> np.ndarray:
  def score(logits_BLV: Any, target_BL: Any, weight_BL: Any) -> Any:
    real_BL = weight_BL >= 0
    outputs = _Probe(logits_BLV, target_BL, weight_BL, real_BL, None, None, ())
    return measure.score(outputs)

  try:
    return np.asarray(numpy_interpreter.evaluate(score, *arrays))
  except (_NeedsModelError, SpecError):
    raise
  except Exception as error:  # any error of a user's code, reported with its place
    raise failed(where, error) from error
