"""Compatibility of encodings, variants and cores with each use of attention."""

from collections.abc import Callable
from typing import TypeVar

from transformer_jax.attention import Core, Variant
from transformer_jax.positions import PositionalEncoding

Chosen = TypeVar("Chosen", PositionalEncoding, Variant)
USES: dict[str, Callable[[Chosen], Chosen]] = {
  "decoder": lambda part: part,  # tokens attend to earlier ones
  "encoder": lambda part: part.bidirectional(),  # tokens attend to all
  "prefix": lambda part: part.bidirectional(),  # to later ones in a prefix alone
  "cross": lambda part: part.cross(),  # decoder tokens attend to encoder tokens
}
MODES = ("train", "packed", "decode")


def form(part: Chosen, use: str) -> Chosen:
  """Returns the form of an encoding or a variant for one use of attention.

  Raises ValueError, naming both, where it has none.
  """
  try:
    return USES[use](part)
  except ValueError as error:
    raise ValueError(f"{part.name} in {use} attention: {error}") from error


def refusal(
  encoding: PositionalEncoding,
  core: Core,
  use: str,
  mode: str = "train",
  variant: Variant = Variant(),  # noqa: B008, a value that never changes
  dropout: bool = False,
) -> str | None:
  """Returns the error message of an incompatible combination, or None.

  encoding   positional encoding
  core       attention core
  use        decoder, encoder, prefix or cross
  mode       train, packed or decode
  variant    attention variant
  dropout    whether attention weights are dropped

  The message names the two incompatible options.
  """
  if use == "encoder" and mode == "decode":
    return "decode with an encoder: an encoder reads a whole text and writes none"
  try:
    encoding, variant = form(encoding, use), form(variant, use)
  except ValueError as error:
    return str(error)
  if variant.mixer:  # it needs no core, and reads no encoding
    return None
  return core.refusal(encoding, variant, dropout)
