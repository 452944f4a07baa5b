"""Families of models: each makes a model of one architecture, with one interface."""

import dataclasses
from typing import Any, ClassVar

from transformer_jax.axes import Dims
from transformer_jax.models.transformer import Architecture, Transformer
from transformer_jax.spec import Registry, SpecError


class Family:
  """Models of one interface.

  lacks   sizes that models of a family do not have: feedforward

  >>> families.build("transformer").lacks
  ()
  """

  lacks: ClassVar[tuple[str, ...]] = ()

  def __call__(self, arch: Architecture) -> Any:
    """Returns the model; raises ValueError where parts do not fit together."""
    raise NotImplementedError


families = Registry("model family", Family)


@families.register("transformer")
@dataclasses.dataclass(frozen=True)
class Transformers(Family):
  """Attention alone. Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

  A decoder beside an encoder may have other sizes, as some Marian and BART models do.

  decoder_heads        of its layers; 0: as many as in the encoder
  decoder_head_width   of its heads; 0: width / decoder_heads
  decoder_feedforward  hidden units of its layers; 0: as many as in the encoder

  >>> dims = Dims(V=5, D=8, H=2, F=16, L=8)
  >>> family = families.build("transformer(decoder_heads=4)")
  >>> model = family(Architecture(dims, "rope", encoders=1, decoders=1))
  >>> model.arch.dims.H, model.arch.decoder_dims.H
  (2, 4)
  """

  decoder_heads: int = 0
  decoder_head_width: int = 0
  decoder_feedforward: int = 0

  def __post_init__(self):
    for name, value in vars(self).items():
      if not isinstance(value, int) or value < 0:
        raise SpecError(f"transformer: {name} is {value!r}; write 0 or more")

  def __call__(self, arch: Architecture) -> Transformer:
    if not any(vars(self).values()):
      return Transformer(arch)
    dims = self._sizes(arch.dims)
    return Transformer(dataclasses.replace(arch, decoder_dims=dims))

  def _sizes(self, dims: Dims) -> Dims:
    """Returns the decoder's sizes, given the encoder's."""
    width = self.decoder_head_width or (0 if self.decoder_heads else dims.K)
    heads = self.decoder_heads or dims.H
    units = self.decoder_feedforward or dims.F
    return dataclasses.replace(dims, H=heads, K=width, F=units)
