"""Table entries of experts, and tensors of releases that keep each expert apart."""

import re
from collections.abc import Sequence

import numpy as np

from transformer_jax.interop import names
from transformer_jax.interop.checkpoint_files import Tensors
from transformer_jax.interop.layer_types import cycle
from transformer_jax.interop.table import NameTable
from transformer_jax.models.feedforward_kinds import (
  FeedForwardKind,
  KindsByLayer,
  feedforwards,
)

PARTS = ("gate", "up", "down")


def experts(
  path: str,
  router: str,
  merged: str,
  shared: str,
  bias: str = "",
  out_in: bool = True,
) -> NameTable:
  """Returns the rows of a layer of gated experts and their router.

  path     of our layer
  router   name of their router's module
  merged   of the module of all experts, whose gates and inward projections are one
           tensor
  shared   of the module of the shared expert
  bias     of the tensor that is added where experts are chosen, if any
  out_in   whether the matrices of an expert are [out, in]
  """
  inward = "X *F D" if out_in else "X D *F"
  rows = {
    f"{path}/router_DX": (f"{router}.weight", "X D"),
    f"{path}/router_bias_X": (bias, "X"),
    f"{path}/gate_XDF": (f"{merged}.gate_up_proj", inward),
    f"{path}/in_XDF": (f"{merged}.gate_up_proj", inward),
    f"{path}/out_XFD": (f"{merged}.down_proj", "X D F" if out_in else "X F D"),
  }
  for ours, theirs in (("gate", "gate"), ("in", "up"), ("out", "down")):
    axes = "FD" if ours == "out" else "DF"
    rows |= names.dense(path, f"shared_{ours}_{axes}", f"{shared}.{theirs}_proj")
  return rows


def merged(tensors: Tensors) -> Tensors:
  """Returns tensors with those of single experts stacked, as their code now does.

  `mlp.experts.3.up_proj.weight` [F, D] is a part of `mlp.experts.gate_up_proj`
  [X, 2 F, D], whose first half are the gates.
  """
  pattern = re.compile(r"(.*\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")
  apart: dict[str, dict[str, dict[int, np.ndarray]]] = {}
  rest = {}
  for name, x in tensors.items():
    match = pattern.fullmatch(name)
    if not match:
      rest[name] = x
      continue
    module, number, part = match.groups()
    apart.setdefault(module, {}).setdefault(part, {})[int(number)] = x
  for module, parts in apart.items():
    rest |= _stacked(module, parts)
  return rest


def _stacked(module: str, parts: dict[str, dict[int, np.ndarray]]) -> Tensors:
  """Returns the tensors of all experts. Raises ValueError for one that is missing."""
  numbers = {part: [*range(len(parts.get(part, ())))] for part in PARTS}
  whole = all(sorted(parts.get(part, ())) == numbers[part] for part in PARTS)
  shapes = {part: {x.shape for x in parts.get(part, {}).values()} for part in PARTS}
  alike = all(len(found) == 1 for found in shapes.values())
  if not whole or not alike or len({*map(len, numbers.values())}) > 1:
    raise ValueError(
      f"{module} has experts of different tensors, or lacks some of theirs; use the"
      " weights that were released"
    )
  gate, up, down = (np.stack([parts[part][n] for n in numbers[part]]) for part in PARTS)
  if gate.shape != up.shape:
    raise ValueError(f"{module} has gates of {gate.shape[1:]} and {up.shape[1:]}")
  gate_up = np.concatenate([gate, up], axis=1)
  return {f"{module}.gate_up_proj": gate_up, f"{module}.down_proj": down}


def apart(tensors: Tensors) -> Tensors:
  """Inverse of `merged`: a tensor for each expert, as releases have them."""
  found = {}
  for name, x in tensors.items():
    module, _, last = name.rpartition(".")
    parts = {"down_proj": ("down",), "gate_up_proj": ("gate", "up")}.get(last, ())
    if not module.endswith(".experts") or not parts:
      found[name] = x
      continue
    for part, halves in zip(parts, np.split(x, len(parts), axis=1), strict=True):
      found |= {f"{module}.{n}.{part}_proj.weight": y for n, y in enumerate(halves)}
  return found


def kinds_of(sparse: Sequence[bool], spec: str) -> FeedForwardKind:
  """Returns the kind of all layers.

  sparse   whether a layer has experts, for each layer
  spec     of the experts
  """
  kinds = {True: feedforwards.build(spec), False: FeedForwardKind()}
  found = cycle([kinds[has] for has in sparse])
  return found[0] if len(found) == 1 else KindsByLayer(found)
