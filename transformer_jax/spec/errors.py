"""Errors of specs, their suggestions, and the range of seeds."""

import difflib
from collections.abc import Iterable

# JAX makes a key from the last 32 bits of a number: larger seeds would repeat others.
LARGEST_SEED = 2**32 - 1


class SpecError(ValueError):
  """Error of a spec that cannot be built; the message has the remedy.

  >>> import transformer_jax as tj
  >>> try:
  ...   tj.positions.build("rop")
  ... except SpecError as error:
  ...   print(str(error).partition(" Choose")[0])
  unknown positional encoding 'rop'. Did you mean 'rope'?
  """


def check_seed(seed: int) -> None:
  """Raises SpecError unless a seed is between 0 and 2**32 - 1."""
  if not 0 <= seed <= LARGEST_SEED:
    raise SpecError(f"seed={seed}: a seed has 32 bits; write 0 to {LARGEST_SEED}")


def nearest(name: str, choices: Iterable[str]) -> str:
  """Returns `" Did you mean 'rope'?"` for `rop`, or "" without a close match."""
  close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
  return f" Did you mean '{close[0]}'?" if close else ""


# Former names of arguments: {former name: present names}.
RENAMED = {
  "longest": ("max_positions", "max_distance", "max_length"),
  "furthest": ("max_distance", "max_offset", "max_shift"),
}


def renamed(name: str, choices: Iterable[str]) -> str:
  """Returns `" furthest is called max_distance."` for an argument's old name, or ""."""
  now = [new for new in RENAMED.get(name, ()) if new in choices]
  return f" {name} is called {now[0]}." if now else ""
