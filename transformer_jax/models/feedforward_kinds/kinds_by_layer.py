"""Feed-forward layers of several kinds in one model."""

import dataclasses

from transformer_jax.axes import whole
from transformer_jax.models.feedforward_kinds.base import FeedForwardKind, feedforwards
from transformer_jax.models.feedforward_kinds.experts import Experts
from transformer_jax.spec import SpecError


@feedforwards.register("by_layer")
@dataclasses.dataclass(frozen=True)
class KindsByLayer(FeedForwardKind):
  """Cycles through a list of kinds, layer by layer: layer n has kind n mod N.

  kinds   (a, b): layers 0, 2, 4, ... have a and layers 1, 3, 5, ... have b

  >>> kind = feedforwards.build("by_layer((dense, experts(4)))")
  >>> [kind.layer(n).experts for n in range(4)]
  [0, 4, 0, 4]
  """

  kinds: tuple[FeedForwardKind, ...] = (FeedForwardKind(), Experts())

  def __post_init__(self):
    if not isinstance(self.kinds, tuple) or not self.kinds:
      raise SpecError("by_layer takes a list of kinds: by_layer((dense, experts(8)))")
    built = tuple(feedforwards.build(kind) for kind in self.kinds)
    object.__setattr__(self, "kinds", built)

  def layer(self, n):
    return self.kinds[n % len(self.kinds)].layer(n)


@feedforwards.register("leading")
@dataclasses.dataclass(frozen=True)
class LeadingLayers(FeedForwardKind):
  """One kind in the first layers and another in all others: DeepSeek-V3.

  count   number of first layers
  first   their kind
  rest    kind of the others

  >>> kind = feedforwards.build("leading(2, dense, experts(4))")
  >>> [kind.layer(n).experts for n in range(4)]
  [0, 0, 4, 4]
  """

  count: int = 1
  first: FeedForwardKind = FeedForwardKind()
  rest: FeedForwardKind = Experts()

  def __post_init__(self):
    if not whole(self.count, 0):
      raise SpecError(f"leading: count is {self.count!r}; write 0 or more layers")
    for name in ("first", "rest"):
      object.__setattr__(self, name, feedforwards.build(getattr(self, name)))

  def layer(self, n):
    return (self.first if n < self.count else self.rest).layer(n)
