"""One check: a core against `dense` on the same device: values, gradients and time."""

import functools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transformer_jax.attention.cores.base import Core, cores
from transformer_jax.attention.cores.self_check import check_inputs
from transformer_jax.attention.cores.self_check.deviations import ArraysByName, fault
from transformer_jax.attention.cores.self_check.scheme import CallScheme

WITHOUT = {"g", "scale_H"}  # have no gradient, unless the scale is an array
# Times of `dense` that a kernel may take on the small inputs of a check. What stands
# far above them, as a hook that multiplies a whole table in each tile, stays there.
SLOW, CALLS = 4.0, 5


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
  # A mesh of this device: cores ask it for the platform that they are compiled for.
  with jax.default_device(device), jax.set_mesh(Mesh(np.array([device]), ("data",))):
    try:
      arrays = check_inputs.make(scheme)
      dense = BothPasses(cores.build("dense"), scheme, arrays)
      usual = dense.numbers()
      wide = exact(cores.build("dense"), scheme, arrays)
    except Exception as error:  # what a part of a user's own may raise
      return f"could not be checked: {words(error)}"
    try:
      core = BothPasses(scheme.core, scheme, arrays)
      reason = fault(core.numbers(), usual, wide, scheme.dtypes[2])
      reason = reason or _fault_of_parameters(scheme, arrays, wide)
      return reason or _too_slow(core, dense, device)
    except Exception as error:  # the compiler's own kinds of errors are not public
      return f"did not compile: {words(error)}"


def _too_slow(
  core: "BothPasses", dense: "BothPasses", device: jax.Device
) -> str | None:
  """Returns how slow a core is beside `dense`, or None if it is not."""
  if device.platform == "cpu":
    return None  # an interpreted kernel, whose time says nothing
  seconds, usual = core.seconds(), dense.seconds()
  if seconds <= SLOW * usual:
    return None
  return f"takes {seconds / usual:.1f} times as long as dense with few tokens"


def _fault_of_parameters(
  scheme: CallScheme, arrays: Any, wide: ArraysByName
) -> str | None:
  """Returns what is wrong with gradients of parameters in float32, or None.

  In half precision rounding hides small ones.
  """
  of_parameters = {name: x for name, x in wide.items() if "/" in name}
  if not of_parameters or scheme.dtypes[2] == "float32":
    return None
  found = exact(scheme.core, scheme, arrays)
  usual = run(cores.build("dense"), scheme, _wide(arrays))
  found, usual = ({n: x[n] for n in of_parameters} for x in (found, usual))
  return fault(found, usual, of_parameters, "float32")


def words(error: Exception) -> str:
  """Returns an error in one short line.

  >>> words(ValueError("a tile of (8, 4) ..."))
  'ValueError: a tile of (8, 4) ...'
  """
  return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def exact(core: Core, scheme: CallScheme, arrays: Any) -> ArraysByName:
  """Returns what a core computes in float32, without the device's short products."""
  with jax.default_matmul_precision("highest"):
    return run(core, scheme, _wide(arrays))


def _wide(arrays: Any) -> Any:
  def wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x

  return jax.tree.map(wide, arrays)


def run(core: Core, scheme: CallScheme, arrays: Any) -> ArraysByName:
  """Returns {name: the output, or the gradient of an array}, for each kind of texts."""
  return BothPasses(core, scheme, arrays).numbers()


class BothPasses:
  """Forward and backward pass of a core, compiled once.

  core     what is computed
  scheme   of the check
  arrays   its inputs, of `check_inputs.make`

  >>> [name for name in vars(BothPasses) if not name.startswith("_")]
  ['numbers', 'seconds']
  """

  def __init__(self, core: Core, scheme: CallScheme, arrays: Any):
    unused = WITHOUT - ({"scale_H"} if scheme.scale is None else set())
    floats, rest = split({n: x for n, x in arrays.items() if n not in unused})
    self._given = floats, rest | {"g": arrays["g"]}
    self._texts = check_inputs.texts(scheme)

    def total(floats: dict[str, Any], rest: dict[str, Any], at: Any) -> Any:
      whole = joined(floats | rest)
      context = check_inputs.context_of(scheme, whole, at)
      out = core.attend(whole["q"], whole["k"], whole["v"], context)
      return jnp.sum(out.astype(jnp.float32) * whole["g"].astype(jnp.float32)), out

    self._gradient = jax.jit(jax.value_and_grad(total, has_aux=True))

  def numbers(self) -> ArraysByName:
    """Returns {name: the output, or the gradient of an array}, by kind of texts."""
    found = {}
    for kind, at in self._texts.items():
      (_, out), gradients = self._gradient(*self._given, at)
      found[f"output, {kind}"] = out
      found |= {f"gradient of {n}, {kind}": x for n, x in gradients.items()}
    return {name: np.asarray(x).astype(np.float32) for name, x in found.items()}

  def seconds(self) -> float:
    """Returns the least seconds of some calls on causal texts."""
    given = jax.device_put((*self._given, next(iter(self._texts.values()))))
    jax.block_until_ready(self._gradient(*given))
    times = []
    for _ in range(CALLS):
      start = time.perf_counter()
      jax.block_until_ready(self._gradient(*given))
      times.append(time.perf_counter() - start)
    return min(times)


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
