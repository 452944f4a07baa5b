"""Modules that own parameters of parts that are plain functions, and projections."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal

from transformer_jax import attention
from transformer_jax.axes import Dims
from transformer_jax.positions import Bound, PositionalEncoding, bind


class NormLayer(nn.Module):
  """Owns the parameters of a norm."""

  kind: Any

  @nn.compact
  def __call__(self, x_BLD):
    start = self.kind.init(x_BLD.shape[-1])
    params = {name: parameter(self, name, _constant(x)) for name, x in start.items()}
    return self.kind(params, x_BLD)


class Dropout(nn.Module):
  """Drops activations in training, which is when there are random numbers for it.

  axis   as that of an architecture
  """

  rate: float
  axis: str | None = None

  @nn.compact
  def __call__(self, x_BLD):
    if not self.rate or not self.has_rng("dropout"):
      return x_BLD
    if self.rate == 1:
      return jnp.zeros_like(x_BLD)  # a division by zero would make NaN
    return attention.KeyedDropout(self.make_rng("dropout"), self.rate, self.axis)(x_BLD)


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
    params = own(self, self.encoding.init, self.dims, self.owns)
    return bind(self.encoding, (shared.params if shared else {}) | params, self.dims)


def parameter(
  module: nn.Module, name: str, start: Callable[[jax.Array], jax.Array]
) -> jax.Array:
  """Returns a module's parameter, which `start(key)` starts.

  A NumPy array, as weights are read from files, becomes one of JAX: it could not be
  indexed by what is traced, and has no `at`.
  """
  return jnp.asarray(module.param(name, start))


def _constant(x: jax.Array) -> Callable[[jax.Array], jax.Array]:
  """Returns an initializer that needs no random numbers."""
  return lambda key: x


def weight(module: nn.Module, name: str, shape: tuple[int, ...], inputs: int = 1):
  """Returns a projection's weights, scaled by the size of its first `inputs` axes.

  Without inputs it is what a projection adds, and starts at zero.
  """
  return parameter(module, name, _start(shape, inputs))


def weights(
  module: nn.Module, shapes: dict[str, tuple[tuple[int, ...], int]]
) -> dict[str, jax.Array]:
  """Returns the weights of several projections: {name: (shape, inputs)}."""
  return {
    name: weight(module, name, shape, inputs)
    for name, (shape, inputs) in shapes.items()
  }


def own(
  module: nn.Module,
  init: Any,
  dims: Dims,
  owns: Callable[[str], bool] = lambda name: True,
) -> dict[str, jax.Array]:
  """Returns the parameters that `init(key, dims)` starts and the module owns.

  Flax gives each parameter a key. Parameters made of one draw, as cosine and sine of
  one angle, start with the key of the first of them, or the draws would be two.
  """
  keys: dict[str, jax.Array] = {}

  def param(name, start, first):
    def begin(key):
      # Else it is traced for its shape alone, and a key would leave its trace.
      return start(keys.setdefault(first, key) if module.is_initializing() else key)

    return parameter(module, name, begin)

  starts = _starts_of(init, dims).items()
  return {name: param(name, *start) for name, start in starts if owns(name)}


Start = Callable[[jax.Array], jax.Array]

# Flax traces the start of each parameter whenever a model is traced, to compare shapes.
# A jitted function that stays the same is traced once.


@functools.lru_cache(maxsize=1024)
def _start(shape: tuple[int, ...], inputs: int) -> Callable[[jax.Array], jax.Array]:
  if not inputs:
    return jax.jit(lambda key: jnp.zeros(shape))
  into, out = tuple(range(inputs)), tuple(range(inputs, len(shape)))
  init = nn.initializers.lecun_normal(in_axis=into, out_axis=out)
  return jax.jit(lambda key: init(key, shape))


def _starts_of(init: Any, dims: Dims) -> dict[str, tuple[Start, str]]:
  # Methods of equal values are not equal, and would be traced again.
  return _starts(init.__func__, init.__self__, dims)


@functools.lru_cache(maxsize=256)
def _starts(init: Callable, owner: Any, dims: Dims) -> dict[str, tuple[Start, str]]:
  """Returns how each parameter starts, and the first one that is of the same draws."""
  begin = lambda key: init(owner, key, dims)
  jaxpr, shapes = jax.make_jaxpr(begin, return_shape=True)(jax.random.key(0))
  first = _first_of_a_draw([*shapes], _draws(jaxpr.jaxpr))
  return {n: (jax.jit(lambda key, n=n: begin(key)[n]), first[n]) for n in shapes}


def _draws(jaxpr: Any) -> list[frozenset[int]]:
  """Returns the random draws that each result of a program is made of, by number."""
  draws: dict[Any, frozenset[int]] = {}
  read = lambda v: frozenset() if isinstance(v, Literal) else draws.get(v, frozenset())
  for n, eqn in enumerate(jaxpr.eqns):
    known = frozenset({n} if _is_random(eqn) else ()).union(*map(read, eqn.invars))
    draws |= {v: known for v in eqn.outvars}
  return [*map(read, jaxpr.outvars)]


def _is_random(eqn: Any) -> bool:
  """Returns whether an equation draws random numbers, maybe in a program it calls."""
  inner = [p.jaxpr for p in eqn.params.values() if isinstance(p, ClosedJaxpr)]
  calls = any(_is_random(each) for jaxpr in inner for each in jaxpr.eqns)
  return calls or eqn.primitive.name == "random_bits"


def _first_of_a_draw(names: list[str], draws: list[frozenset[int]]) -> dict[str, str]:
  """Returns for each name the first one whose draws are its own, directly or not."""
  groups: list[tuple[list[str], frozenset[int]]] = []
  for name, own in zip(names, draws, strict=True):
    met = [group for group in groups if group[1] & own]
    groups = [group for group in groups if not group[1] & own]
    together = [*itertools.chain(*(group[0] for group in met)), name]
    groups.append((together, own.union(*(group[1] for group in met))))
  return {name: min(together) for together, _ in groups for name in together}
