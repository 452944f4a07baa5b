"""Modules that own parameters of parts that are plain functions, and projections."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.axes import Dims
from transformer_jax.positions import Bound, PositionalEncoding, bind


class Norm(nn.Module):
  """Owns the parameters of a norm."""

  kind: Any

  @nn.compact
  def __call__(self, x_BLD):
    start = self.kind.init(x_BLD.shape[-1])
    params = {
      name: parameter(self, name, lambda key, v=v: v) for name, v in start.items()
    }
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
    starts = _starts_of(self.encoding.init, self.dims).items()
    own = {
      name: parameter(self, name, start) for name, start in starts if self.owns(name)
    }
    return bind(self.encoding, (shared.params if shared else {}) | own, self.dims)


def parameter(
  module: nn.Module, name: str, start: Callable[[jax.Array], jax.Array]
) -> jax.Array:
  """Returns a module's parameter, which `start(key)` starts.

  A NumPy array, as weights are read from files, becomes one of JAX: it could not be
  indexed by what is traced, and has no `at`.
  """
  return jnp.asarray(module.param(name, start))


def weight(module: nn.Module, name: str, shape: tuple[int, ...], inputs: int = 1):
  """Returns a projection's weights, scaled by the size of its first `inputs` axes.

  Without inputs it is what a projection adds, and starts at zero.
  """
  return parameter(module, name, _start(shape, inputs))


def own(module: nn.Module, init: Any, dims: Dims) -> dict[str, jax.Array]:
  """Returns what a method `init(key, dims)` starts, as the module's parameters."""
  starts = _starts_of(init, dims).items()
  return {name: parameter(module, name, start) for name, start in starts}


# Flax traces the start of each parameter whenever a model is traced, to compare shapes.
# A jitted function that stays the same is traced once.


@functools.lru_cache(maxsize=1024)
def _start(shape: tuple[int, ...], inputs: int) -> Callable[[jax.Array], jax.Array]:
  if not inputs:
    return jax.jit(lambda key: jnp.zeros(shape))
  into, out = tuple(range(inputs)), tuple(range(inputs, len(shape)))
  init = nn.initializers.lecun_normal(in_axis=into, out_axis=out)
  return jax.jit(lambda key: init(key, shape))


def _starts_of(init: Any, dims: Dims) -> dict[str, Callable[[jax.Array], jax.Array]]:
  # Methods of equal values are not equal, and would be traced again.
  return _starts(init.__func__, init.__self__, dims)


@functools.lru_cache(maxsize=256)
def _starts(
  init: Callable, owner: Any, dims: Dims
) -> dict[str, Callable[[jax.Array], jax.Array]]:
  names = jax.eval_shape(lambda: init(owner, jax.random.key(0), dims))
  return {n: jax.jit(lambda key, n=n: init(owner, key, dims)[n]) for n in names}
