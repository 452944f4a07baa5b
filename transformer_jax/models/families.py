"""Families of models: each makes a model of one architecture, with one interface."""

import dataclasses
from typing import Any, ClassVar

from transformer_jax.models.transformer import Architecture, Transformer
from transformer_jax.spec import Registry


class Family:
  """Models of one interface.

  lacks   sizes that models of a family do not have: feedforward
  """

  lacks: ClassVar[tuple[str, ...]] = ()

  def __call__(self, arch: Architecture) -> Any:
    """Returns the model; what does not fit together raises ValueError."""
    raise NotImplementedError


families = Registry("model family", Family)


@families.register("transformer")
@dataclasses.dataclass(frozen=True)
class Transformers(Family):
  """Attention alone. Vaswani et al., 2017. https://arxiv.org/abs/1706.03762"""

  def __call__(self, arch: Architecture) -> Transformer:
    return Transformer(arch)
