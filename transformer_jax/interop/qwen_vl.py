"""Text models of Qwen2-VL and Qwen3-VL: rotary positions on three axes."""

from collections.abc import Mapping
from typing import ClassVar

from transformer_jax.interop import described
from transformer_jax.interop.hf_config import HFConfig
from transformer_jax.interop.hf_family import HFFamily, families
from transformer_jax.interop.llama import Qwen2, Qwen3
from transformer_jax.interop.outputs import bare
from transformer_jax.interop.rotary import rope
from transformer_jax.interop.table import NameTable
from transformer_jax.positions.mrope import LAYOUTS, MRope
from transformer_jax.positions.rope import Rope

SECTION, SPREAD = "mrope_section", "mrope_interleaved"


def without_prefix(table: NameTable) -> NameTable:
  """Returns a family's rows with the names of a class without an output."""
  names = {path: (name.removeprefix("model."), x) for path, (name, x) in table.items()}
  return {path: row for path, row in names.items() if path != "output_DV"}


def mrope(config: HFConfig, layout: str, sections: list[int]) -> MRope:
  """Returns the encoding of a config; images need ids, and text alone has none.

  config     of the model
  layout     of the axes over pairs: "sections" or "interleaved"
  sections   pairs of each axis, if config.json says none
  """
  where = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
  words = config.part(where)
  counts = words.many(SECTION, sections)
  words.need(**{SPREAD: None if layout == LAYOUTS[0] else words.get(SPREAD)})
  rest = {w: x for w, x in words.config.items() if w not in (SECTION, SPREAD)}
  if rest.get("type") == "mrope" or rest.get("rope_type") == "mrope":  # in older files
    rest |= {"type": "default", "rope_type": "default"}
  one = rope(config | {where: rest})
  if type(one) is not Rope:
    raise ValueError(
      f"config.json says rope_type={rest.get('rope_type', rest.get('type'))!r} of"
      " positions on three axes, which are only read without scaling"
    )
  if layout != LAYOUTS[0]:
    counts = fitted(counts, config.whole("head_dim") // 2)
  return MRope(one.base, sections=tuple(counts), layout=layout)


def fitted(counts: list[int], pairs: int) -> list[int]:
  """Returns the sections of alternating axes in a head, as their code reads them.

  It reads the last two, which may be of a wider head; the rest of the pairs is time.
  """
  if len(counts) != 3 or any(type(n) is not int for n in counts):
    return counts  # for `MRope` to refuse
  row, column = (
    len([n for n in range(axis, pairs, 3) if n < 3 * counts[axis]]) for axis in (1, 2)
  )
  return [pairs - row - column, row, column]


class TextOfVL(HFFamily):
  """What the text models have in common: no output, and images' ids.

  >>> import transformer_jax as tj
  >>> family = tj.interop.families["qwen2_vl_text"]()
  >>> isinstance(family, TextOfVL), [output.endings for output in family.outputs]
  (True, [('Model',)])
  """

  outputs = (bare(),)
  writes = False
  prefix = ""
  copies: ClassVar[Mapping[str, str]] = {}

  def described(self, arch):
    said = described.sizes(arch)
    ours = described.encodings(arch)[0]
    turns = {"rope_type": "default", "rope_theta": said.get("rope_theta", 10_000.0)}
    if isinstance(ours, MRope):
      turns["mrope_section"] = list(ours.sections)
      turns |= {SPREAD: True} if ours.layout != LAYOUTS[0] else {}
    unread = "attention_bias", "tie_word_embeddings", *described.ROTARY
    return described.without(said, *unread) | {"rope_parameters": turns}

  def whole_texts(self, config):
    """Raises ValueError for sliding windows."""
    config.need(use_sliding_window=False)
    for kind in config.many("layer_types", []):
      (config | {"layer_types": kind}).need(layer_types="full_attention")


@families.register("qwen2_vl_text")
class Qwen2VLText(TextOfVL, Qwen2):
  """Wang et al., 2024. https://arxiv.org/abs/2409.12191

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "qwen2_vl_text"})
  >>> arch.position.sections, arch.position.base
  ((16, 24, 24), 1000000.0)
  """

  defaults = Qwen2.defaults | dict(
    vocab_size=152_064, hidden_size=8192, intermediate_size=29_568,
    num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
    rms_norm_eps=1e-5, rope_theta=1_000_000.0,
  )  # fmt: skip
  harmless = "sliding_window max_window_layers attention_bias tie_word_embeddings"
  table = without_prefix(Qwen2.table)

  def position(self, config):
    return mrope(config, "sections", [16, 24, 24])


@families.register("qwen3_vl_text")
class Qwen3VLText(TextOfVL, Qwen3):
  """Bai et al., 2025. https://arxiv.org/abs/2511.21631

  The axes alternate over the pairs of features.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "qwen3_vl_text"})
  >>> arch.position.sections, arch.position.layout
  ((24, 20, 20), 'interleaved')
  """

  defaults = Qwen3.defaults | dict(
    max_position_embeddings=128_000, rope_theta=500_000.0, num_key_value_heads=32
  )
  harmless = "sliding_window max_window_layers tie_word_embeddings"
  table = without_prefix(Qwen3.table)

  def position(self, config):
    return mrope(config, "interleaved", [24, 20, 20])
