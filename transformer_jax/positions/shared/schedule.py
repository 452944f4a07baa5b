"""Base class of encodings that differ from layer to layer."""

import dataclasses

import jax

from transformer_jax.axes import Dims
from transformer_jax.forwarding import Combined, forward, of_first_layer
from transformer_jax.positions.base import HOOKS, Params, PositionalEncoding, shorter
from transformer_jax.positions.shared.wrapper import Wrapper


@dataclasses.dataclass(frozen=True)
class Part(Wrapper):
  """One encoding of a schedule; its parameters are named e0_..., e1_..., by index.

  >>> import transformer_jax as tj
  >>> part = tj.positions.build("by_layer((rope, alibi_learned))").layer(1)
  >>> sorted(part.init(None, tj.Dims(V=2, D=8, H=2, F=8, L=8)))
  ['e1_log_slope_H']
  """

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
    """Returns the parameters of other parts, and of wrappers of the schedule."""
    return {n: x for n, x in params.items() if not n.startswith(self._prefix)}

  def _own(self, params):
    """Returns the parameters of this encoding, without the prefix."""
    named = params.items()
    start = self._prefix
    return {n.removeprefix(start): x for n, x in named if n.startswith(start)}


def _with_own_names(hook: str) -> property:
  """Returns a hook of the encoding that gets its parameters without the prefix."""

  def get(self):
    method = getattr(self.encoding, hook)
    return method and (lambda params, *args: method(self._own(params), *args))

  return property(get)


def _of_part(hook: str) -> property:
  """Returns a hook with parameters renamed, or a method without parameters as it is."""
  with_params = hook in HOOKS and hook != "assign_positions"
  return _with_own_names(hook) if with_params else getattr(Wrapper, hook)


forward(
  Part, PositionalEncoding, hook=_of_part, value=lambda name: getattr(Wrapper, name)
)


class Schedule(PositionalEncoding):
  """Base class of encodings by layer; subclasses define `which`.

  Hooks called on the schedule itself are those of layer 0. Its parts define neither
  `embed` nor `assign_positions`: those run once for all layers, so they belong around
  the schedule: `randomized(every(4, none, rope))`.

  parts   encodings that layers choose from

  >>> import transformer_jax as tj
  >>> class Halves(tj.positions.shared.schedule.Schedule):
  ...   parts = tj.positions.build("rope"), tj.positions.build("none")
  ...   def which(self, n):
  ...     return int(n >= 2)
  >>> [Halves().layer(n).name for n in range(4)]
  ['rope', 'rope', 'none', 'none']
  """

  parts: tuple[PositionalEncoding, ...]

  def which(self, n: int) -> int:
    """Returns the index of layer n's part."""
    raise NotImplementedError

  def check(self, name: str) -> None:
    """Raises ValueError if a part embeds, or assigns positions."""
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
    params: Params = {}
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

  def bidirectional(self):
    raise NotImplementedError

  relative = Combined(all)
  per_layer = Combined(any)
  integer_positions = Combined(any)
  needs_full_text = Combined(any)
  centred = Combined(any)
  ids = Combined(lambda parts: tuple(dict.fromkeys(i for ids in parts for i in ids)))
  extrapolation = Combined(lambda parts: " or ".join(dict.fromkeys(parts)))
  name = PositionalEncoding.name
  tile_local = PositionalEncoding.tile_local


def _of_first_layer(hook: str) -> property | None:
  return of_first_layer(hook) if hook in HOOKS else None


forward(Schedule, PositionalEncoding, hook=_of_first_layer)


def encode_alike(
  first: PositionalEncoding, second: PositionalEncoding, dims: Dims
) -> bool:
  """Returns whether two layers encode in the same way and with the same parameters.

  Equal parts of a schedule do, unless each has parameters of its own.

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=8, H=2, F=8, L=8)
  >>> for name in ("rope", "alibi_learned"):
  ...   encoding = tj.positions.build(f"by_layer(({name}, {name}))")
  ...   encode_alike(encoding.layer(0), encoding.layer(1), dims)
  True
  False
  """
  if first == second:
    return True
  parts = [x.encoding if isinstance(x, Part) else x for x in (first, second)]
  own = jax.eval_shape(lambda key: parts[0].init(key, dims), jax.random.key(0))
  return parts[0] == parts[1] and not own
