"""Base class of HuggingFace model families: an architecture and a table of names."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from transformer_jax.attention import Core
from transformer_jax.axes import Dims
from transformer_jax.interop.checkpoint_files import Config, Tensors, joined
from transformer_jax.interop.harmless import HARMLESS
from transformer_jax.interop.hf_config import HFConfig
from transformer_jax.interop.outputs import SCORE, WRITER, Output, bare, marked
from transformer_jax.interop.table import Names, NameTable, of_layers
from transformer_jax.models import Architecture, Transformer
from transformer_jax.models.param_tree import flat
from transformer_jax.spec import Registry

# Names of a norm's parameters in older releases, as in the checkpoints of BERT.
RENAMED = {
  r"LayerNorm\.gamma$": "LayerNorm.weight",
  r"LayerNorm\.beta$": "LayerNorm.bias",
}


class HFFamily:
  """Base class of model families: tensor names, and the keys of config.json.

  called     prefix of its class names, before the ending of an output
  outputs    heads of its classes; the first one if config.json names no class
  writes     whether the first output has no tensors besides a projection that may be
             tied to the embedding
  defaults   {key: its value if config.json has none}, as in HuggingFace's code
  aliases    {alias of a key: the key}
  harmless   keys besides those of `harmless.py` that this family's code ignores
  prefix     of tensor names in a model with an output; bare models leave it out
  renamed    {pattern of an older name: the current name}
  joined     {ending of a name: endings of tensors that hold its rows in older files}
  ignored    pattern of names of tensors that are neither trained nor used here
  copies     {name: the name of the tensor that it repeats}
  zeros      names of tensors that are zero where they are missing
  table      {our path: (their name, their axes)}
  sizes      {letter of `Dims`: its key in config.json, or a function of the config}
  decoder_sizes   the same for a decoder's layers, where those have separate keys

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "gpt2", "n_layer": 1})
  >>> list(families)[:4], len(families) > 25
  (['bart', 'bert', 'bloom', 'cohere'], True)
  >>> names = families["gpt2"]().names(arch, {"n_layer": 1})
  >>> [name for name in names.expected() if "attn.c_attn" in name]
  ['transformer.h.0.attn.c_attn.weight', 'transformer.h.0.attn.c_attn.bias']
  """

  called: ClassVar[str] = ""
  outputs: ClassVar[tuple[Output, ...]] = (WRITER, SCORE, bare())
  writes: ClassVar[bool] = True
  defaults: ClassVar[Mapping[str, Any]] = {}
  aliases: ClassVar[Mapping[str, str]] = {}
  harmless: ClassVar[str] = ""
  prefix: ClassVar[str] = ""
  renamed: ClassVar[Mapping[str, Any]] = RENAMED
  joined: ClassVar[Mapping[str, tuple[str, ...]]] = {}
  ignored: ClassVar[str] = "$^"
  copies: ClassVar[Mapping[str, str]] = {}
  zeros: ClassVar[tuple[str, ...]] = ()
  table: ClassVar[NameTable] = {}
  sizes: ClassVar[Mapping[str, Any]] = {}
  decoder_sizes: ClassVar[Mapping[str, str]] = {}

  def parts(self, config: HFConfig) -> dict[str, Any]:
    """Returns the fields of the architecture besides dims, core and other outputs."""
    raise NotImplementedError

  def described(self, arch: Architecture) -> Config:
    """Returns the config.json of a model, or of the nearest one of this family.

    `experiments.export` adds its class, and tries the families that override this.
    """
    raise NotImplementedError

  @property
  def describes(self) -> bool:
    """Whether the family overrides `described`."""
    return type(self).described is not HFFamily.described

  def dims(self, config: HFConfig) -> Dims:
    sizes = self.sizes.items()
    return Dims(**{letter: self.size(config, word) for letter, word in sizes})

  def size(self, config: HFConfig, word: Any) -> int:
    """Returns a size, by its key or by a function of the config."""
    return word(config) if callable(word) else config.whole(word)

  def decoder_dims(self, config: HFConfig) -> Dims | None:
    """Returns the sizes of a decoder's layers, or None if they are the encoder's."""
    dims, own = self.dims(config), {**self.sizes, **self.decoder_sizes}
    others = Dims(**{letter: self.size(config, word) for letter, word in own.items()})
    return None if others == dims else others

  def architecture(self, config: Config, core: Core) -> Architecture:
    """Returns the model of a config.json. Raises ValueError for unread keys."""
    words = self.words(config)
    words.need(add_cross_attention=False, tie_encoder_decoder=False)
    fields = self.parts(words) | self.output(words).fields(words)
    arch = Architecture(
      dims=self.dims(words),
      decoder_dims=self.decoder_dims(words),
      core=core,
      **fields,
    )
    words.check_read(HARMLESS | {*self.harmless.split()})
    return arch

  def words(self, config: Config) -> HFConfig:
    """Returns a config.json with aliases resolved and defaults filled in.

    An alias wins over the key itself, as in HuggingFace's code.
    """
    own = {word: x for word, x in config.items() if word not in self.aliases}
    other = {self.aliases[w]: x for w, x in config.items() if w in self.aliases}
    other = {word: x for word, x in other.items() if x is not None}
    return HFConfig({**self.defaults} | own | other)

  def missing(self, config: Config) -> Config:
    """Returns the keys that config.json lacks, with HuggingFace's defaults."""
    there = {self.aliases.get(word, word) for word in config}
    return {word: x for word, x in self.defaults.items() if word not in there}

  def output(self, config: HFConfig) -> Output:
    """Returns the output of the class that config.json names, or the first one."""
    return self.named(config) or self.outputs[0]

  def named(self, config: HFConfig) -> Output | None:
    """Returns the output of the class that config.json names, or None."""
    names = config.many("architectures", []) or [""]

    def ends(output):
      return str(names[0]).endswith(output.endings)

    return next(filter(ends, self.outputs), None)

  def names(self, arch: Architecture, config: Config) -> Names:
    """Returns the table of tensor names of one model."""
    words = self.words(config)
    rows = {**self.rows(words), **self.output(words).table}
    return Names(of_layers(rows, max(arch.encoders, arch.decoders)), shapes(arch))

  def rows(self, config: HFConfig) -> NameTable:
    return self.table

  def today(self, tensors: Tensors) -> Tensors:
    """Returns tensors under current names."""
    for old, new in self.renamed.items():
      tensors = {re.sub(old, new, name): x for name, x in tensors.items()}
    for new, parts in self.joined.items():
      tensors = joined(tensors, new, parts)
    return tensors

  def saved(self, tensors: Tensors) -> Tensors:
    """Returns tensors as releases hold them, where today's names are others."""
    return tensors

  def settle(self, config: Config, tensors: Tensors) -> Config:
    """Returns the config with the class and the weight tying of the tensors."""
    words = self.words(config)
    named, last = self.named(words), self.outputs[-1]
    if named in (None, last):
      output = marked(self.outputs, tensors, self.class_name)
      tied = self.writes and words.get("tie_word_embeddings", True)
      output = output or named or (self.outputs[0] if tied else last)
      if output is not named:
        config = config | {"architectures": [self.class_name + output.endings[0]]}
    return config | self.untied(self.words(config), tensors)

  @property
  def class_name(self) -> str:
    return self.called or type(self).__name__

  def untied(self, config: HFConfig, tensors: Tensors) -> Config:
    """Returns changed keys if the output differs from the embedding it is tied to.

    HuggingFace's code ties two tensors only if they are equal.
    """
    output, _ = self.table.get("output_DV", ("", ""))
    source = self.copies.get(output, "")

    def tensor(name: str) -> np.ndarray | None:
      return tensors.get(name, tensors.get(name.removeprefix(self.prefix)))

    output_VD, embedding_VD = tensor(output), tensor(source)
    if output_VD is None or embedding_VD is None:
      return {}
    if not config.get("tie_word_embeddings", True):
      return {}
    equal = np.array_equal(output_VD, embedding_VD)
    return {} if equal else {"tie_word_embeddings": False}

  def full(self, tensors: Tensors, names: Names) -> Tensors:
    """Returns tensors under their names in a model with an output.

    Bare models leave out a prefix; of tied tensors, any one may have been saved.
    """
    expected = names.expected()
    known = {*expected, *self.copies}

    def longer(name):
      return name if name in known else self.prefix + name

    def begins(name):
      return self.prefix and name.startswith(self.prefix)

    tensors = {n if begins(n) else longer(n): x for n, x in tensors.items()}
    for copy, source in self.copies.items():
      if source in expected.keys() - tensors.keys() and copy in tensors.keys():
        if copy not in expected:
          tensors[source] = tensors[copy]
    zeros = [name for name in self.zeros if name in expected.keys() - tensors.keys()]
    return tensors | {name: np.zeros(expected[name], np.float32) for name in zeros}

  def check(self, tensors: Tensors, names: Names) -> None:
    """Raises ValueError with one list of all tensors that do not fit."""
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


families = Registry("family of models", HFFamily)


def shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a model's parameters by path, by abstract evaluation."""
  token_BL = arch.embedding.example
  both = arch.encoders and arch.decoders
  texts = (token_BL, None, token_BL) if both else (token_BL,)
  model = Transformer(arch)
  method = "__call__" if arch.embedding.table or not arch.tied else "states"
  key = jax.random.key(0)
  shapes = jax.eval_shape(lambda: model.init(key, *texts, method=method))
  return {path: x.shape for path, x in flat(shapes["params"]).items()}
