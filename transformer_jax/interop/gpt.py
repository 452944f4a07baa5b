"""Decoders before Llama: GPT-2 and those near it."""

from transformer_jax.attention import attentions
from transformer_jax.interop import names
from transformer_jax.interop.family import ACTIVATIONS, Family, families
from transformer_jax.interop.rotary import rope
from transformer_jax.interop.turns import turns
from transformer_jax.models.ends import Linear, Tokens
from transformer_jax.models.layers import LayerNorm
from transformer_jax.models.placements import Parallel
from transformer_jax.positions import positions

LAYER = "decoder/layer_{n}"


@families.register("gpt2")
class GPT2(Family):
  """Radford et al., 2019. https://openai.com/index/better-language-models

  Matrices are [in, out].
  """

  prefix = "transformer."
  ignored = r"h\.\d+\.attn\.(masked_)?bias"
  copies = {"lm_head.weight": "transformer.wte.weight"}
  sizes = dict(V="vocab_size", D="n_embd", H="n_head", N="n_layer", L="n_positions") | {
    "F": lambda config: config.whole("n_inner", 4 * config.whole("n_embd"))
  }
  table = {
    "embedding_VD": ("transformer.wte.weight", "V D"),
    "output_DV": ("lm_head.weight", "V D"),
    "decoder/position/table_LD": ("transformer.wpe.weight", "L D"),
    **names.norm("decoder/final_norm", "transformer.ln_f"),
    **names.norm(f"{LAYER}/attention_norm", "transformer.h.{n}.ln_1"),
    **names.norm(f"{LAYER}/feedforward_norm", "transformer.h.{n}.ln_2"),
    **names.fused(
      f"{LAYER}/attention", "transformer.h.{n}.attn.c_attn",
      "transformer.h.{n}.attn.c_proj", "*HK", turned=False,
    ),
    **names.dense(
      f"{LAYER}/feedforward", "in_DF", "transformer.h.{n}.mlp.c_fc", turned=False
    ),
    **names.dense(
      f"{LAYER}/feedforward", "out_FD", "transformer.h.{n}.mlp.c_proj", turned=False
    ),
  }  # fmt: skip

  def parts(self, config):
    config.need(scale_attn_by_inverse_layer_idx=False, scale_attn_weights=True)
    config.need(add_cross_attention=False)
    return dict(
      position=positions.build(f"learned({config['n_positions']})"),
      attention=attentions.build("multihead(bias=True)"),
      norm=LayerNorm(config.get("layer_norm_epsilon", 1e-5)),
      activation=config.choose("activation_function", ACTIVATIONS, "gelu_new"),
      embedding=Tokens(power=0),
      decoders=config["n_layer"],
      tied=config.get("tie_word_embeddings", True),
      feedforward_bias=True,
    )


@families.register("gpt_neo")
class GPTNeo(GPT2):
  """Black et al., 2021. https://doi.org/10.5281/zenodo.5297715

  No scale; layers with a window between those without; a bias only after attention.
  """

  ignored = r"h\.\d+\.attn\.attention\.(masked_)?bias"
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_heads", N="num_layers",
    L="max_position_embeddings",
    F=lambda config: config.whole("intermediate_size", 4 * config.whole("hidden_size")),
  )  # fmt: skip
  table = {
    **GPT2.table,
    **names.heads(
      f"{LAYER}/attention",
      *(
        "transformer.h.{n}.attn.attention." + part
        for part in ("q_proj", "k_proj", "v_proj", "out_proj")
      ),
    ),
    **names.dense(f"{LAYER}/feedforward", "in_DF", "transformer.h.{n}.mlp.c_fc"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", "transformer.h.{n}.mlp.c_proj"),
  }

  def parts(self, config):
    words = {"n_positions": config["max_position_embeddings"]}
    words |= {"n_layer": config["num_layers"]}
    width, word = config.get("window_size", 256), "attention_types"
    kinds = {"global": "multihead", "local": f"window({width})"}
    named = lambda kind: (config | {word: kind}).choose(word, kinds)
    order = [named(kind) for some, times in config[word] for kind in some * times]
    spec = f"multihead(bias='out') + scale(0) + {turns(order)}"
    return super().parts(config | words) | dict(attention=attentions.build(spec))


@families.register("opt")
class OPT(Family):
  """Zhang et al., 2022. https://arxiv.org/abs/2205.01068

  Rows 0 and 1 of its positions are read by no token.
  """

  prefix = "model."
  copies = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_attention_heads", F="ffn_dim",
    N="num_hidden_layers", L="max_position_embeddings",
  )  # fmt: skip
  table = {
    "embedding_VD": ("model.decoder.embed_tokens.weight", "V D"),
    "output_DV": ("lm_head.weight", "V D"),
    "decoder/position/table_LD": ("model.decoder.embed_positions.weight", "L D"),
    **names.norm("decoder/final_norm", "model.decoder.final_layer_norm"),
    **names.norm(
      f"{LAYER}/attention_norm", "model.decoder.layers.{n}.self_attn_layer_norm"
    ),
    **names.norm(
      f"{LAYER}/feedforward_norm", "model.decoder.layers.{n}.final_layer_norm"
    ),
    **names.heads(
      f"{LAYER}/attention",
      *(
        "model.decoder.layers.{n}.self_attn." + part
        for part in ("q_proj", "k_proj", "v_proj", "out_proj")
      ),
    ),
    **names.dense(f"{LAYER}/feedforward", "in_DF", "model.decoder.layers.{n}.fc1"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", "model.decoder.layers.{n}.fc2"),
  }

  def parts(self, config):
    config.need(do_layer_norm_before=True, layer_norm_elementwise_affine=True)
    config.need(_remove_final_layer_norm=False)
    config.same("word_embed_proj_dim", "hidden_size")
    bias, rows = config.get("enable_bias", True), config["max_position_embeddings"] + 2
    return dict(
      position=positions.build(f"learned({rows}, start=2)"),
      attention=attentions.build(f"multihead(bias={bias})"),
      norm=LayerNorm(1e-5),
      activation=config.choose("activation_function", ACTIVATIONS, "relu"),
      embedding=Tokens(power=0),
      decoders=config["num_hidden_layers"],
      tied=config.get("tie_word_embeddings", True),
      feedforward_bias=bias,
    )


@families.register("gptj")
class GPTJ(GPT2):
  """Wang, 2021. https://github.com/kingoflolz/mesh-transformer-jax

  One norm serves attention and feed-forward layer; the first features of a head turn.
  """

  ignored = r"h\.\d+\.attn\.((masked_)?bias|embed_positions)"
  copies = {}
  table = {
    **GPT2.table,
    **names.heads(
      f"{LAYER}/attention",
      *(
        "transformer.h.{n}.attn." + part
        for part in ("q_proj", "k_proj", "v_proj", "out_proj")
      ),
    ),
    **names.dense(f"{LAYER}/feedforward", "in_DF", "transformer.h.{n}.mlp.fc_in"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", "transformer.h.{n}.mlp.fc_out"),
    "head/shift_V": ("lm_head.bias", "V"),
  }

  def parts(self, config):
    share = config["rotary_dim"] * config["n_head"] / config["n_embd"]
    return super().parts(config) | dict(
      position=rope(config, interleaved=True, fraction=share),
      attention=attentions.build("multihead"),
      placement=Parallel("one"),
      head=Linear(bias=True),
      tied=config.get("tie_word_embeddings", False),
    )
