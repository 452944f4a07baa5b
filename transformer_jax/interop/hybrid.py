"""Hybrids: families whose layers differ in kind, as mixers and attention."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from transformer_jax.attention.mixers.delta_rule import DeltaRule
from transformer_jax.interop.checkpoint_files import Tensors
from transformer_jax.interop.layer_types import LINEAR as LINEAR
from transformer_jax.interop.layer_types import turns
from transformer_jax.interop.llama import LlamaLike
from transformer_jax.interop.outputs import WRITER, Output, bare
from transformer_jax.interop.table import NameTable, of_layer


class Hybrid(LlamaLike):
  """Base class of families with layers of several kinds.

  layers   {kind of layer: rows of its tensors}, besides those that all kinds have

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "olmo_hybrid"})
  >>> [arch.attention.layer(n).name for n in range(4)]
  ['gated_delta', 'gated_delta', 'gated_delta', 'gqa + qk_norm']
  """

  outputs: ClassVar[tuple[Output, ...]] = (WRITER, bare())
  layers: ClassVar[Mapping[str, NameTable]] = {}

  def kinds(self, config) -> Sequence[str]:
    """Returns the kind of each layer."""
    raise NotImplementedError

  def specs(self, config) -> Mapping[str, str]:
    """Returns the spec of each kind's attention."""
    raise NotImplementedError

  def attention(self, config):
    specs = self.specs(config)
    return [turns([specs[kind] for kind in self.kinds(config)])]

  def saved(self, tensors):
    for whole, parts in self.joined.items():
      tensors = apart(tensors, whole, parts)
    return tensors

  def rows(self, config):
    rows = dict(self.table)
    for n, kind in enumerate(self.kinds(config)):
      rows |= of_layer(self.layers[kind], n)
    return rows


def apart(tensors: Tensors, whole: str, parts: Sequence[str]) -> Tensors:
  """Returns tensors, those whose names end in `whole` cut into parts, as released.

  The part of `q_conv1d` has as many rows as `q_proj`.
  """
  found = {}
  for name, x in tensors.items():
    if not name.endswith(whole):
      found[name] = x
      continue
    start = name.removesuffix(whole)
    rows = [len(tensors[start + part.replace("conv1d", "proj")]) for part in parts]
    cut = np.split(x, np.cumsum(rows)[:-1])
    found |= {start + part: y for part, y in zip(parts, cut, strict=True)}
  return found


def key_heads(mixer: DeltaRule | None) -> dict[str, int]:
  """Returns what config.json says of the heads of a mixer's keys, if there is one."""
  return {"linear_num_key_heads": mixer.key_heads or mixer.heads} if mixer else {}
