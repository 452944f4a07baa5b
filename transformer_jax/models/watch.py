"""Recording and editing of one forward pass: an interceptor of calls and two cores."""

import dataclasses
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

import flax.linen as nn
import jax

from transformer_jax.attention.cores.base import Core
from transformer_jax.attention.cores.dense import Dense
from transformer_jax.attention.variants.bound_variant import PLAIN
from transformer_jax.models.attention_layer import Attention
from transformer_jax.models.block import Block
from transformer_jax.models.feedforward import FeedForward
from transformer_jax.models.mixing import Mixing
from transformer_jax.models.recurrent.model import RecurrentStack
from transformer_jax.models.stack import CAPTURED, Stack

OF_LAYERS = ("state", "update")
# Cores other than `dense` never hold whole rows of scores.
OF_DENSE = ("scores", "mask", "weights")
COORDINATES = ("query_at", "key_at")
OF_CORE = ("query", "key", "value", "output", *OF_DENSE, *COORDINATES)
OF_EXPERTS = ("expert_weights", "expert_shares")
PLACES = (*OF_LAYERS, *OF_CORE, *OF_EXPERTS)
FIXED = ("mask", *COORDINATES, *OF_EXPERTS)
EDITABLE = tuple(place for place in PLACES if place not in FIXED)

Edit = Mapping[str, Callable[[str, jax.Array], jax.Array]]  # {place: f(path, array)}


@dataclasses.dataclass(eq=False)
class Watch:
  """One forward pass that is recorded and edited.

  want     places to record
  edit     {place: function of (path, array)}
  path     of the attention layer that is under way
  arrays   of its core, by place

  >>> Watch(frozenset(), {"state": lambda path, x: 2 * x}).visit("state", "decoder", 3)
  6
  """

  want: frozenset[str]
  edit: Edit
  path: str = ""
  arrays: dict[str, list[Any]] = dataclasses.field(default_factory=dict)

  def touches(self, places: Collection[str]) -> bool:
    """Returns whether any of the places is recorded or edited."""
    return bool((self.want | set(self.edit)) & set(places))

  def visit(self, place: str, path: str, x: Any) -> Any:
    """Returns what stands in the place of an array."""
    return self.edit[place](path, x) if place in self.edit else x

  def of_core(self, place: str, x: Any) -> Any:
    """Returns what stands in the place of an array of the core, and keeps it."""
    x = self.visit(place, self.path, x)
    if place in self.want:
      self.arrays.setdefault(place, []).append(x)
    return x

  def intercept(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Records and edits the result of a method of a module, as flax calls it."""
    module, method = context.module, context.method_name
    path = "/".join(module.path)
    if isinstance(module, Attention) and method == "__call__":
      return self._attention(call, args, kwargs, module, path)
    if isinstance(module, FeedForward) and method == "route":
      return self._experts(module, path, call(*args, **kwargs))
    found = _place(module, method, args, path)
    result = call(*args, **kwargs)
    return self._layer(module, *found, result) if found else result

  def _attention(self, call, args, kwargs, module, path):
    outside, self.path, self.arrays = (self.path, self.arrays), path, {}
    result = call(*args, **kwargs)
    for place, calls in self.arrays.items():
      _sow(module, place, path, calls[0])
    self.path, self.arrays = outside
    return self._layer(module, "update", path, result)

  def _experts(self, module, path, result):
    """Returns the result of a router, its weights and shares."""
    for place, x_BLX in zip(OF_EXPERTS, result, strict=True):
      if place in self.want:
        _sow(module, place, path, x_BLX)
    return result

  def _layer(self, module, place, path, result):
    """Returns the result of a module, the first array of which is at a place."""
    x, rebuild = _first(result)
    x = self.visit(place, path, x)
    if place in self.want:
      _sow(module, place, path, x)
    return rebuild(x)


def _place(module: Any, method: str, args: Any, path: str) -> tuple[str, str] | None:
  """Returns (place, path) of the result of a method; None: it is not at one."""
  called = method == "__call__"
  if isinstance(module, FeedForward | Mixing) and called:
    return "update", path
  if isinstance(module, Block) and called:
    return "state", path
  if isinstance(module, Stack | RecurrentStack):
    if called:
      return "state", f"{path}/output"
    if method == "embed":
      return "state", f"{path}/embedding"
    if method == "layer":  # of a recurrent stack; its first argument is the number
      return "state", f"{path}/layer_{args[0]}"
  return None


@dataclasses.dataclass(frozen=True, eq=False)
class WatchedCore(Core):
  """Attends as another core does; what it reads and gives is recorded and edited.

  core    whose numbers these are
  watch   the forward pass

  >>> WatchedCore(Dense(), Watch(frozenset(), {})).core
  Dense()
  """

  core: Core
  watch: Watch

  def attend(self, q_BLHK, k_BMGK, v_BMGE, context):
    of_core = self.watch.of_core
    q_BLHK = of_core("query", q_BLHK)
    k_BMGK, v_BMGE = of_core("key", k_BMGK), of_core("value", v_BMGE)
    of_core("query_at", context.q_at)
    of_core("key_at", context.k_at)
    return of_core("output", self.core.attend(q_BLHK, k_BMGK, v_BMGE, context))

  def refusal(self, encoding, variant=PLAIN.variant, dropout=False):
    return self.core.refusal(encoding, variant, dropout)


@dataclasses.dataclass(frozen=True, eq=False)
class WatchedDense(Dense):
  """Attends as `dense` does; scores and weights are recorded and edited.

  watch   the forward pass

  >>> WatchedDense(Watch(frozenset(), {})).refusal(PLAIN.variant) is None
  True
  """

  watch: Watch

  def weights(self, q_BLHK, k_BMHK, context):
    mask_BLM = context.mask()
    self.watch.of_core("mask", mask_BLM)
    s_BHLM = context.full_scores(q_BLHK, k_BMHK, mask_BLM)
    s_BHLM = self.watch.of_core("scores", s_BHLM)
    s_BHLM = context.logits(s_BHLM, q_BLHK, k_BMHK, mask_BLM)
    mask_BLM = context.selected(q_BLHK, k_BMHK, mask_BLM)
    return self.watch.of_core("weights", context.weights(s_BHLM, mask_BLM))


def _sow(module: nn.Module, place: str, path: str, x: Any) -> None:
  module.sow(CAPTURED, place, {path: x}, init_fn=dict, reduce_fn=operator.or_)


def _first(result: Any) -> tuple[Any, Callable[[Any], Any]]:
  """Returns the first array of nested tuples; a function that replaces it."""
  if not isinstance(result, tuple | list):
    return result, lambda x: x
  x, rebuild = _first(result[0])
  return x, lambda x: type(result)([rebuild(x), *result[1:]])
