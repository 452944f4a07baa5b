"""Kinds of models, the values of `model.kind`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of model, the values of `model.kind`.

  uses      its kinds of attention: see transformer_jax/models/compatibility.py
  adapter   spec that turns a string task, {}, into one for this kind of model

  >>> KINDS["encoder_decoder"].sides, KINDS["encoder_decoder"].adapter.format("copy")
  ((True, True), 'pairs(copy)')
  """

  uses: tuple[str, ...]
  adapter: str

  @property
  def sides(self) -> tuple[bool, bool]:
    """Returns (it has an encoder, it has a decoder)."""
    return "encoder" in self.uses, bool({"decoder", "prefix"} & {*self.uses})


KINDS = {
  "decoder": Kind(("decoder",), "{}"),
  "prefix_decoder": Kind(("prefix",), "prefixed({})"),
  "encoder": Kind(("encoder",), "blanks({})"),
  "encoder_decoder": Kind(("encoder", "decoder", "cross"), "pairs({})"),
}
