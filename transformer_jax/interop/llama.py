"""Llama and similar decoders."""

from collections.abc import Mapping
from typing import ClassVar

from transformer_jax.attention import attentions
from transformer_jax.interop import described, names
from transformer_jax.interop.hf_activations import GATED
from transformer_jax.interop.hf_family import HFFamily, families
from transformer_jax.interop.layer_types import FULL, LOCAL, layer_kinds, turns
from transformer_jax.interop.rotary import rope
from transformer_jax.models.embeddings import TokenEmbedding
from transformer_jax.models.feature_norms import RMSNorm
from transformer_jax.models.heads import LinearHead
from transformer_jax.models.residual import PreNorm, SandwichNorm

LAYER, THEIRS = "decoder/layer_{n}", "model.layers.{n}"


class LlamaLike(HFFamily):
  """Base class of families with Llama's tensor names.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "mistral"})
  >>> arch.norm, arch.activation
  (RMSNorm(epsilon=1e-06, offset=0.0, gain=True), SwiGLU())
  """

  defaults = dict(
    vocab_size=32_000, hidden_size=4096, intermediate_size=11_008, hidden_act="silu",
    num_hidden_layers=32, num_attention_heads=32, max_position_embeddings=2048,
    rms_norm_eps=1e-6, tie_word_embeddings=False,
  )  # fmt: skip
  prefix = "model."
  ignored = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
  copies: ClassVar[Mapping[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_attention_heads", F="intermediate_size",
    L="max_position_embeddings",
    K=lambda config: config.whole("head_dim", 0),
  )  # fmt: skip
  table = {
    "embedding_VD": ("model.embed_tokens.weight", "V D"),
    "output_DV": ("lm_head.weight", "V D"),
    **names.norm("decoder/final_norm", "model.norm"),
    **names.norm(f"{LAYER}/attention_norm", f"{THEIRS}.input_layernorm"),
    **names.norm(f"{LAYER}/feedforward_norm", f"{THEIRS}.post_attention_layernorm"),
    **names.heads(
      f"{LAYER}/attention",
      *(f"{THEIRS}.self_attn.{part}_proj" for part in ("q", "k", "v", "o")),
    ),
    **names.dense(f"{LAYER}/feedforward", "in_DF", f"{THEIRS}.mlp.up_proj"),
    **names.dense(f"{LAYER}/feedforward", "gate_DF", f"{THEIRS}.mlp.gate_proj"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", f"{THEIRS}.mlp.down_proj"),
  }

  def parts(self, config):
    return dict(
      position=self.position(config),
      attention=attentions.build(" + ".join(self.attention(config))),
      norm=self.norm(config),
      activation=self.activation(config),
      norm_placement=PreNorm(),
      embedding=TokenEmbedding(power=0),
      decoders=config.whole("num_hidden_layers"),
      tied=config.flag("tie_word_embeddings", False),
      feedforward_bias=self.feedforward_bias(config),
    )

  def position(self, config):
    return rope(config)

  def norm(self, config):
    return RMSNorm(config.number("rms_norm_eps"))

  def activation(self, config):
    return config.choose("hidden_act", GATED)

  def feedforward_bias(self, config):
    return False

  def attention(self, config):
    """Returns the parts of the attention's spec."""
    return self.projections(config, config.flag("attention_bias", False))

  def projections(self, config, bias):
    """Returns the first part of the attention's spec."""
    groups = config.whole("num_key_value_heads", config.whole("num_attention_heads"))
    return [f"gqa({groups}, bias={bias!r})"]


@families.register("llama")
class Llama(LlamaLike):
  """Touvron et al., 2023. https://arxiv.org/abs/2302.13971

  >>> import transformer_jax as tj
  >>> config = {"model_type": "llama", "num_key_value_heads": 8, "rope_theta": 500000.0}
  >>> arch = tj.interop.architecture(config)
  >>> arch.position
  Rope(base=500000.0, interleaved=False, fraction=1.0, reverse=False)
  >>> arch.attention
  GQA(groups=8, bias=False, clip=0.0)
  """

  def described(self, arch):
    biased = {"mlp_bias": True} if arch.feedforward_bias else {}
    return described.sizes(arch) | biased

  def parts(self, config):
    config.need(rope_interleaved=False)
    return super().parts(config)

  def feedforward_bias(self, config):
    return config.flag("mlp_bias", False)


@families.register("mistral")
class Mistral(LlamaLike):
  """Jiang et al., 2023. https://arxiv.org/abs/2310.06825

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "mistral", "sliding_window": 1024})
  >>> arch.attention.parts
  (GQA(groups=8, bias=False, clip=0.0), Window(width=1024))
  """

  defaults = LlamaLike.defaults | dict(
    intermediate_size=14_336, num_key_value_heads=8, max_position_embeddings=131_072,
    sliding_window=4096,
  )  # fmt: skip

  def attention(self, config):
    config.need(attention_bias=False, mlp_bias=False)
    width = config.whole("sliding_window", 0)
    own = self.projections(config, False)
    return own + ([f"window({width})"] if width else [])


@families.register("qwen2")
class Qwen2(LlamaLike):
  """Yang et al., 2024. https://arxiv.org/abs/2407.10671

  Queries, keys and values have biases, the output has none.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "qwen2", "num_key_value_heads": 4})
  >>> arch.attention  # no bias in the output projection
  GQA(groups=4, bias='in', clip=0.0)
  """

  defaults = LlamaLike.defaults | dict(
    vocab_size=151_936, intermediate_size=22_016, num_key_value_heads=32,
    max_position_embeddings=32_768,
  )  # fmt: skip
  # The first two are unused without use_sliding_window; the last one always is.
  harmless = "sliding_window max_window_layers attention_bias"

  def attention(self, config):
    self.whole_texts(config)
    return self.projections(config, "in")

  def whole_texts(self, config):
    """Raises ValueError for sliding windows and for positions of images."""
    config.need(use_sliding_window=False, use_mrope=False)
    for kind in config.many("layer_types", []):
      (config | {"layer_types": kind}).need(layer_types="full_attention")


@families.register("qwen3")
class Qwen3(Qwen2):
  """Yang et al., 2025. https://arxiv.org/abs/2505.09388

  Each head's queries and keys are normed.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "qwen3"})
  >>> arch.attention.parts[1].name, arch.dims.K
  ('qk_norm', 128)
  """

  defaults = Qwen2.defaults | dict(head_dim=128)
  table = {
    **LlamaLike.table,
    f"{LAYER}/attention/query_gain_K": (f"{THEIRS}.self_attn.q_norm.weight", "K"),
    f"{LAYER}/attention/key_gain_K": (f"{THEIRS}.self_attn.k_norm.weight", "K"),
  }

  def attention(self, config):
    self.whole_texts(config)
    norm = f"qk_norm(epsilon={config.number('rms_norm_eps')})"
    return [*LlamaLike.attention(self, config), norm]


@families.register("gemma2")
class Gemma2(LlamaLike):
  """Riviere et al., 2024. https://arxiv.org/abs/2408.00118

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "gemma2"})
  >>> [part.name for part in arch.attention.parts]
  ['gqa', 'scale', 'softcap', 'alternate']
  >>> arch.head.cap, arch.norm_placement
  (30.0, SandwichNorm())
  """

  defaults = LlamaLike.defaults | dict(
    vocab_size=256_000, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26,
    num_attention_heads=8, num_key_value_heads=4, head_dim=256, sliding_window=4096,
    hidden_activation="gelu_pytorch_tanh", max_position_embeddings=8192,
    query_pre_attn_scalar=256, final_logit_softcapping=30.0,
    attn_logit_softcapping=50.0, tie_word_embeddings=True,
  )  # fmt: skip
  harmless = "hidden_act"  # hidden_activation is read in its place
  table = {
    **LlamaLike.table,
    **names.norm(
      f"{LAYER}/attention_update_norm", f"{THEIRS}.post_attention_layernorm"
    ),
    **names.norm(f"{LAYER}/feedforward_norm", f"{THEIRS}.pre_feedforward_layernorm"),
    **names.norm(
      f"{LAYER}/feedforward_update_norm", f"{THEIRS}.post_feedforward_layernorm"
    ),
  }

  def parts(self, config):
    config.need(use_bidirectional_attention=False)
    return super().parts(config) | dict(
      norm_placement=SandwichNorm(),
      embedding=TokenEmbedding(),
      head=LinearHead(cap=config.number("final_logit_softcapping", 0.0)),
    )

  def norm(self, config):
    return RMSNorm(config.number("rms_norm_eps"), offset=1.0)

  def activation(self, config):
    return config.choose("hidden_activation", GATED)

  def spans(self, config):
    """Returns the windows of layers, as a part of the attention's spec."""
    spans = {LOCAL: f"window({config.whole('sliding_window')})", FULL: "multihead"}
    layers = range(config.whole("num_hidden_layers"))
    kinds = layer_kinds(config, [[LOCAL, FULL][n % 2] for n in layers])
    return turns([spans[kind] for kind in kinds])

  def attention(self, config):
    cap = config.number("attn_logit_softcapping", 0.0)
    return (
      super().attention(config)
      + [f"scale(0, {config.number('query_pre_attn_scalar') ** -0.5})"]
      + ([f"softcap({cap})"] if cap else [])
      + [self.spans(config)]
    )
