"""Modules that own parameters of parts that are plain functions, and projections."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from transformer_jax.axes import Dims
from transformer_jax.positions import Bound, PositionalEncoding, bind


class Norm(nn.Module):
  """Owns the parameters of a norm."""

  kind: Any

  @nn.compact
  def __call__(self, x_BLD):
    start = self.kind.init(x_BLD.shape[-1])
    params = {name: self.param(name, lambda key, v: v, v) for name, v in start.items()}
    return self.kind(params, x_BLD)


class Parameters(nn.Module):
  """Owns the parameters that `start(key, dims)` starts, and returns them."""

  start: Any
  dims: Dims

  @nn.compact
  def __call__(self) -> dict[str, jax.Array]:
    return own(self, self.start, self.dims)


class Position(nn.Module):
  """Owns parameters of a positional encoding, those that `owns` names.

  shared   the encoding with the parameters that all layers share
  """

  encoding: PositionalEncoding
  dims: Dims
  owns: Callable[[str], bool]

  @nn.compact
  def __call__(self, shared: Bound | None = None) -> Bound:
    make = lambda name: lambda key: self.encoding.init(key, self.dims)[name]
    names = jax.eval_shape(lambda: self.encoding.init(jax.random.key(0), self.dims))
    own = {name: self.param(name, make(name)) for name in names if self.owns(name)}
    return bind(self.encoding, (shared.params if shared else {}) | own, self.dims)


def weight(module: nn.Module, name: str, shape: tuple[int, ...], inputs: int = 1):
  """Returns a projection's weights, scaled by the size of its first `inputs` axes.

  Without inputs it is what a projection adds, and starts at zero.
  """
  if not inputs:
    return module.param(name, nn.initializers.zeros, shape)
  into, out = tuple(range(inputs)), tuple(range(inputs, len(shape)))
  init = nn.initializers.lecun_normal(in_axis=into, out_axis=out)
  return module.param(name, init, shape)


def own(module: nn.Module, init: Any, dims: Dims) -> dict[str, jax.Array]:
  """Returns the parameters that `init(key, dims)` starts, owned by the module."""
  make = lambda name: lambda key: init(key, dims)[name]
  names = jax.eval_shape(lambda: init(jax.random.key(0), dims))
  return {name: module.param(name, make(name)) for name in names}
