"""Norm placements by layer, as in hybrids whose mixers and attention are normed apart.

Merrill et al., 2026, OLMo Hybrid. https://arxiv.org/abs/2604.03444
"""

import dataclasses
from typing import Any

from transformer_jax.forwarding import computed
from transformer_jax.models.residual.base import Placement, placements
from transformer_jax.models.residual.norm_placements import PreNorm, UpdateNorm
from transformer_jax.spec import SpecError


@placements.register("by_layer")
@dataclasses.dataclass(frozen=True)
class PlacementList(Placement):
  """Cycles through a list of placements, layer by layer.

      layer n uses placement n mod N

  placements   (a, b): layers 0, 2, 4, ... use a and layers 1, 3, 5, ... use b; all of
               them end, or none ends, with a norm after the last layer

  >>> hybrid = placements.build("by_layer((pre, pre, pre, update))")
  >>> [type(hybrid.layer(n)).__name__ for n in range(5)]
  ['PreNorm', 'PreNorm', 'PreNorm', 'UpdateNorm', 'PreNorm']
  """

  placements: tuple[Any, ...] = (PreNorm(), UpdateNorm())

  def __post_init__(self):
    if not isinstance(self.placements, tuple) or not self.placements:
      raise SpecError(
        f"by_layer: placements is {self.placements!r}; write a list of placements, as"
        " in by_layer((pre, update))"
      )
    built = tuple(placements.build(placement) for placement in self.placements)
    object.__setattr__(self, "placements", built)
    if len({placement.final_norm for placement in built}) > 1:
      raise SpecError(
        "by_layer: some of its placements have a norm after the last layer and others"
        " have none; write final_norm alike in all, as in by_layer((pre,"
        " post(final_norm=True)))"
      )

    for placement in built:
      if type(placement).open is not Placement.open:
        raise SpecError(
          f"by_layer: {placements.name_of(placement)} has a residual stream of its own"
          " kind, which all layers need; write it alone"
        )

  @computed
  def final_norm(self) -> bool:
    return self.placements[0].final_norm

  def layer(self, n):
    return self.placements[n % len(self.placements)].layer(n)

  def __call__(self, norm, x_BLD, parts):
    return self.layer(0)(norm, x_BLD, parts)
