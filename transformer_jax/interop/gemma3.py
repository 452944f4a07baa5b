"""Gemma 3, text models."""

from transformer_jax.interop.hf_family import families
from transformer_jax.interop.layer_types import (
  FULL,
  LOCAL,
  by_layer,
  layer_kinds,
  turns,
)
from transformer_jax.interop.llama import LAYER, THEIRS, Gemma2
from transformer_jax.interop.rotary import rope_of_kind


@families.register("gemma3_text")
class Gemma3(Gemma2):
  """Kamath et al., 2025. https://arxiv.org/abs/2503.19786

  Layers with a window have another rotary base; queries and keys are normed.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "gemma3_text"})
  >>> [encoding.base for encoding in arch.position.encodings]  # five local, one global
  [10000.0, 10000.0, 10000.0, 10000.0, 10000.0, 1000000.0]
  """

  called = "Gemma3"
  defaults = Gemma2.defaults | dict(
    vocab_size=262_208, max_position_embeddings=131_072, final_logit_softcapping=None,
    attn_logit_softcapping=None, sliding_window_pattern=6,
  )  # fmt: skip
  harmless = f"{Gemma2.harmless} _sliding_window_pattern"
  table = {
    **Gemma2.table,
    f"{LAYER}/attention/query_gain_K": (f"{THEIRS}.self_attn.q_norm.weight", "K"),
    f"{LAYER}/attention/key_gain_K": (f"{THEIRS}.self_attn.k_norm.weight", "K"),
  }

  def parts(self, config):
    config.need(attn_logit_softcapping=None)  # their code reads it and does not cap
    return super().parts(config)

  def position(self, config):
    bases = {
      FULL: rope_of_kind(config, FULL, "rope_theta", 1_000_000.0, True),
      LOCAL: rope_of_kind(config, LOCAL, "rope_local_base_freq", 10_000.0, False),
    }
    config.part("rope_parameters").check_read({*bases}, "rope_parameters")
    return by_layer([bases[kind] for kind in self.kinds(config)])

  def kinds(self, config):
    """Returns the kind of attention of each layer."""
    count, period = (
      config.whole(word) for word in ("num_hidden_layers", "sliding_window_pattern")
    )
    usual = [LOCAL if (n + 1) % period else FULL for n in range(count)]
    return layer_kinds(config, usual)

  def spans(self, config):
    width = config.whole("sliding_window")
    spans = {LOCAL: f"window({width})", FULL: "multihead"}
    return turns([spans[kind] for kind in self.kinds(config)])

  def attention(self, config):
    norm = f"qk_norm(epsilon={config.number('rms_norm_eps')}, offset=1.0)"
    return [*super().attention(config), norm]
