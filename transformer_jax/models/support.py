"""Which encoding works in which attention, and why not: one table for all who ask."""

from collections.abc import Callable

from transformer_jax.attention import Core
from transformer_jax.positions import PositionalEncoding

USES: dict[str, Callable[[PositionalEncoding], PositionalEncoding]] = {
  "decoder": lambda encoding: encoding,  # each token sees what came before it
  "encoder": lambda encoding: encoding.bidirectional(),  # and what comes after it
  "prefix": lambda encoding: encoding.bidirectional(),  # only a prefix is seen whole
  "cross": lambda encoding: encoding.cross(),  # a decoder sees what an encoder read
}
MODES = ("train", "packed", "decode")


def form(encoding: PositionalEncoding, use: str) -> PositionalEncoding:
  """Returns the form of an encoding for one use of attention.

  Raises ValueError, naming both, where it has none.
  """
  try:
    return USES[use](encoding)
  except ValueError as error:
    raise ValueError(f"{encoding.name} in {use} attention: {error}") from error


def refusal(
  encoding: PositionalEncoding, core: Core, use: str, mode: str = "train"
) -> str | None:
  """Returns why an encoding cannot be used so, naming the two options, or None."""
  if use == "encoder" and mode == "decode":
    return "decode with an encoder: an encoder reads a whole text and writes none"
  try:
    used = form(encoding, use)
  except ValueError as error:
    return str(error)
  return core.refusal(used)
