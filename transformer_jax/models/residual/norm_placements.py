"""Placements of the norms around a sum: pre, post, sandwich, and without the sum."""

import dataclasses

import jax

from transformer_jax.models.residual.base import (
  Norms,
  Placement,
  Sublayer,
  placements,
)
from transformer_jax.spec import SpecError


@placements.register("pre")
@dataclasses.dataclass(frozen=True)
class PreNorm(Placement):
  """x + f(norm(x)), and a norm at the end. Xiong et al., 2020.

  https://arxiv.org/abs/2002.04745

  final_norm   False: without the norm after the last layer
  first_norm   False: without the norm before the first part of layer 0, where the
               embeddings have one, as in ModernBERT, https://arxiv.org/abs/2412.13663

  >>> def halved(name):
  ...   return lambda x: x / 2
  >>> placements.build("pre")(halved, 4.0, {"feedforward": lambda x: 3 * x})
  10.0
  """

  final_norm: bool = True
  first_norm: bool = True

  def layer(self, n: int) -> Placement:
    return self if n == 0 else dataclasses.replace(self, first_norm=True)

  def __call__(self, norm: Norms, x_BLD: jax.Array, parts: dict[str, Sublayer]):
    for n, (name, part) in enumerate(parts.items()):
      normed = norm(name) if n or self.first_norm else _unchanged
      x_BLD = x_BLD + part(normed(x_BLD))
    return x_BLD


def _unchanged(x_BLD: jax.Array) -> jax.Array:
  return x_BLD


@placements.register("post")
@dataclasses.dataclass(frozen=True)
class PostNorm(Placement):
  """norm(x + f(x)), as in Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

  final_norm   True: one more norm after the last layer

  >>> def halved(name):
  ...   return lambda x: x / 2
  >>> placements.build("post")(halved, 4.0, {"feedforward": lambda x: 3 * x})
  8.0
  """

  final_norm: bool = False

  def __call__(self, norm: Norms, x_BLD: jax.Array, parts: dict[str, Sublayer]):
    for name, part in parts.items():
      x_BLD = norm(name)(x_BLD + part(x_BLD))
    return x_BLD


@placements.register("sandwich")
@dataclasses.dataclass(frozen=True)
class SandwichNorm(Placement):
  """x + norm(f(norm(x))), and a norm at the end. Ding et al., 2021; Gemma 2.

  https://arxiv.org/abs/2105.13290, https://arxiv.org/abs/2408.00118

  >>> def halved(name):
  ...   return lambda x: x / 2
  >>> placements.build("sandwich")(halved, 4.0, {"feedforward": lambda x: 3 * x})
  7.0
  """

  def __call__(self, norm: Norms, x_BLD: jax.Array, parts: dict[str, Sublayer]):
    for name, part in parts.items():
      update_BLD = part(norm(name)(x_BLD))
      x_BLD = x_BLD + norm(f"{name}_update")(update_BLD)
    return x_BLD


@placements.register("update")
@dataclasses.dataclass(frozen=True)
class UpdateNorm(Placement):
  """x + norm(f(x)), and a norm at the end: OLMo 2. https://arxiv.org/abs/2501.00656

  >>> def plus_one(name):
  ...   return lambda x: x + 1
  >>> placements.build("update")(plus_one, 4.0, {"feedforward": lambda x: 3 * x})
  17.0
  """

  def __call__(self, norm: Norms, x_BLD: jax.Array, parts: dict[str, Sublayer]):
    for name, part in parts.items():
      x_BLD = x_BLD + norm(name)(part(x_BLD))
    return x_BLD


@placements.register("no_residual")
@dataclasses.dataclass(frozen=True)
class NoResidual(Placement):
  """f(norm(x)) without the sum, and a norm at the end: what residuals are for.

  He et al., 2016, https://arxiv.org/abs/1512.03385. Without residuals attention makes
  all tokens alike: Dong et al., 2021, https://arxiv.org/abs/2103.03404.

  >>> def halved(name):
  ...   return lambda x: x / 2
  >>> placements.build("no_residual")(halved, 4.0, {"feedforward": lambda x: 3 * x})
  6.0
  """

  def __call__(self, norm: Norms, x_BLD: jax.Array, parts: dict[str, Sublayer]):
    for name, part in parts.items():
      x_BLD = part(norm(name)(x_BLD))
    return x_BLD


@placements.register("parallel")
@dataclasses.dataclass(frozen=True)
class Parallel(Placement):
  """x + f(norm(x)) + g(norm(x)): all parts read the same x. Wang, 2021, GPT-J.

  https://github.com/kingoflolz/mesh-transformer-jax

  norms   "each": a separate norm for each part, as in GPT-NeoX; "one": a single norm
          for all, as in GPT-J

  >>> def halved(name):
  ...   return lambda x: x / 2
  >>> parts = {"attention": lambda x: x, "feedforward": lambda x: 3 * x}
  >>> placements.build("parallel")(halved, 4.0, parts)  # 4 + 2 + 3 * 2
  12.0
  """

  norms: str = "each"

  def __post_init__(self):
    if self.norms not in ("each", "one"):
      raise SpecError(f"parallel: norms is {self.norms!r}; write 'each' or 'one'")

  def __call__(self, norm: Norms, x_BLD: jax.Array, parts: dict[str, Sublayer]):
    if self.norms == "one":
      read_BLD = norm(next(iter(parts)))(x_BLD)
      return x_BLD + sum(part(read_BLD) for part in parts.values())
    return x_BLD + sum(part(norm(name)(x_BLD)) for name, part in parts.items())
