"""Attention weights and hidden states of a model, by layer.

Both are recorded in the model's own forward pass.
"""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.dense import Dense
from transformer_jax.models import Architecture, Transformer
from transformer_jax.models.block import Block
from transformer_jax.models.param_tree import flat, nested, one_by_one
from transformer_jax.models.recurrent.model import Recurrence, RecurrentStack
from transformer_jax.models.stack import Stack


@dataclasses.dataclass(frozen=True, eq=False)
class RecordingDense(Dense):
  """Attends as `dense` does and records the weights.

  recorded   w_BHLM of each call, in order
  """

  recorded: list

  def weights(self, q_BLHK, k_BMHK, context):
    w_BHLM = super().weights(q_BLHK, k_BMHK, context)
    self.recorded.append(w_BHLM)
    return w_BHLM


def attention_weights(
  model: Transformer, params: Any, *reads: Any
) -> dict[str, jax.Array]:
  """Returns {path: w_BHLM}, float32 weights of all attention layers, as by `dense`.

  model    a Transformer or a recurrent model
  params   its parameters
  reads    inputs of the model: token_BL, at, source_BL, source_at

  A path is `encoder/layer_0/attention`, `decoder/layer_1/cross`, ...; a recurrent
  model has at most one, `decoder/cross`. Weights of masked keys are 0.

  >>> from transformer_jax.axes import Dims
  >>> arch = Architecture(Dims(V=6, D=8, H=2, F=8, L=8), position="rope", decoders=2)
  >>> model, token_BL = Transformer(arch), jnp.zeros((1, 4), int)
  >>> params = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  >>> look = functools.partial(attention_weights, model)
  >>> {path: w.shape for path, w in jax.eval_shape(look, params, token_BL).items()}
  {'decoder/layer_0/attention': (1, 2, 4, 4), 'decoder/layer_1/attention': (1, 2, 4, 4)}
  """
  arch, params = without_scan(model.arch, params)
  # A loop over steps would trace its weights; outside of jit they are arrays.
  with jax.disable_jit(isinstance(arch, Recurrence)):
    return _by_path(arch, _record(model.clone(arch=arch), params, reads))


@functools.partial(jax.jit, static_argnums=0)
def _record(model: Transformer, params: Any, reads: tuple) -> list[jax.Array]:
  recorded: list[jax.Array] = []
  arch = dataclasses.replace(model.arch, core=RecordingDense(recorded))
  model.clone(arch=arch).apply({"params": params}, *reads)
  return recorded


@functools.singledispatch  # by the kind of architecture
def _by_path(arch: Architecture, recorded: list[jax.Array]) -> dict[str, jax.Array]:
  """Returns the weights of each call by its path."""
  parts = ["attention", "cross"] if arch.encoders else ["attention"]
  paths = [f"encoder/layer_{n}/attention" for n in range(arch.encoders)]
  paths += [f"decoder/layer_{n}/{x}" for n in range(arch.decoders) for x in parts]
  return dict(zip(paths, recorded, strict=True))


@_by_path.register
def _(arch: Recurrence, recorded: list[jax.Array]) -> dict[str, jax.Array]:
  return {"decoder/cross": jnp.concatenate(recorded, axis=2)} if recorded else {}


def hidden_states(model: Transformer, params: Any, *reads: Any) -> dict[str, jax.Array]:
  """Returns {path: x_BLD}, the states before, between and after the layers.

  model    a Transformer or a recurrent model
  params   its parameters
  reads    inputs of the model: token_BL, at, source_BL, source_at

  A path is `decoder/embedding`, the input of the first layer; `decoder/layer_0`, ...,
  the output of a layer; `decoder/output`, after the last norm; an encoder likewise. A
  recurrent model has layers and output.

  >>> from transformer_jax.axes import Dims
  >>> arch = Architecture(Dims(V=6, D=8, H=2, F=8, L=8), position="rope", decoders=1)
  >>> model, token_BL = Transformer(arch), jnp.zeros((1, 4), int)
  >>> params = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  >>> look = functools.partial(hidden_states, model)
  >>> states = jax.eval_shape(look, params, token_BL)
  >>> list(states), states["decoder/output"].shape
  (['decoder/embedding', 'decoder/layer_0', 'decoder/output'], (1, 4, 8))
  """
  arch, params = without_scan(model.arch, params)
  states = _capture(model.clone(arch=arch), params, reads)
  return {path: states[path] for path in sorted(states, key=_natural)}


@functools.partial(jax.jit, static_argnums=0)
def _capture(model: Transformer, params: Any, reads: tuple) -> dict[str, jax.Array]:
  _, captured = model.apply(
    {"params": params},
    *reads,
    capture_intermediates=_is_state,
    mutable=["intermediates"],
  )
  states: dict[str, jax.Array] = {}
  for method, calls in flat(captured.get("intermediates", {})).items():
    states |= dict(zip(_paths(method, len(calls)), map(_state, calls), strict=True))
  return states


def _is_state(module: Any, method: str) -> bool:
  """Returns whether the result of a method starts with states."""
  if isinstance(module, Stack):
    return method in ("embed", "__call__")
  if isinstance(module, RecurrentStack):
    return method in ("layer", "__call__")
  return isinstance(module, Block) and method == "__call__"


def _paths(method: str, calls: int) -> list[str]:
  """Returns the paths of the results of a method, named by its own path."""
  module, _, name = method.rpartition("/")
  if name == "layer":  # of a recurrent stack, called once for each layer
    return [f"{module}/layer_{n}" for n in range(calls)]
  if name == "embed":
    return [f"{module}/embedding"]
  return [module if "/" in module else f"{module}/output"]


def _state(result: Any) -> jax.Array:
  """Returns the first array of nested tuples."""
  while isinstance(result, tuple | list):
    result = result[0]
  return result


def _natural(path: str) -> list[str | int]:
  """Returns a sort key by which layer_10 comes after layer_9."""
  return [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", path)]


def without_scan(arch: Any, params: Any) -> tuple[Any, Any]:
  """Returns a model whose layers are separate: in a scan, states would be traced."""
  arch = dataclasses.replace(arch, remat="none")
  if not arch.scan:
    return arch, params
  return dataclasses.replace(arch, scan=False), nested(one_by_one(flat(params)))
