"""Families of models: each makes a model of one architecture, with one interface."""

import dataclasses
from typing import ClassVar

from transformer_jax.models.transformer import Architecture, Transformer
from transformer_jax.spec import Registry

families = Registry("model family")


@families.register("transformer")
@dataclasses.dataclass(frozen=True)
class Transformers:
  """Attention alone. Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

  lacks   sizes that models of a family do not have: feedforward
  """

  lacks: ClassVar[tuple[str, ...]] = ()

  def __call__(self, arch: Architecture) -> Transformer:
    """Returns the model; what does not fit together raises ValueError."""
    return Transformer(arch)
