"""Flax modules that hold the parameters of pure functions, and projections."""

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
from transformer_jax.batch_part import BatchPart
from transformer_jax.positions import Bound, PositionalEncoding, bind

# Flax collection: what a training batch makes of parameters that no optimizer moves.
RUNNING = "running"


class NormLayer(nn.Module):
  """A norm with its parameters; `at` of a call are the coordinates of the tokens.

  A norm of the batch reads it where the collection RUNNING may change, as in training:
  there the module stores the running statistics after this batch, by the names of the
  parameters that they replace.

  kind   the norm

  >>> from transformer_jax.models.feature_norms import norms
  >>> layer, x_BLD = NormLayer(norms.build("layernorm")), jnp.ones((1, 1, 4))
  >>> shapes = jax.eval_shape(layer.init, jax.random.key(0), x_BLD)["params"]
  >>> {name: x.shape for name, x in shapes.items()}
  {'gain_D': (4,), 'shift_D': (4,)}
  """

  kind: Any

  @nn.compact
  def __call__(self, x_BLD, at=None):
    start = self.kind.init(x_BLD.shape[-1])
    params = {name: parameter(self, name, _constant(x)) for name, x in start.items()}
    training = self.is_mutable_collection(RUNNING) and not self.is_initializing()
    if training and self.kind.reads_batch:
      params = self._of_batch(params, x_BLD, at)
    return self.kind(params, x_BLD)

  def _of_batch(self, params, x_BLD, at):
    """Returns the parameters for this batch; stores the running statistics after it."""
    if x_BLD.shape[0] == 1:
      raise ValueError(
        "batchnorm reads the statistics of a batch, and this one has a single example:"
        " give the model whole batches, not their examples by jax.vmap"
      )
    real_BL = jnp.ones(x_BLD.shape[:2], bool) if at is None else at.real_BL
    params, running = self.kind.measure(params, x_BLD, real_BL)
    for name, x in running.items():
      self.put_variable(RUNNING, name, x)
    return params


class Dropout(nn.Module):
  """Dropout of activations; active in training, when there is a "dropout" rng.

  rate   probability of dropping an activation
  part   of the batch that is computed; None: all of it

  >>> Dropout(rate=0.1).apply({}, 1.0)  # no "dropout" rng: evaluation
  1.0
  """

  rate: float
  part: BatchPart | None = None

  @nn.compact
  def __call__(self, x_BLD):
    if not self.rate or not self.has_rng("dropout"):
      return x_BLD
    if self.rate == 1:
      return jnp.zeros_like(x_BLD)  # a division by zero would make NaN
    return attention.KeyedDropout(self.make_rng("dropout"), self.rate, self.part)(x_BLD)


class Parameters(nn.Module):
  """Parameters that `start(key, dims)` initializes; a call returns them by name.

  start   method that returns parameters by name
  dims    its sizes

  >>> from transformer_jax.models.heads import heads
  >>> dims = Dims(V=5, D=4, H=2, F=8, L=8)
  >>> module = Parameters(heads.build("linear(bias=True)").init, dims)
  >>> shapes = jax.eval_shape(module.init, jax.random.key(0))["params"]
  >>> {name: x.shape for name, x in shapes.items()}
  {'shift_V': (5,)}
  """

  start: Any
  dims: Dims

  @nn.compact
  def __call__(self) -> dict[str, jax.Array]:
    return own(self, self.start, self.dims)


class Position(nn.Module):
  """A positional encoding with its parameters; a call returns the bound encoding.

  encoding   the positional encoding
  dims       sizes of its parameters
  owns       (name) -> whether this module holds that parameter

  `shared`, the argument of a call, holds the parameters that all layers share.

  >>> from transformer_jax.positions import positions
  >>> dims = Dims(V=5, D=4, H=2, F=8, L=8)
  >>> module = Position(positions.build("alibi_learned"), dims, owns=lambda name: True)
  >>> shapes = jax.eval_shape(module.init, jax.random.key(0))["params"]
  >>> {name: x.shape for name, x in shapes.items()}
  {'log_slope_H': (2,)}
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
  """Returns a module's parameter, initialized by `start(key)`.

  A NumPy array, as read from files, becomes a JAX array: it could not be indexed by
  traced arrays, and has no `at`.
  """
  return jnp.asarray(module.param(name, start))


def _constant(x: jax.Array) -> Callable[[jax.Array], jax.Array]:
  """Returns an initializer that returns x for every key."""
  return lambda key: x


def weight(module: nn.Module, name: str, shape: tuple[int, ...], inputs: int = 1):
  """Returns a projection's weights, scaled by the size of its first `inputs` axes.

  module   holds the parameter
  name     of the parameter
  shape    input axes, then output axes
  inputs   number of input axes; 0: a bias, initialized at zero
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
  """Returns the module's parameters, initialized by `init(key, dims)`.

  module   holds the parameters
  init     bound method that returns parameters by name
  dims     its sizes
  owns     (name) -> whether the module holds that parameter

  Flax gives each parameter a key. Parameters of one random draw, such as cosine and
  sine of one angle, get the key of the first of them; else they would be two draws.
  """
  keys: dict[str, jax.Array] = {}

  def param(name, start, first):
    def begin(key):
      # Outside of init Flax traces shapes only; a stored key would leak a tracer.
      return start(keys.setdefault(first, key) if module.is_initializing() else key)

    return parameter(module, name, begin)

  starts = _starts_of(init, dims).items()
  return {name: param(name, *start) for name, start in starts if owns(name)}


Start = Callable[[jax.Array], jax.Array]

# Flax traces every initializer whenever a model is traced, to compare shapes. A jitted
# function that stays the same is traced once.


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
  """Returns {name: (initializer, first parameter that shares its random draws)}."""

  def begin(key):
    return init(owner, key, dims)

  jaxpr, shapes = jax.make_jaxpr(begin, return_shape=True)(jax.random.key(0))
  first = _first_of_a_draw([*shapes], _draws(jaxpr.jaxpr))
  return {n: (jax.jit(lambda key, n=n: begin(key)[n]), first[n]) for n in shapes}


def _draws(jaxpr: Any) -> list[frozenset[int]]:
  """Returns the random draws that each output of a jaxpr depends on, by number."""
  draws: dict[Any, frozenset[int]] = {}

  def read(v):
    return frozenset() if isinstance(v, Literal) else draws.get(v, frozenset())

  for n, eqn in enumerate(jaxpr.eqns):
    known = frozenset({n} if _is_random(eqn) else ()).union(*map(read, eqn.invars))
    draws |= {v: known for v in eqn.outvars}
  return [*map(read, jaxpr.outvars)]


def _is_random(eqn: Any) -> bool:
  """Returns whether an equation draws random numbers, also in an inner jaxpr."""
  inner = [p.jaxpr for p in eqn.params.values() if isinstance(p, ClosedJaxpr)]
  calls = any(_is_random(each) for jaxpr in inner for each in jaxpr.eqns)
  return calls or eqn.primitive.name == "random_bits"


def _first_of_a_draw(names: list[str], draws: list[frozenset[int]]) -> dict[str, str]:
  """Returns for each name the first name of its group; shared draws connect names."""
  groups: list[tuple[list[str], frozenset[int]]] = []
  for name, own in zip(names, draws, strict=True):
    met = [group for group in groups if group[1] & own]
    groups = [group for group in groups if not group[1] & own]
    together = [*itertools.chain(*(group[0] for group in met)), name]
    groups.append((together, own.union(*(group[1] for group in met))))
  return {name: min(together) for together, _ in groups for name in together}
