"""Size limits for untrusted checkpoints: a small file must not exhaust the host."""

import contextlib
import re
from collections.abc import Iterable, Iterator

from transformer_jax.interop.checkpoint_files import Config, Tensors

MOST_LAYERS = 512  # each is traced before shapes are compared
LAYERS = (
  *("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
  *("encoder_layers", "decoder_layers", "num_decoder_layers"),
)
MOST = 2**31 - 1  # of a size
# Keys of tensor axes: each value is at most the size of the largest tensor.
# Experts (moe_) are not read, and a model without them may still have their width.
AXES = re.compile(
  r"^(?!moe_).*(dim$|d_(model|ff|kv)$|embd|inner|heads?$|hidden_size|inter|vocab|rank$)"
)
# Python's errors for values of unexpected types. The keys that a family reads are
# checked one by one; this catches the rest.
UNEXPECTED = (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)


@contextlib.contextmanager
def expected_kinds() -> Iterator[None]:
  """Raises ValueError if a value of config.json has an unexpected type."""
  try:
    yield
  except UNEXPECTED as error:
    raise ValueError(
      f"config.json has a value of a kind that no such model has ({error!s:.200});"
      " compare it with the one that was released"
    ) from error


def check(
  config: Config, tensors: Tensors | None = None, subject: str = "config.json says"
) -> None:
  """Raises ValueError if config.json describes a model too large to build.

  tensors   of the checkpoint, which bound layers and widths; None: fixed limits
  subject   first words of an error's message
  """
  largest = max((x.size for x in (tensors or {}).values()), default=0)
  for word, value in config.items():
    if type(value) is int and abs(value) > MOST:
      raise ValueError(f"{subject} {word}={value}; the most is {MOST}")
    if tensors and type(value) is int and AXES.search(word) and value > largest:
      raise ValueError(
        f"{subject} {word}={value}, and the largest tensor has {largest}"
        " numbers; use the weights that belong to it"
      )
  there = MOST_LAYERS if tensors is None else min(layers(tensors), MOST_LAYERS)
  for word in LAYERS:
    wanted = config.get(word)
    if type(wanted) is int and wanted > max(there, 0):
      raise ValueError(
        f"{subject} {word}={wanted}, and the weights have {there} layers; use"
        " those that belong to it"
        if tensors is not None and there < MOST_LAYERS
        else f"{subject} {word}={wanted}; {MOST_LAYERS} are read at most"
      )


def layers(names: Iterable[str]) -> int:
  """Returns the number of consecutive layers from 0: 2 for h.0.w and h.1.w."""
  numbers = {
    int(n) for name in names for n in re.findall(r"(?<=\.)\d{1,6}(?=\.)", name)
  }
  return next(n for n in range(len(numbers) + 1) if n not in numbers)
