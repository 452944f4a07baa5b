"""Base class of encodings around another encoding."""

import dataclasses

from transformer_jax.forwarding import forward, of_field
from transformer_jax.positions.base import PositionalEncoding, positions


@dataclasses.dataclass(frozen=True)
class Wrapper(PositionalEncoding):
  """Base class of wrappers; members it does not define are those of `encoding`.

  encoding   the encoding inside; a spec such as "rope" is built

  >>> import transformer_jax as tj
  >>> wrapper = tj.positions.shared.wrapper.Wrapper("rope(base=500000.0)")
  >>> wrapper.encoding.base, wrapper.overrides("rotate")
  (500000.0, True)
  """

  encoding: PositionalEncoding

  def __post_init__(self):
    object.__setattr__(self, "encoding", positions.build(self.encoding))

  def overrides(self, hook: str) -> bool:
    if hook == "mask":
      return self.mask is not None
    own = getattr(type(self), hook) is not getattr(Wrapper, hook)
    return own or self.encoding.overrides(hook)

  def bidirectional(self) -> PositionalEncoding:
    return dataclasses.replace(self, encoding=self.encoding.bidirectional())

  def layer(self, n: int) -> PositionalEncoding:
    return dataclasses.replace(self, encoding=self.encoding.layer(n))

  name = PositionalEncoding.name
  tile_local = PositionalEncoding.tile_local


forward(
  Wrapper, PositionalEncoding, hook=of_field("encoding"), value=of_field("encoding")
)
