"""One check: a core against `dense` on the same device, values and all gradients."""

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.attention.cores.base import Core, cores
from transformer_jax.attention.cores.self_check import check_inputs
from transformer_jax.attention.cores.self_check.scheme import CallScheme

# Relative errors that rounding explains in any order of sums, by the type of values.
ROUNDING = {"float32": 2e-5, "bfloat16": 2e-2, "float16": 4e-3}
# Kernels take the sum of each row's gradients from rounded outputs (Dao et al., section
# B.2). A parameter that moves whole rows of scores gets the sum of these errors: with
# FIRE in bfloat16 4% of the largest gradient of parameters, where dense has 0.5%.
OF_PARAMETERS = 5.0  # times as much
TIMES = 3.0  # a core may be off by this many times the error of `dense`
NOTHING = {"g", "scale_H"}  # no gradient, unless the scale is an array


def trial(scheme: CallScheme, device: jax.Device) -> str | None:
  """Returns why a core cannot be used for a scheme on a device, or None.

  Takes the time of three small programs to compile. It may be called while another
  program is traced.
  """
  return _apart(functools.partial(_trial, scheme, device))


def _apart(call: Any) -> Any:
  """Returns the result of a call in a thread, whose JAX traces nothing else."""
  with ThreadPoolExecutor(1) as threads:
    return threads.submit(call).result()


def _trial(scheme: CallScheme, device: jax.Device) -> str | None:
  with jax.default_device(device):
    try:
      arrays = check_inputs.make(scheme)
      usual = run(cores.build("dense"), scheme, arrays)
      wide = exact(scheme, arrays)
    except Exception as error:  # what a part of a user's own may raise
      return f"could not be checked: {words(error)}"
    try:
      found = run(scheme.core, scheme, arrays)
    except Exception as error:  # the compiler's own kinds of errors are not public
      return f"did not compile: {words(error)}"
  return compare(found, usual, wide, ROUNDING[scheme.dtypes[2]])


def words(error: Exception) -> str:
  """Returns an error in one short line.

  >>> words(ValueError("a tile of (8, 4) ..."))
  'ValueError: a tile of (8, 4) ...'
  """
  return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def exact(scheme: CallScheme, arrays: Any) -> dict[str, np.ndarray]:
  """Returns what `dense` computes in float32, without the device's short products."""

  def wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x

  with jax.default_matmul_precision("highest"):
    return run(cores.build("dense"), scheme, jax.tree.map(wide, arrays))


def run(core: Core, scheme: CallScheme, arrays: Any) -> dict[str, np.ndarray]:
  """Returns {name: the output, or the gradient of an array}, float32."""
  unused = NOTHING - ({"scale_H"} if scheme.scale is None else set())
  floats, rest = split({n: x for n, x in arrays.items() if n not in unused})
  rest |= {"g": arrays["g"]}

  def total(floats: dict[str, Any], rest: dict[str, Any]) -> Any:
    whole = joined(floats | rest)
    context = check_inputs.context_of(scheme, whole)
    out = core.attend(whole["q"], whole["k"], whole["v"], context)
    return jnp.sum(out.astype(jnp.float32) * whole["g"].astype(jnp.float32)), out

  gradient = jax.jit(jax.value_and_grad(total, has_aux=True))
  (_, out), gradients = gradient(floats, rest)
  found = {"output": out} | {f"gradient of {n}": x for n, x in gradients.items()}
  return {name: np.asarray(x).astype(np.float32) for name, x in found.items()}


def split(arrays: Any) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns {path: array} of the floats of a dict of arrays and dicts, and of others.

  >>> floats, rest = split({"q": np.ones(2), "params": {"n": np.ones(2, int)}})
  >>> [*floats], [*rest]
  (['q'], ['params/n'])
  """
  flat: dict[str, Any] = {}
  for name, x in arrays.items():
    flat |= (
      {f"{name}/{n}": y for n, y in x.items()} if isinstance(x, dict) else {name: x}
    )
  floats = {n: x for n, x in flat.items() if jnp.issubdtype(x.dtype, jnp.floating)}
  return floats, {n: x for n, x in flat.items() if n not in floats}


def joined(flat: dict[str, Any]) -> dict[str, Any]:
  """Returns the dict that was split; parts without arrays are empty."""
  whole: dict[str, Any] = {"params": {}, "variant_params": {}}
  for path, x in flat.items():
    name, _, inner = path.partition("/")
    if inner:
      whole[name][inner] = x
    else:
      whole[name] = x
  return whole


def compare(
  found: dict[str, np.ndarray],
  usual: dict[str, np.ndarray],
  exact: dict[str, np.ndarray],
  rounding: float,
) -> str | None:
  """Returns what is wrong with numbers of a core, or None.

  found      output and gradients of the core
  usual      those of `dense` in the same types
  exact      those of `dense` in float32
  rounding   relative error that is no fault

  >>> right, off = {"output": np.ones(3)}, {"output": np.array([1.0, 1.0, 1.1])}
  >>> print(compare(right, right, right, 1e-3))
  None
  >>> compare(off, right, right, 1e-3)
  'wrong output: off by 0.1 of the largest number, dense by 0'
  """
  for each in deviations(found, usual, exact, rounding):
    if not np.isfinite(each.error):
      return f"wrong {each.name}: not finite"
    if not each.fine:
      return (
        f"wrong {each.name}: off by {each.error:.2g} of the largest number, dense by"
        f" {each.usual:.2g}"
      )
  return None


@dataclasses.dataclass(frozen=True)
class Deviation:
  """Largest difference of one array from `dense` in float32, over its largest number.

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


def deviations(
  found: dict[str, np.ndarray],
  usual: dict[str, np.ndarray],
  exact: dict[str, np.ndarray],
  rounding: float,
) -> list[Deviation]:
  """Returns the deviation of each array; arguments as in `compare`."""
  sizes = {name: _largest(x) for name, x in exact.items()}
  most = max((size for name, size in sizes.items() if "/" in name), default=1.0)
  each = []
  for name, want in exact.items():
    # The gradient of a shift of all scores is nothing but rounding: parameters are
    # measured by the largest gradient of all of them.
    of_parameter = "/" in name
    size = (most if of_parameter else sizes[name]) or 1.0
    error, usual_error = (_largest(x[name] - want) / size for x in (found, usual))
    allowed = rounding * (OF_PARAMETERS if of_parameter else 1.0)
    each.append(Deviation(name, error, usual_error, TIMES * usual_error + allowed))
  return each


def _largest(x: np.ndarray) -> float:
  return float(np.abs(x).max(initial=0.0))
