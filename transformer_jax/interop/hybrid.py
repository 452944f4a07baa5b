"""Hybrids: families whose layers differ in kind, as mixers and attention."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from transformer_jax.interop.layer_types import LINEAR as LINEAR
from transformer_jax.interop.layer_types import turns
from transformer_jax.interop.llama import LlamaLike
from transformer_jax.interop.outputs import WRITER, bare
from transformer_jax.interop.table import NameTable, of_layer


class Hybrid(LlamaLike):
  """Base class of families with layers of several kinds.

  layers   {kind of layer: rows of its tensors}, besides those that all kinds have

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "olmo_hybrid"})
  >>> [arch.attention.layer(n).name for n in range(4)]
  ['gated_delta', 'gated_delta', 'gated_delta', 'gqa + qk_norm']
  """

  outputs = WRITER, bare()
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

  def rows(self, config):
    rows = dict(self.table)
    for n, kind in enumerate(self.kinds(config)):
      rows |= of_layer(self.layers[kind], n)
    return rows
