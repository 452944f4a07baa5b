"""Capture: arrays of a forward pass, recorded and edited from outside of the model.

Models know nothing of it: flax intercepts the calls of their modules, and a core that
records stands in the place of theirs.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from transformer_jax.models.param_tree import flat, natural, nested, one_by_one
from transformer_jax.models.recurrent.model import Recurrence
from transformer_jax.models.stack import CAPTURED
from transformer_jax.models.transformer import Transformer
from transformer_jax.models.watch import (
  EDITABLE,
  OF_CORE,
  OF_DENSE,
  PLACES,
  Edit,
  Watch,
  WatchedCore,
  WatchedDense,
)
from transformer_jax.spec import nearest

# A recurrent model attends at each step, with one query.
RECURRENT_CROSS = "decoder/cross"
AXIS_L = {"weights": 2, "scores": 2, "mask": -2, "output": 1, "query": 1}

Captured = dict[str, dict[str, Any]]  # {place: {path: array}}


def run(
  model: Transformer,
  params: Any,
  *reads: Any,
  want: Collection[str] = ("weights",),
  edit: Edit | None = None,
  **options: Any,
) -> tuple[Any, Captured]:
  """Returns (result, {place: {path: array}}) of one forward pass.

  model     a Transformer or a recurrent model
  params    its parameters
  reads     its inputs: token_BL, at, source_BL, source_at
  want      places to record
  edit      {place: function of (path, array)}, whose result stands in the place of the
            array from there on; wanted arrays are those after the edit
  options   of `model.apply`: method, rngs, mutable; and keyword arguments of the
            method. With `mutable` the result is a pair, as that of `model.apply`

  A place is one of

    state     x_BLD, the residual stream: paths `decoder/embedding`, `decoder/layer_0`,
              ..., `decoder/output` after the last norm; an encoder likewise
    update    x_BLD, the result of a sublayer: `decoder/layer_0/attention`, `.../cross`,
              `.../feedforward`, before dropout and before a norm that may follow
    query, key, value   q_BLHK, k_BMGK, v_BMGE as the core reads them, rotated
    scores    s_BHLM, float32, q k^T with the encoding, before a soft-cap and the mask
    mask      mask_BLM or mask_BHLM, the keys that each query attends to
    weights   w_BHLM, float32; 0 where masked; in training, after dropout
    output    o_BLHE, outputs of the heads, before the output projection
    query_at, key_at   coordinates of queries and keys
    expert_weights   weight_BLX, float32; 0 where a token does not choose an expert
    expert_shares    share_BLX, float32, of the experts among a token's scores

  Scores, mask and weights are those of the core `dense`, which is put in the place of
  the model's: the same numbers, in L x M floats for each head and text. Mask,
  coordinates and what experts have cannot be edited. A recurrent model has `state`,
  and of the steps of its cross-attention, at path `decoder/cross`, query, scores,
  mask, weights and output.

  Under `jax.jit` the whole call is one program. Layers of `model.scan` stay in their
  loop, unless there is an edit, which may tell them apart.

  Raises ValueError for a place that is not there, or that cannot be edited.

  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.models import Architecture
  >>> arch = Architecture(Dims(V=6, D=8, H=2, F=8, L=8), position="rope", decoders=1)
  >>> model, token_BL = Transformer(arch), jnp.zeros((1, 4), int)
  >>> params = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  >>> look = functools.partial(run, model, want=("output", "weights"))
  >>> logits_BLV, captured = jax.eval_shape(look, params, token_BL)
  >>> captured["output"]["decoder/layer_0/attention"].shape
  (1, 4, 2, 4)
  """
  edit = edit or {}
  _check("want", want, PLACES)
  _check("edit", edit, EDITABLE)
  watch = Watch(frozenset(want), edit)
  model, params = _watched(model, params, watch)
  recurrent = isinstance(model.arch, Recurrence)
  return (_run_recurrent if recurrent else _apply)(model, params, reads, watch, options)


def gradients(
  loss: Callable[[Any], jax.Array],
  model: Transformer,
  params: Any,
  *reads: Any,
  want: Collection[str] = ("state",),
  **options: Any,
) -> Captured:
  """Returns {place: {path: d loss / d array}} of one forward pass.

  loss      of the result of the model, a number
  want      places, all of which can be edited
  options   as in `run`

  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.models import Architecture
  >>> arch = Architecture(Dims(V=6, D=8, H=2, F=8, L=8), position="rope", decoders=1)
  >>> model, token_BL = Transformer(arch), jnp.zeros((1, 4), int)
  >>> params = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  >>> look = functools.partial(gradients, jnp.sum, model)
  >>> list(jax.eval_shape(look, params, token_BL)["state"])
  ['decoder/embedding', 'decoder/layer_0', 'decoder/output']
  """
  _check("want", want, EDITABLE)
  model, params = one_by_one_layers(model, params)
  look = functools.partial(run, model, want=want, **options)
  _, shapes = jax.eval_shape(look, params, *reads)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

  def of_sum(added: Captured) -> jax.Array:
    def adding(place: str) -> Callable[[str, jax.Array], jax.Array]:
      return lambda path, x: x + added[place][path]

    edit = {place: adding(place) for place in want}
    return loss(run(model, params, *reads, want=(), edit=edit, **options)[0])

  return jax.grad(of_sum)(zeros)


def one_by_one_layers(model: Transformer, params: Any) -> tuple[Transformer, Any]:
  """Returns the model with separate layers that keep all arrays, and its parameters."""
  arch, scan = dataclasses.replace(model.arch, remat="none"), model.arch.scan
  if not scan:
    return model.clone(arch=arch), params
  arch = dataclasses.replace(arch, scan=False)
  return model.clone(arch=arch), nested(one_by_one(flat(params)))


def in_order(arrays: dict[str, Any]) -> dict[str, Any]:
  """Returns arrays by path in the order of the layers; `jax.jit` sorts by letters.

  >>> list(in_order({"decoder/layer_10": 0, "decoder/layer_9": 0}))
  ['decoder/layer_9', 'decoder/layer_10']
  """
  return dict(sorted(arrays.items(), key=lambda item: natural(item[0])))


def _watched(model: Transformer, params: Any, watch: Watch) -> tuple[Transformer, Any]:
  """Returns the model, with a core that is watched where needed; its parameters."""
  if watch.edit:  # a loop has one body for all layers
    model, params = one_by_one_layers(model, params)
  if not watch.touches(OF_CORE):
    return model, params
  _check_attention(model.arch)
  dense = watch.touches(OF_DENSE)
  core = WatchedCore(WatchedDense(watch) if dense else model.arch.core, watch)
  return model.clone(arch=dataclasses.replace(model.arch, core=core)), params


def _check_attention(arch: Any) -> None:
  """Raises ValueError where all layers are mixers, which have no scores or weights."""
  if isinstance(arch, Recurrence):
    return
  sides = ("encoder", arch.encoders), (arch.decoding, arch.decoders)
  layers = [arch.layer(use, n)[1] for use, count in sides for n in range(count)]
  if layers and all(layer.mixer for layer in layers):
    raise ValueError(
      f"{layers[0].name} is a mixer, with none of {', '.join(sorted(OF_CORE))}; look at"
      " state or update, or at a model with layers of attention"
    )


def _run_recurrent(model, params, reads, watch, options) -> tuple[Any, Captured]:
  """Returns what `run` does; cross-attention of each step is joined."""
  watch.path = RECURRENT_CROSS
  # A loop over steps would trace its arrays; outside of jit each step is by itself.
  with jax.disable_jit(watch.touches(OF_CORE)):
    result, captured = _apply(model, params, reads, watch, options)
  joined = {
    place: {RECURRENT_CROSS: jnp.concatenate(watch.arrays[place], AXIS_L[place])}
    for place in watch.want & set(watch.arrays)
  }
  return result, captured | joined


def _apply(model, params, reads, watch, options) -> tuple[Any, Captured]:
  kept = options.pop("mutable", None)
  with nn.intercept_methods(watch.intercept):
    result, changed = model.apply(
      {"params": params}, *reads, mutable=[CAPTURED, *(kept or ())], **options
    )
  changed = dict(changed)
  captured = _by_place(changed.pop(CAPTURED, {}), watch.want)
  return ((result, changed) if kept else result), captured


def _by_place(captured: Any, want: Collection[str]) -> Captured:
  """Returns {place: {path: array}} of a collection, layers in their order."""
  found: Captured = {place: {} for place in PLACES if place in want}
  for (*_, place, path), x in flatten_dict(captured).items():
    found[place] |= _layers(path, x)
  return {place: in_order(arrays) for place, arrays in found.items()}


def _layers(path: str, x: Any) -> dict[str, Any]:
  """Returns arrays by path; those of a loop over layers are stacked."""
  before, loop, after = path.partition("/layers")
  if not loop:
    return {path: x}
  count = len(jax.tree.leaves(x)[0])
  take = lambda n: jax.tree.map(lambda x: x[n], x)
  return {f"{before}/layer_{n}{after}": take(n) for n in range(count)}


def _check(argument: str, places: Collection[str], known: Collection[str]) -> None:
  """Raises ValueError for a place that is not known."""
  for place in places:
    if place not in known:
      near = nearest(place, known)
      raise ValueError(f"{argument}: '{place}'.{near} Write some of {', '.join(known)}")
