"""What a family of models says of itself: an architecture and a table of names."""

import re
from typing import Any, ClassVar

import jax
import numpy as np

from transformer_jax.attention import Core
from transformer_jax.axes import Dims
from transformer_jax.interop.files import Config, Tensors
from transformer_jax.interop.table import Names, Table, of_layers
from transformer_jax.interop.words import Words
from transformer_jax.models import Architecture, Transformer
from transformer_jax.models.layers import GeGLU, Gelu, QuickGelu, Relu, Silu, SwiGLU
from transformer_jax.models.paths import flat
from transformer_jax.spec import Registry

ACTIVATIONS = {
  "gelu": Gelu(approximate=False),
  "gelu_new": Gelu(),
  "gelu_fast": Gelu(),
  "gelu_pytorch_tanh": Gelu(),
  "quick_gelu": QuickGelu(),
  "relu": Relu(),
  "silu": Silu(),
  "swish": Silu(),
}
GATED = {
  "gelu": GeGLU(approximate=False),
  "gelu_new": GeGLU(),
  "gelu_pytorch_tanh": GeGLU(),
  "silu": SwiGLU(),
  "swish": SwiGLU(),
}


class Family:
  """Models that share names; a subclass has the words of its config.json.

  prefix    of the names in a model with a head; bare models leave it out
  ignored   pattern of names that hold nothing that is trained or used here
  copies    {name: the name of the tensor that it repeats}
  table     {our path: (their name, their axes)}
  sizes     {letter of `Dims`: its word in config.json, or a function of the words}
  """

  prefix: ClassVar[str] = ""
  ignored: ClassVar[str] = "$^"
  copies: ClassVar[dict[str, str]] = {}
  table: ClassVar[Table] = {}
  sizes: ClassVar[dict[str, Any]] = {}

  def parts(self, config: Words) -> dict[str, Any]:
    """Returns the fields of the architecture besides dims and core."""
    raise NotImplementedError

  def dims(self, config: Words) -> Dims:
    size = lambda word: word(config) if callable(word) else config.whole(word)
    return Dims(**{letter: size(word) for letter, word in self.sizes.items()})

  def architecture(self, config: Config, core: Core) -> Architecture:
    words = Words(config)
    return Architecture(dims=self.dims(words), core=core, **self.parts(words))

  def names(self, arch: Architecture, config: Config) -> Names:
    """Returns the table of one model."""
    table = of_layers(self.rows(Words(config)), max(arch.encoders, arch.decoders))
    return Names(table, shapes(arch))

  def rows(self, config: Words) -> Table:
    return self.table

  def full(self, tensors: Tensors, names: Names) -> Tensors:
    """Gives the tensors of a bare model the names they have under a head."""
    if any(name.startswith(self.prefix) for name in tensors):
      return tensors
    known = {*names.expected(), *self.copies}
    longer = lambda name: name if name in known else self.prefix + name
    return {longer(name): x for name, x in tensors.items()}

  def check(self, tensors: Tensors, names: Names) -> None:
    """Raises ValueError with one list of all that does not fit."""
    expected = names.expected()
    wrong = [f"missing {name}" for name in sorted(expected.keys() - tensors.keys())]
    for name in sorted(tensors.keys() - expected.keys()):
      if name in self.copies and self.copies[name] in tensors:
        if not np.array_equal(tensors[name], tensors[self.copies[name]]):
          wrong.append(f"{name} should repeat {self.copies[name]} and does not")
      elif not re.fullmatch(self.ignored, name.removeprefix(self.prefix)):
        wrong.append(f"unknown {name}")
    for name in sorted(expected.keys() & tensors.keys()):
      if tensors[name].shape != expected[name]:
        found, wanted = list(tensors[name].shape), list(expected[name])
        wrong.append(f"{name} is {found}, and config.json makes it {wanted}")
    if wrong:
      raise ValueError(
        "the weights do not fit config.json; use those that belong to it:\n  "
        + "\n  ".join(wrong)
      )


families = Registry("family of models", Family)


def shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a model's parameters by path; nothing is computed."""
  token_BL = arch.embedding.example
  both = arch.encoders and arch.decoders
  texts = (token_BL, None, token_BL) if both else (token_BL,)
  model = Transformer(arch)
  tree = jax.eval_shape(lambda: model.init(jax.random.key(0), *texts))["params"]
  return {path: x.shape for path, x in flat(tree).items()}
