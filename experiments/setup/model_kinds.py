"""Kinds of models, the values of `model.kind`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Kind:
  """Kind of model: its kinds of attention and how it poses a task.

  uses      its kinds of attention: see transformer_jax/models/compatibility.py
  adapter   spec that turns a string task, {}, into one for this kind of model

  >>> KINDS["encoder"].has_encoder, KINDS["encoder"].has_decoder
  (True, False)
  >>> KINDS["encoder_decoder"].adapter.format("copy")
  'pairs(copy)'
  """

  uses: tuple[str, ...]
  adapter: str

  @property
  def has_encoder(self) -> bool:
    """Returns whether it reads a text with an encoder."""
    return "encoder" in self.uses

  @property
  def has_decoder(self) -> bool:
    """Returns whether it has a stack of a decoder, with or without a prefix."""
    return bool({"decoder", "prefix"} & {*self.uses})


KINDS = {
  "decoder": Kind(("decoder",), "{}"),
  "prefix_decoder": Kind(("prefix",), "prefixed({})"),
  "encoder": Kind(("encoder",), "blanks({})"),
  "encoder_decoder": Kind(("encoder", "decoder", "cross"), "pairs({})"),
}
