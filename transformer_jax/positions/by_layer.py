"""Encodings by layer, as in hybrids such as Yang et al., 2025.

https://arxiv.org/abs/2501.18795
"""

import dataclasses

import jax

from transformer_jax.positions.base import (
  HOOKS,
  PositionalEncoding,
  Wrapper,
  positions,
  shorter,
)
from transformer_jax.positions.rope import Rope


@dataclasses.dataclass(frozen=True)
class Part(Wrapper):
  """One encoding of a schedule; its parameters are called e0_..., e1_..., by index."""

  index: int

  def overrides(self, hook):
    return self.encoding.overrides(hook)

  def init(self, key, dims):
    return self._rename(self.encoding.init(key, dims))

  def constants(self, dims):
    return self._rename(self.encoding.constants(dims))

  def in_layer(self, name):
    own = name.removeprefix(self._prefix)
    return own != name and self.encoding.in_layer(own)

  def prepare(self, params, q_at, k_at):
    own, q_at, k_at = self.encoding.prepare(self._own(params), q_at, k_at)
    return self._others(params) | self._rename(own), q_at, k_at

  def borrow(self, params, weights):
    own = self.encoding.borrow(self._own(params), weights)
    return self._others(params) | self._rename(own)

  @property
  def name(self):
    return self.encoding.name

  @property
  def _prefix(self):
    return f"e{self.index}_"

  def _rename(self, params):
    return {self._prefix + name: x for name, x in params.items()}

  def _others(self, params):
    """Returns the parameters of what wraps the schedule."""
    return {n: x for n, x in params.items() if not n.startswith(self._prefix)}

  def _own(self, params):
    """Returns the parameters of this encoding, under the names it gave them."""
    named = params.items()
    start = self._prefix
    return {n.removeprefix(start): x for n, x in named if n.startswith(start)}


def _with_own_names(hook: str) -> property:
  """Returns a hook of the encoding that finds its parameters under their own names."""

  def get(self):
    method = getattr(self.encoding, hook)
    return method and (lambda params, *args: method(self._own(params), *args))

  return property(get)


for _hook in {*HOOKS} - {"assign_positions"}:
  setattr(Part, _hook, _with_own_names(_hook))


class Schedule(PositionalEncoding):
  """Gives each layer one of several encodings; a subclass says which.

  Where no layer is asked for, it acts as its first layer. Its parts neither embed nor
  place tokens, which happens once for all layers: `randomized(every(4, none, rope))`.
  """

  parts: tuple[PositionalEncoding, ...]

  def which(self, n: int) -> int:
    """Returns the index of the part that layer n uses."""
    raise NotImplementedError

  def check(self, name: str) -> None:
    """Raises ValueError if a part does what cannot be done in one layer."""
    for part in self.parts:
      if part.overrides("embed") or part.overrides("assign_positions"):
        raise ValueError(
          f"{name} chooses what a layer does, and {part.name} embeds"
          f" or places tokens before the first one; wrap the whole schedule instead, as"
          f" in randomized({name}(...)), or use encodings that act in attention"
        )

  def layer(self, n):
    index = self.which(n)
    return Part(self.parts[index].layer(n), index)

  def init(self, key, dims):
    params = {}
    for n, part in enumerate(self.parts):
      params |= Part(part, n).init(jax.random.fold_in(key, n), dims)
    return params

  def constants(self, dims):
    return self.layer(0).constants(dims)

  def in_layer(self, name):
    return any(Part(part, n).in_layer(name) for n, part in enumerate(self.parts))

  def num_positions(self, dims):
    return shorter(*(part.num_positions(dims) for part in self.parts))

  def stable_length(self, dims):
    return shorter(*(part.stable_length(dims) for part in self.parts))

  def cross(self):
    return [part.cross() for part in self.parts][self.which(0)]

  def overrides(self, hook):
    return any(part.overrides(hook) for part in self.parts)

  relative = property(lambda self: all(part.relative for part in self.parts))
  per_layer = property(lambda self: any(part.per_layer for part in self.parts))
  needs_full_text = property(
    lambda self: any(part.needs_full_text for part in self.parts)
  )
  centred = property(lambda self: any(part.centred for part in self.parts))

  @property
  def integer_positions(self):
    return any(part.integer_positions for part in self.parts)

  @property
  def ids(self):
    return tuple(dict.fromkeys(name for part in self.parts for name in part.ids))

  @property
  def extrapolation(self):
    return " or ".join(dict.fromkeys(part.extrapolation for part in self.parts))


def _as_first_layer(hook: str) -> property:
  return property(lambda self: getattr(self.layer(0), hook))


for _hook in (*HOOKS, "prepare"):
  setattr(Schedule, _hook, _as_first_layer(_hook))


@positions.register("by_layer")
@dataclasses.dataclass(frozen=True)
class ByLayer(Schedule):
  """Gives layers the encodings of a list, again and again.

  encodings   (a, b): layers 0, 2, 4, ... use a and layers 1, 3, 5, ... use b
  """

  encodings: tuple[PositionalEncoding, ...] = (Rope(), PositionalEncoding())

  def __post_init__(self):
    if not isinstance(self.encodings, tuple) or not self.encodings:
      raise ValueError("by_layer takes a list of encodings: by_layer((rope, none))")
    built = tuple(positions.build(encoding) for encoding in self.encodings)
    object.__setattr__(self, "encodings", built)
    self.check("by_layer")

  @property
  def parts(self):
    return self.encodings

  def which(self, n):
    return n % len(self.encodings)

  def bidirectional(self):
    both = tuple(encoding.bidirectional() for encoding in self.encodings)
    return dataclasses.replace(self, encodings=both)
