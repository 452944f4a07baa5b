"""How far numbers of a core are from those of `dense`, and how far they may be."""

import dataclasses
from collections.abc import Iterator

import numpy as np

# The output, and gradients by the name of their array.
ArraysByName = dict[str, np.ndarray]

# Relative errors that rounding explains in any order of sums, by the type of values.
ROUNDING = {"float32": 2e-5, "bfloat16": 2e-2, "float16": 4e-3}
TIMES = 3.0  # a core may be off by this many times the error of `dense`
BLOCK = (
  16  # tokens that are measured by their own largest number: early queries mix few
)
# values and are large, so that one wrong tile at the end would be small beside them
LEAST = 0.02  # of the whole array's: what blocks of smaller numbers are measured by
# Kernels take the sum of each row's gradients from rounded outputs (Dao et al., section
# B.2). A parameter that moves whole rows of scores gets the sum of these errors: with
# FIRE in bfloat16 4% of the largest gradient of parameters, where dense has 0.5%. So in
# half precision parameters are measured by the largest gradient of all, and a second
# time in float32.
OF_PARAMETERS = 5.0  # times as much
# In float32 each is measured by its own, if that is more than rounding: the gradient of
# a shift of all scores is nothing else.
SMALL, NOTHING = 0.05, 1e-4  # of the largest gradient of parameters


@dataclasses.dataclass(frozen=True)
class Deviation:
  """The worst difference of one array from `dense` in float32, over its largest number.

  error     of the core
  usual     of `dense` in the same types
  allowed   greatest error that is no fault

  >>> Deviation("output", error=float("nan"), usual=0.0, allowed=1e-3).fine
  False
  """

  name: str
  error: float
  usual: float
  allowed: float

  @property
  def fine(self) -> bool:
    """Returns whether the error is no fault; NaN is one."""
    return self.error <= self.allowed

  @property
  def share(self) -> float:
    """The error over what is allowed; infinite for NaN."""
    return self.error / self.allowed if np.isfinite(self.error) else np.inf


def deviations(
  found: ArraysByName, usual: ArraysByName, exact: ArraysByName, dtype: str
) -> list[Deviation]:
  """Returns the deviation of each array.

  found   of the core
  usual   of `dense` in the same types
  exact   of `dense` in float32
  dtype   of the values

  >>> right = {"output": np.ones((1, 32, 1, 2)), "gradient of params/n_H": np.ones(2)}
  >>> [x.fine for x in deviations(right, right, right, "float32")]
  [True, True]
  """
  sizes = {name: _largest(x) for name, x in exact.items()}
  most = max((size for name, size in sizes.items() if "/" in name), default=1.0)
  each = []
  for name, want in exact.items():
    allowed = ROUNDING[dtype] * (OF_PARAMETERS if "/" in name else 1.0)
    parts = _parts(name, want, sizes[name], most, dtype)
    each.append(
      max(
        (
          _deviation(name, found[name][at], usual[name][at], want[at], size, allowed)
          for at, size in parts
        ),
        key=lambda one: one.share,
      )
    )
  return each


def _deviation(name, found, usual, want, size, allowed) -> Deviation:
  error, usual_error = (_largest(x - want) / size for x in (found, usual))
  return Deviation(name, error, usual_error, TIMES * usual_error + allowed)


def _parts(
  name: str, want: np.ndarray, size: float, most: float, dtype: str
) -> Iterator[tuple]:
  """Yields (index, what it is measured by) of the parts of an array.

  name    of the array; parameters have a path
  want    its right numbers
  size    the largest of them
  most    the largest gradient of parameters
  dtype   of the values
  """
  if "/" in name:
    alone = dtype == "float32" and size > NOTHING * most
    yield (), (max(size, SMALL * most) if alone else most) or 1.0
  elif want.ndim < 3:  # one number for each head
    yield (), size or 1.0
  else:
    for start in range(0, want.shape[1], BLOCK):
      at = slice(None), slice(start, start + BLOCK)
      yield at, max(_largest(want[at]), LEAST * size) or 1.0


def _largest(x: np.ndarray) -> float:
  return float(np.abs(x).max(initial=0.0))


def fault(
  found: ArraysByName, usual: ArraysByName, exact: ArraysByName, dtype: str
) -> str | None:
  """Returns what is wrong with the numbers of a core, or None.

  Arguments are those of `deviations`.

  >>> right, off = {"output": np.ones(3)}, {"output": np.array([1.0, 1.0, 1.1])}
  >>> print(fault(right, right, right, "float32"))
  None
  >>> fault(off, right, right, "float32")
  'wrong output: off by 0.1 of the largest number, dense by 0'
  """
  for each in deviations(found, usual, exact, dtype):
    if not np.isfinite(each.error):
      return f"wrong {each.name}: not finite"
    if not each.fine:
      return (
        f"wrong {each.name}: off by {each.error:.2g} of the largest number, dense by"
        f" {each.usual:.2g}"
      )
  return None
