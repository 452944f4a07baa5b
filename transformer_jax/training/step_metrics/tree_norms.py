"""Norms of gradients, updates and parameters by layer."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.training.step_metrics.base import (
  Scalars,
  StepMetric,
  grouped,
  step_metrics,
)


def norms(tree: Any, by_layer: bool) -> Scalars:
  """Returns the Euclidean norm of the arrays of each layer, float32."""

  def square(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(x.astype(jnp.float32)))

  groups = grouped(tree, by_layer).items()
  return {path: jnp.sqrt(sum(map(square, arrays))) for path, arrays in groups}


@step_metrics.register("grad_norm")
@dataclasses.dataclass(frozen=True)
class LayerGradNorm(StepMetric):
  """Norm of the gradient of each layer's parameters, before clipping.

  by_layer   False: one norm of all parameters

  >>> from transformer_jax.training.step_metrics.base import StepArrays
  >>> grads = {"decoder": {"layer_0": {"gain_D": jnp.array([3.0, 4.0])}}}
  >>> found = LayerGradNorm().of_step(StepArrays(grads, updates={}, params={}))
  >>> {path: float(x) for path, x in found.items()}
  {'decoder/layer_0': 5.0}
  """

  by_layer: bool = True

  def of_step(self, step):
    return norms(step.grads, self.by_layer)


@step_metrics.register("update_norm")
@dataclasses.dataclass(frozen=True)
class LayerUpdateNorm(StepMetric):
  """Norm of what the optimizer adds to each layer's parameters.

  by_layer   False: one norm of all parameters
  relative   divides by the norm of the parameters; NaN where all of a layer are 0, as
             tables of biases are at the start: they have no ratio

  >>> from transformer_jax.training.step_metrics.base import StepArrays
  >>> updates, params = {"gain_D": jnp.array([0.3, 0.4])}, {"gain_D": jnp.ones(4)}
  >>> step = StepArrays(grads={}, updates=updates, params=params)
  >>> float(LayerUpdateNorm(relative=True).of_step(step)["gain_D"])
  0.25
  """

  by_layer: bool = True
  relative: bool = False

  @property
  def name(self):
    return "update_ratio" if self.relative else "update_norm"

  def of_step(self, step):
    update = norms(step.updates, self.by_layer)
    if not self.relative:
      return update
    size = norms(step.params, self.by_layer)
    return {
      path: x / jnp.where(size[path] > 0, size[path], jnp.nan)
      for path, x in update.items()
    }


@step_metrics.register("param_norm")
@dataclasses.dataclass(frozen=True)
class LayerParamNorm(StepMetric):
  """Norm of each layer's parameters.

  by_layer   False: one norm of all parameters

  >>> from transformer_jax.training.step_metrics.base import StepArrays
  >>> params = {"gain_D": jnp.ones(4)}
  >>> found = LayerParamNorm(by_layer=False).of_step(StepArrays({}, {}, params))
  >>> {path: float(x) for path, x in found.items()}
  {'all': 2.0}
  """

  by_layer: bool = True

  def of_step(self, step):
    return norms(step.params, self.by_layer)
