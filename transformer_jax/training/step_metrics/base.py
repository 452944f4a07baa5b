"""Base class of step metrics, the arrays that they read, and their registry."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.models.param_tree import flat, natural, one_by_one
from transformer_jax.spec import Registry

Scalars = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class StepArrays:
  """Arrays of one training step, as trees of the parameters.

  grads     gradients of the batch, before they are clipped
  updates   what the optimizer adds to the parameters
  params    parameters before the step

  >>> StepArrays(grads={}, updates={}, params={"gain_D": jnp.ones(2)}).grads
  {}
  """

  grads: Any
  updates: Any
  params: Any


@dataclasses.dataclass(frozen=True, eq=False)
class PassArrays:
  """Arrays of the forward pass of a micro-batch, captured as `models.capture` says.

  captured   {place: {path: array}}
  real       {stack: real_BL, where there is a token}; its B may be 1

  >>> PassArrays({"state": {}}, {"decoder": jnp.ones((1, 4), bool)}).captured
  {'state': {}}
  """

  captured: Mapping[str, Mapping[str, Any]]
  real: Mapping[str, jax.Array]


class StepMetric:
  """Base class of step metrics. Subclasses are frozen dataclasses.

  A metric has `of_step`, or `of_pass` with `places` of the captured arrays.

  places   of `models.capture` that a forward pass records for it; (): none is made

  >>> @dataclasses.dataclass(frozen=True)
  ... class Largest(StepMetric):
  ...   def of_step(self, step):
  ...     return {path: jnp.abs(x).max() for path, x in by_path(step.grads).items()}
  >>> Largest().name
  'largest'
  """

  places: ClassVar[tuple[str, ...]] = ()

  @property
  def name(self) -> str:
    """First part of the names in metrics.jsonl, as in `grad_norm/decoder/layer_0`."""
    name = step_metrics.name_of(self)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()

  def of_step(self, step: StepArrays) -> Scalars:
    """Returns {path: value} from gradients, updates and parameters."""
    return {}

  def of_pass(self, arrays: PassArrays) -> Scalars:
    """Returns {path: array} from captured arrays: one value, or what `join` reads."""
    return {}

  def join(self, x_N: jax.Array) -> jax.Array:
    """Returns one value of a batch; N is 1 without `train.accumulate`.

    x_N   the arrays of `of_pass` of its N micro-batches, stacked; default: the largest
    """
    return jnp.max(x_N)

  def refusal(self, model: Any) -> str | None:
    """Returns why a model has no such metric, or None."""
    return None


step_metrics = Registry("step metric", StepMetric)


def by_path(tree: Any) -> dict[str, jax.Array]:
  """Returns arrays by path; layers in one stack, as of `model.scan`, one by one."""
  return one_by_one(flat(tree))


def layer_of(path: str) -> str:
  """Returns the layer, or another part of the model, to which a parameter belongs.

  >>> layer_of("decoder/layer_0/attention/query_DHK"), layer_of("embedding_VD")
  ('decoder/layer_0', 'embedding_VD')
  """
  return "/".join(path.split("/")[:2])


def grouped(tree: Any, by_layer: bool) -> dict[str, list[jax.Array]]:
  """Returns the arrays of each layer, in the order of the layers; else all as `all`."""
  groups: dict[str, list[jax.Array]] = {}
  for path, x in by_path(tree).items():
    groups.setdefault(layer_of(path) if by_layer else "all", []).append(x)
  return dict(sorted(groups.items(), key=lambda item: natural(item[0])))
