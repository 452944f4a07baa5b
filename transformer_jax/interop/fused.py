"""Decoders whose queries, keys and values are one matrix: NeoX, BLOOM, Falcon, MPT."""

from transformer_jax.attention import attentions
from transformer_jax.interop import names
from transformer_jax.interop.family import ACTIVATIONS, Family, families
from transformer_jax.interop.rotary import rope
from transformer_jax.models.ends import Tokens
from transformer_jax.models.layers import Gelu, LayerNorm
from transformer_jax.models.placements import Parallel, PreNorm
from transformer_jax.positions import positions

LAYER = "decoder/layer_{n}"


def inner(inward: str, outward: str):
  """Returns the rows of the feed-forward layers."""
  return {
    **names.dense(f"{LAYER}/feedforward", "in_DF", inward),
    **names.dense(f"{LAYER}/feedforward", "out_FD", outward),
  }


@families.register("gpt_neox")
class GPTNeoX(Family):
  """Black et al., 2022. https://arxiv.org/abs/2204.06745"""

  prefix = "gpt_neox."
  ignored = r"layers\.\d+\.attention\.(rotary_emb\.inv_freq|(masked_)?bias)"
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_attention_heads", F="intermediate_size",
    N="num_hidden_layers", L="max_position_embeddings",
  )  # fmt: skip
  table = {
    "embedding_VD": ("gpt_neox.embed_in.weight", "V D"),
    "output_DV": ("lm_head.weight", "V D"),
    **names.norm("decoder/final_norm", "gpt_neox.final_layer_norm"),
    **names.norm(f"{LAYER}/attention_norm", "gpt_neox.layers.{n}.input_layernorm"),
    **names.norm(
      f"{LAYER}/feedforward_norm", "gpt_neox.layers.{n}.post_attention_layernorm"
    ),
    **names.fused(
      f"{LAYER}/attention", "gpt_neox.layers.{n}.attention.query_key_value",
      "gpt_neox.layers.{n}.attention.dense", "H*K",
    ),
    **inner(
      "gpt_neox.layers.{n}.mlp.dense_h_to_4h", "gpt_neox.layers.{n}.mlp.dense_4h_to_h"
    ),
  }  # fmt: skip

  def full(self, tensors, known):
    """Gives the head of older releases its name of today."""
    newer = {"embed_out.weight": "lm_head.weight"}
    tensors = {newer.get(name, name): x for name, x in tensors.items()}
    return super().full(tensors, known)

  def parts(self, config):
    parallel = config.get("use_parallel_residual", True)
    bias = config.get("attention_bias", True)
    share = config.get("rotary_pct", 0.25)
    return dict(
      position=rope(config, config.get("rotary_emb_base", 10_000.0), fraction=share),
      attention=attentions.build(f"multihead(bias={bias})"),
      norm=LayerNorm(config.get("layer_norm_eps", 1e-5)),
      activation=config.choose("hidden_act", ACTIVATIONS, "gelu"),
      placement=Parallel() if parallel else PreNorm(),
      embedding=Tokens(power=0),
      decoders=config["num_hidden_layers"],
      tied=config.get("tie_word_embeddings", False),
      feedforward_bias=True,
    )


@families.register("bloom")
class Bloom(Family):
  """BigScience, 2022. https://arxiv.org/abs/2211.05100"""

  prefix = "transformer."
  copies = {"lm_head.weight": "transformer.word_embeddings.weight"}
  sizes = dict(
    V="vocab_size", D="hidden_size", H="n_head", N="n_layer",
    F=lambda config: 4 * config.whole("hidden_size"),
    L=lambda config: config.whole("seq_length", 2048),
  )  # fmt: skip
  table = {
    "embedding_VD": ("transformer.word_embeddings.weight", "V D"),
    "output_DV": ("lm_head.weight", "V D"),
    **names.norm("decoder/embedding_norm", "transformer.word_embeddings_layernorm"),
    **names.norm("decoder/final_norm", "transformer.ln_f"),
    **names.norm(f"{LAYER}/attention_norm", "transformer.h.{n}.input_layernorm"),
    **names.norm(
      f"{LAYER}/feedforward_norm", "transformer.h.{n}.post_attention_layernorm"
    ),
    **names.fused(
      f"{LAYER}/attention", "transformer.h.{n}.self_attention.query_key_value",
      "transformer.h.{n}.self_attention.dense", "H*K",
    ),
    **inner(
      "transformer.h.{n}.mlp.dense_h_to_4h", "transformer.h.{n}.mlp.dense_4h_to_h"
    ),
  }  # fmt: skip

  def parts(self, config):
    config.need(apply_residual_connection_post_layernorm=False)
    norm = LayerNorm(config.get("layer_norm_epsilon", 1e-5))
    return dict(
      position=positions.build("alibi"),
      attention=attentions.build("multihead(bias=True)"),
      norm=norm,
      activation=Gelu(),
      embedding=Tokens(power=0, norm=norm),
      decoders=config["n_layer"],
      tied=config.get("tie_word_embeddings", True),
      feedforward_bias=True,
    )


@families.register("falcon")
class Falcon(Bloom):
  """Almazrouei et al., 2023. https://arxiv.org/abs/2311.16867"""

  ignored = r"h\.\d+\.self_attention\.rotary_emb\.inv_freq"
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_attention_heads", N="num_hidden_layers",
    F=lambda config: config.whole("ffn_hidden_size", 4 * config.whole("hidden_size")),
    L=lambda config: config.whole("max_position_embeddings", 2048),
  )  # fmt: skip

  def rows(self, config):
    """Two norms have names of their own; queries may lie in groups."""
    attention, names_of_norms = f"{LAYER}/attention", {}
    if self.norms(config) == 2:
      for path, name in (("attention", "attn"), ("feedforward", "mlp")):
        names_of_norms |= names.norm(
          f"{LAYER}/{path}_norm", "transformer.h.{n}.ln_" + name
        )
    theirs = "transformer.h.{n}.self_attention."
    grouped = names.fused(
      attention, f"{theirs}query_key_value", f"{theirs}dense", "G*K"
    )
    return self.table | names_of_norms | (grouped if self.groups(config) else {})

  def norms(self, config):
    """Returns how many norms a parallel block has."""
    new = config.get("new_decoder_architecture", False)
    return config.get("num_ln_in_parallel_attn", 2) if new else 1

  def groups(self, config):
    """Returns how many heads of keys there are; 0: as many as of queries."""
    if config.get("new_decoder_architecture", False):
      return config["num_kv_heads"]
    return 1 if config.get("multi_query", True) else 0

  def parts(self, config):
    bias, groups = config.get("bias", False), self.groups(config)
    new = config.get("new_decoder_architecture", False)
    parallel = new or config.get("parallel_attn", True)
    spec = f"gqa({groups}, bias={bias})" if groups else f"multihead(bias={bias})"
    norms = {1: "one", 2: "each"}[self.norms(config)]
    config.need(alibi=False)
    return dict(
      position=rope(config),
      attention=attentions.build(spec),
      norm=LayerNorm(config.get("layer_norm_epsilon", 1e-5)),
      activation=config.choose("activation", ACTIVATIONS, "gelu"),
      placement=Parallel(norms) if parallel else PreNorm(),
      embedding=Tokens(power=0),
      decoders=config["num_hidden_layers"],
      tied=config.get("tie_word_embeddings", True),
      feedforward_bias=bias,
    )


@families.register("mpt")
class MPT(Family):
  """MosaicML, 2023. https://www.databricks.com/blog/mpt-7b"""

  prefix = "transformer."
  copies = {"lm_head.weight": "transformer.wte.weight"}
  sizes = dict(
    V="vocab_size", D="d_model", H="n_heads", N="n_layers", L="max_seq_len",
    F=lambda config: 4 * config.whole("d_model"),
  )  # fmt: skip
  table = {
    "embedding_VD": ("transformer.wte.weight", "V D"),
    **names.norm("decoder/final_norm", "transformer.norm_f"),
    **names.norm(f"{LAYER}/attention_norm", "transformer.blocks.{n}.norm_1"),
    **names.norm(f"{LAYER}/feedforward_norm", "transformer.blocks.{n}.norm_2"),
    **names.fused(
      f"{LAYER}/attention", "transformer.blocks.{n}.attn.Wqkv",
      "transformer.blocks.{n}.attn.out_proj", "*HK",
    ),
    **inner(
      "transformer.blocks.{n}.ffn.up_proj", "transformer.blocks.{n}.ffn.down_proj"
    ),
  }  # fmt: skip

  def parts(self, config):
    config.need(no_bias=True, tie_word_embeddings=True, logit_scale=None)
    config.need(expansion_ratio=4)
    words = config.part("attn_config")
    words.need(alibi=True, alibi_bias_max=8, qk_ln=False, prefix_lm=False)
    words.need(attn_type="multihead_attention", softmax_scale=None)
    return dict(
      position=positions.build("alibi"),
      attention=attentions.build(f"multihead(clip={words.get('clip_qkv', 0.0)})"),
      norm=LayerNorm(config.get("layer_norm_epsilon", 1e-5), shift=False),
      activation=Gelu(approximate=False),
      embedding=Tokens(power=0),
      decoders=config["n_layers"],
    )
