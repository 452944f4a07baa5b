"""Parameters by path: nested dicts, flat ones, and layers in stacks or one by one."""

import re
from typing import Any

import numpy as np

LAYER = re.compile(r"(.*/|)layer_(\d+)(/.*)")
LAYERS = re.compile(r"(.*/|)layers(/.*)")


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
  """Returns the leaves of nested dicts by path."""
  found: dict[str, Any] = {}
  for name, value in tree.items():
    nested = hasattr(value, "items")
    found |= flat(value, f"{prefix}{name}/") if nested else {f"{prefix}{name}": value}
  return found


def nested(arrays: dict[str, Any]) -> dict[str, Any]:
  """Undoes `flat`."""
  tree: dict[str, Any] = {}
  for path, value in arrays.items():
    *folders, name = path.split("/")
    node = tree
    for folder in folders:
      node = node.setdefault(folder, {})
    node[name] = value
  return tree


def stacked(arrays: dict[str, Any]) -> dict[str, Any]:
  """Returns the layers of each stack in one array, as a scan over layers has them."""
  found: dict[str, Any] = {}
  layers: dict[str, dict[int, Any]] = {}
  for path, x in arrays.items():
    match = LAYER.fullmatch(path)
    if match:
      layers.setdefault(f"{match[1]}layers{match[3]}", {})[int(match[2])] = x
    else:
      found[path] = x

  def stack(by_number):
    return np.stack([by_number[n] for n in sorted(by_number)])

  return found | {path: stack(by_number) for path, by_number in layers.items()}


def one_by_one(arrays: dict[str, Any]) -> dict[str, Any]:
  """Undoes `stacked`."""
  found: dict[str, Any] = {}
  for path, x in arrays.items():
    match = LAYERS.fullmatch(path)

    def named(n, m=match):
      return f"{m[1]}layer_{n}{m[2]}"

    found |= {named(n): each for n, each in enumerate(x)} if match else {path: x}
  return found


def natural(path: str) -> list[str | int]:
  """Returns a sort key by which layer_10 comes after layer_9."""
  return [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", path)]
