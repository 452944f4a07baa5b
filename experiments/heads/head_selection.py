"""Heads by words such as 2:1 and decoder/layer_2/cross:1."""

import re
from collections.abc import Mapping, Sequence

from experiments.setup.validate import ConfigError
from transformer_jax.spec import nearest

LAYER = re.compile(r"(.*/)?layer_(\d+)(/.*)?")


def select(
  heads: Mapping[str, int], words: Sequence[str]
) -> dict[str, tuple[int, ...]]:
  """Returns {path of a layer: its chosen heads}; raises ConfigError.

  heads   {path: number of heads}
  words   LAYER:HEAD, or LAYER for all of its heads; LAYER is a number, which all layers
          of that number have, or a path; (): all heads of all layers

  >>> select({"decoder/layer_0/attention": 4, "decoder/layer_1/attention": 4}, ["1:2"])
  {'decoder/layer_1/attention': (2,)}
  """
  if not words:
    return {path: tuple(range(H)) for path, H in heads.items()}
  chosen: dict[str, set[int]] = {}
  for word in words:
    layer, _, head = word.partition(":")
    for path in _layers(heads, layer, word):
      chosen.setdefault(path, set()).update(_heads(heads[path], path, head, word))
  return {path: tuple(sorted(chosen[path])) for path in heads if path in chosen}


def _layers(heads: Mapping[str, int], layer: str, word: str) -> list[str]:
  """Returns the paths of a layer."""
  if layer in heads:
    return [layer]
  numbers = {path: LAYER.fullmatch(path) for path in heads}
  found = [path for path, match in numbers.items() if match and match[2] == layer]
  if not found:
    near = nearest(layer, heads)
    raise ConfigError(
      f"--head={word}: there is no layer '{layer}'.{near} This model has"
      f" {', '.join(heads)}; write --head=LAYER:HEAD, as in --head=0:1"
    )
  return found


def _heads(count: int, path: str, head: str, word: str) -> range:
  """Returns the heads of a layer that a word names; "": all."""
  if not head:
    return range(count)
  if not (head.isdigit() and int(head) < count):
    raise ConfigError(
      f"--head={word}: {path} has no head '{head}'; it has 0 to {count - 1}"
    )
  return range(int(head), int(head) + 1)
