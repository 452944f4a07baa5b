"""Llama and what is like it."""

from transformer_jax.attention import attentions
from transformer_jax.interop import names
from transformer_jax.interop.family import GATED, Family, families
from transformer_jax.interop.rotary import rope
from transformer_jax.interop.turns import turns
from transformer_jax.models.ends import Linear, Tokens
from transformer_jax.models.layers import RMSNorm
from transformer_jax.models.placements import PreNorm, Sandwich

LAYER, THEIRS = "decoder/layer_{n}", "model.layers.{n}"


@families.register("llama")
class Llama(Family):
  """Touvron et al., 2023. https://arxiv.org/abs/2302.13971"""

  prefix = "model."
  ignored = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
  copies = {"lm_head.weight": "model.embed_tokens.weight"}
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_attention_heads", F="intermediate_size",
    N="num_hidden_layers", L="max_position_embeddings",
    K=lambda config: config.get("head_dim", 0),
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
      norm=RMSNorm(config.get("rms_norm_eps", 1e-6)),
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
  """Qwen Team, 2024. https://arxiv.org/abs/2407.10671

  Queries, keys and values have biases, the output has none.
  """

  def attention(self, config):
    config.need(use_sliding_window=False)
    return super().attention(config | {"attention_bias": "in"})


@families.register("gemma2")
class Gemma2(Llama):
  """Gemma Team, 2024. https://arxiv.org/abs/2408.00118"""

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
    order = [kinds[kind] for kind in config.get("layer_types", usual)]
    cap = config.get("attn_logit_softcapping")
    return (
      super().attention(config)
      + [f"scale(0, {config['query_pre_attn_scalar'] ** -0.5})"]
      + ([f"softcap({cap})"] if cap else [])
      + [turns(order)]
    )
