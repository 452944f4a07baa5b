"""Llama and what is like it."""

from transformer_jax.attention import attentions
from transformer_jax.interop import names
from transformer_jax.interop.family import GATED, Family, families
from transformer_jax.interop.rotary import rope
from transformer_jax.interop.turns import turns
from transformer_jax.models.ends import Linear, Tokens
from transformer_jax.models.layers import LayerNorm, RMSNorm
from transformer_jax.models.placements import PreNorm, Sandwich, UpdateNorm

LAYER, THEIRS = "decoder/layer_{n}", "model.layers.{n}"


@families.register("llama")
class Llama(Family):
  """Touvron et al., 2023. https://arxiv.org/abs/2302.13971"""

  prefix = "model."
  ignored = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
  copies = {"lm_head.weight": "model.embed_tokens.weight"}
  epsilon = 1e-6  # where config.json has none
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_attention_heads", F="intermediate_size",
    N="num_hidden_layers", L="max_position_embeddings",
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
      position=rope(config),
      attention=attentions.build(" + ".join(self.attention(config))),
      norm=RMSNorm(config.get("rms_norm_eps", self.epsilon)),
      activation=config.choose("hidden_act", GATED, "silu"),
      placement=PreNorm(),
      embedding=Tokens(power=0),
      decoders=config["num_hidden_layers"],
      tied=config.get("tie_word_embeddings", False),
      feedforward_bias=config.get("mlp_bias", False),
    )

  def attention(self, config):
    """Returns the parts of the attention's spec."""
    groups = config.get("num_key_value_heads", config["num_attention_heads"])
    return [f"gqa({groups}, bias={config.get('attention_bias', False)!r})"]


@families.register("mistral")
class Mistral(Llama):
  """Jiang et al., 2023. https://arxiv.org/abs/2310.06825"""

  def attention(self, config):
    width = config.get("sliding_window")
    return super().attention(config) + ([f"window({width})"] if width else [])


@families.register("qwen2")
class Qwen2(Llama):
  """Yang et al., 2024. https://arxiv.org/abs/2407.10671

  Queries, keys and values have biases, the output has none.
  """

  def attention(self, config):
    self.whole_texts(config)
    return super().attention(config | {"attention_bias": "in"})

  def whole_texts(self, config):
    """Raises ValueError where a layer sees a window."""
    config.need(use_sliding_window=False)
    for kind in config.get("layer_types", ()):
      (config | {"layer_types": kind}).need(layer_types="full_attention")


@families.register("qwen3")
class Qwen3(Qwen2):
  """Yang et al., 2025. https://arxiv.org/abs/2505.09388

  No biases; each head's queries and keys are normed.
  """

  sizes = Llama.sizes | {"K": lambda config: config.whole("head_dim", 128)}
  table = {
    **Llama.table,
    f"{LAYER}/attention/query_gain_K": (f"{THEIRS}.self_attn.q_norm.weight", "K"),
    f"{LAYER}/attention/key_gain_K": (f"{THEIRS}.self_attn.k_norm.weight", "K"),
  }

  def attention(self, config):
    self.whole_texts(config)
    norm = f"qk_norm(epsilon={config.get('rms_norm_eps', self.epsilon)})"
    return [*Llama.attention(self, config), norm]


@families.register("olmo")
class Olmo(Llama):
  """Groeneveld et al., 2024. https://arxiv.org/abs/2402.00838

  Norms have no parameters; some models cut queries, keys and values.
  """

  def parts(self, config):
    return super().parts(config) | dict(norm=LayerNorm(1e-5, shift=False, gain=False))

  def attention(self, config):
    (projections,) = super().attention(config)
    return [f"{projections[:-1]}, clip={config.get('clip_qkv', 0.0)})"]


@families.register("olmo2")
class Olmo2(Llama):
  """Walsh et al., 2025. https://arxiv.org/abs/2501.00656

  What parts of a layer add is normed; so are queries and keys, of all heads together.
  """

  epsilon = 1e-5
  table = {
    **Llama.table,
    **names.norm(f"{LAYER}/attention_norm", f"{THEIRS}.post_attention_layernorm"),
    **names.norm(f"{LAYER}/feedforward_norm", f"{THEIRS}.post_feedforward_layernorm"),
    f"{LAYER}/attention/query_gain_HK": (f"{THEIRS}.self_attn.q_norm.weight", "HK"),
    f"{LAYER}/attention/key_gain_GK": (f"{THEIRS}.self_attn.k_norm.weight", "GK"),
  }

  def parts(self, config):
    return super().parts(config) | dict(placement=UpdateNorm())

  def attention(self, config):
    epsilon = config.get("rms_norm_eps", self.epsilon)
    return [*super().attention(config), f"qk_norm(epsilon={epsilon}, together=True)"]


@families.register("gemma2")
class Gemma2(Llama):
  """Riviere et al., 2024. https://arxiv.org/abs/2408.00118"""

  table = {
    **Llama.table,
    **names.norm(
      f"{LAYER}/attention_update_norm", f"{THEIRS}.post_attention_layernorm"
    ),
    **names.norm(f"{LAYER}/feedforward_norm", f"{THEIRS}.pre_feedforward_layernorm"),
    **names.norm(
      f"{LAYER}/feedforward_update_norm", f"{THEIRS}.post_feedforward_layernorm"
    ),
  }

  def parts(self, config):
    return super().parts(config) | dict(
      norm=RMSNorm(config.get("rms_norm_eps", 1e-6), offset=1.0),
      activation=config.choose("hidden_activation", GATED, "gelu_pytorch_tanh"),
      placement=Sandwich(),
      embedding=Tokens(),
      head=Linear(cap=config.get("final_logit_softcapping", 0.0)),
      tied=config.get("tie_word_embeddings", True),
    )

  def attention(self, config):
    kinds = {"sliding_attention": f"window({config['sliding_window']})"}
    kinds |= {"full_attention": "multihead"}
    layers = range(config["num_hidden_layers"])
    usual = [[*kinds][n % 2] for n in layers]
    named = lambda kind: (config | {"layer_types": kind}).choose("layer_types", kinds)
    order = [named(kind) for kind in config.get("layer_types", usual)]
    cap = config.get("attn_logit_softcapping")
    return (
      super().attention(config)
      + [f"scale(0, {config['query_pre_attn_scalar'] ** -0.5})"]
      + ([f"softcap({cap})"] if cap else [])
      + [turns(order)]
    )
