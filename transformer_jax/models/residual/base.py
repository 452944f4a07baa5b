"""Base class of the residual connections of a layer, with its norms.

A placement is called with `norm`, from a name to that norm, and with the sublayers in
order: {name: function of x_BLD that returns its update}.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax

from transformer_jax.axes import Dims
from transformer_jax.spec import Registry

Arrays = dict[str, jax.Array]
EMBEDDING = "embedding"  # sublayer that adds what the layer's own embedding holds
Sublayer = Callable[[jax.Array], jax.Array]
Stream = Any  # x_BLD; or a pytree of what a placement hands from layer to layer


class Norms(Protocol):
  """The norms of a layer by name, and the parameters of its residual connections.

  >>> [name for name in vars(Norms) if name in ("__call__", "connection")]
  ['__call__', 'connection']
  """

  def __call__(self, name: str) -> Sublayer:
    """Returns a norm."""

  def connection(self, name: str) -> Arrays:
    """Returns the parameters of a sublayer's connection: those of `Placement.init`."""


class Placement:
  """Base class of norm placements.

  final_norm   whether one more norm comes after the last layer
  grows        whether the stream has more arrays after each layer

  >>> placements.build("pre").final_norm, placements.build("post").final_norm
  (True, False)
  """

  final_norm = True
  grows = False

  def __call__(self, norm: Norms, stream: Stream, parts: dict[str, Sublayer]) -> Stream:
    """Returns the residual stream after all parts of the block."""
    raise NotImplementedError

  def init(self, key: jax.Array, dims: Dims, sublayer: int) -> Arrays:
    """Returns the parameters of the connection of a layer's sublayer, from 0."""
    return {}

  def open_init(self, key: jax.Array, dims: Dims) -> Arrays:
    """Returns the parameters of `open`."""
    return {}

  def open(self, params: Arrays, x_BLD: jax.Array) -> Stream:
    """Returns the stream before the first layer."""
    return x_BLD

  def close_init(self, key: jax.Array, dims: Dims) -> Arrays:
    """Returns the parameters of `close`."""
    return {}

  def close(self, params: Arrays, stream: Stream) -> jax.Array:
    """Returns x_BLD after the last layer."""
    return stream

  def layer(self, n: int) -> "Placement":
    """Returns the placement of layer n; without it, that of layer 0 is meant."""
    return self


@dataclasses.dataclass(frozen=True)
class ResidualConnection:
  """The residual connection of one sublayer.

  placement   of its layer
  sublayer    number in the layer, from 0

  >>> ResidualConnection(placements.build("pre"), 0).init(jax.random.key(0), None)
  {}
  """

  placement: Placement
  sublayer: int

  def init(self, key: jax.Array, dims: Dims) -> Arrays:
    """Returns the parameters of the connection."""
    return self.placement.init(key, dims, self.sublayer)


placements = Registry("norm placement", Placement)
