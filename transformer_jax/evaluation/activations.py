"""Attention weights and hidden states of a model, by layer.

Both are recorded in the model's own forward pass; `models/capture.py` has more.
"""

from typing import Any

import jax

from transformer_jax.models import Transformer, capture
from transformer_jax.models.recurrent.model import Recurrence


def attention_weights(
  model: Transformer, params: Any, *reads: Any
) -> dict[str, jax.Array]:
  """Returns {path: w_BHLM}, float32 weights of all attention layers, as by `dense`.

  model    a Transformer or a recurrent model
  params   its parameters
  reads    inputs of the model: token_BL, at, source_BL, source_at

  A path is `encoder/layer_0/attention`, `decoder/layer_1/cross`, ...; a recurrent
  model has at most one, `decoder/cross`. Weights of masked keys are 0.

  >>> import functools
  >>> import jax.numpy as jnp
  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.models import Architecture
  >>> arch = Architecture(Dims(V=6, D=8, H=2, F=8, L=8), position="rope", decoders=2)
  >>> model, token_BL = Transformer(arch), jnp.zeros((1, 4), int)
  >>> params = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  >>> look = functools.partial(attention_weights, model)
  >>> {path: w.shape for path, w in jax.eval_shape(look, params, token_BL).items()}
  {'decoder/layer_0/attention': (1, 2, 4, 4), 'decoder/layer_1/attention': (1, 2, 4, 4)}
  """
  return _look(model, "weights", params, reads)


def hidden_states(model: Transformer, params: Any, *reads: Any) -> dict[str, jax.Array]:
  """Returns {path: x_BLD}, the states before, between and after the layers.

  model    a Transformer or a recurrent model
  params   its parameters
  reads    inputs of the model: token_BL, at, source_BL, source_at

  A path is `decoder/embedding`, the input of the first layer; `decoder/layer_0`, ...,
  the output of a layer; `decoder/output`, after the last norm; an encoder likewise. A
  recurrent model has layers and output.

  >>> import functools
  >>> import jax.numpy as jnp
  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.models import Architecture
  >>> arch = Architecture(Dims(V=6, D=8, H=2, F=8, L=8), position="rope", decoders=1)
  >>> model, token_BL = Transformer(arch), jnp.zeros((1, 4), int)
  >>> params = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  >>> look = functools.partial(hidden_states, model)
  >>> states = jax.eval_shape(look, params, token_BL)
  >>> list(states), states["decoder/output"].shape
  (['decoder/embedding', 'decoder/layer_0', 'decoder/output'], (1, 4, 8))
  """
  return _look(model, "state", params, reads)


def _look(model: Transformer, place: str, params: Any, reads: tuple):
  """Returns the arrays of a place by path; of one program where no loop is."""
  # Separate layers, whose numbers do not depend on model.scan to the last bit.
  model, params = capture.one_by_one_layers(model, params)
  # A recurrent model's steps are recorded one by one, outside of jit.
  by_steps = isinstance(model.arch, Recurrence) and place == "weights"
  look = _captured if by_steps else _captured_by_jit
  return capture.in_order(look(model, place, params, reads))


def _captured(model: Transformer, place: str, params: Any, reads: tuple):
  return capture.run(model, params, *reads, want=[place])[1][place]


_captured_by_jit = jax.jit(_captured, static_argnums=(0, 1))
