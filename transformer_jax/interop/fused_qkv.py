"""Decoders with one fused QKV projection: GPT-NeoX, BLOOM, Falcon, MPT."""

from transformer_jax.attention import attentions
from transformer_jax.interop import names
from transformer_jax.interop.harmless import HARMLESS
from transformer_jax.interop.hf_activations import ACTIVATIONS
from transformer_jax.interop.hf_family import RENAMED, HFFamily, families
from transformer_jax.interop.rotary import rope
from transformer_jax.interop.table import NameTable
from transformer_jax.models.embeddings import TokenEmbedding
from transformer_jax.models.feature_norms import LayerNorm
from transformer_jax.models.layers import Gelu
from transformer_jax.models.residual import Parallel, PreNorm
from transformer_jax.positions import positions

LAYER = "decoder/layer_{n}"


def inner(inward: str, outward: str):
  """Returns the table rows of the feed-forward layers."""
  return {
    **names.dense(f"{LAYER}/feedforward", "in_DF", inward),
    **names.dense(f"{LAYER}/feedforward", "out_FD", outward),
  }


@families.register("gpt_neox")
class GPTNeoX(HFFamily):
  """Black et al., 2022. https://arxiv.org/abs/2204.06745

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "gpt_neox", "rotary_pct": 0.5})
  >>> arch.position.fraction, arch.norm_placement
  (0.5, Parallel(norms='each'))
  """

  defaults = dict(
    vocab_size=50_432, hidden_size=6144, num_hidden_layers=44, num_attention_heads=64,
    intermediate_size=24_576, hidden_act="gelu", max_position_embeddings=2048,
    layer_norm_eps=1e-5, tie_word_embeddings=False, use_parallel_residual=True,
    attention_bias=True,
  )  # fmt: skip
  renamed = RENAMED | {"^embed_out": "lm_head"}
  copies = {"lm_head.weight": "gpt_neox.embed_in.weight"}
  prefix = "gpt_neox."
  ignored = r"layers\.\d+\.attention\.(rotary_emb\.inv_freq|(masked_)?bias)"
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_attention_heads", F="intermediate_size",
    L="max_position_embeddings",
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

  def parts(self, config):
    parallel = config.flag("use_parallel_residual", True)
    bias = config.flag("attention_bias", True)
    return dict(
      position=rope(config, base="rotary_emb_base", share="rotary_pct", usual=0.25),
      attention=attentions.build(f"multihead(bias={bias})"),
      norm=LayerNorm(config.number("layer_norm_eps")),
      activation=config.choose("hidden_act", ACTIVATIONS),
      norm_placement=Parallel() if parallel else PreNorm(),
      embedding=TokenEmbedding(power=0),
      decoders=config.whole("num_hidden_layers"),
      tied=config.flag("tie_word_embeddings", False),
      feedforward_bias=True,
    )


@families.register("bloom")
class Bloom(HFFamily):
  """BigScience, 2022. https://arxiv.org/abs/2211.05100

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "bloom"})
  >>> arch.position.name, arch.embedding.norm
  ('alibi', LayerNorm(epsilon=1e-05, shift=True, gain=True))
  """

  defaults = dict(
    vocab_size=250_880, hidden_size=64, n_layer=2, n_head=8, layer_norm_epsilon=1e-5,
    tie_word_embeddings=True,
  )  # fmt: skip
  aliases = dict(
    n_embed="hidden_size", num_attention_heads="n_head", num_hidden_layers="n_layer"
  )
  harmless = "offset_alibi"
  prefix = "transformer."
  copies = {"lm_head.weight": "transformer.word_embeddings.weight"}
  sizes = dict(
    V="vocab_size", D="hidden_size", H="n_head",
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
    norm = LayerNorm(config.number("layer_norm_epsilon"))
    return dict(
      position=positions.build("alibi"),
      attention=attentions.build("multihead(bias=True)"),
      norm=norm,
      activation=Gelu(),
      embedding=TokenEmbedding(power=0, norm=norm),
      decoders=config.whole("n_layer"),
      tied=config.flag("tie_word_embeddings", True),
      feedforward_bias=True,
    )


@families.register("falcon")
class Falcon(Bloom):
  """Almazrouei et al., 2023. https://arxiv.org/abs/2311.16867

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "falcon", "multi_query": True})
  >>> arch.attention, arch.norm_placement
  (GQA(groups=1, bias=False, clip=0.0), Parallel(norms='one'))
  """

  defaults = dict(
    vocab_size=65_024, hidden_size=4544, num_hidden_layers=32, num_attention_heads=71,
    layer_norm_epsilon=1e-5, activation="gelu", max_position_embeddings=2048,
    new_decoder_architecture=False, multi_query=True, parallel_attn=True, bias=False,
    tie_word_embeddings=True,
  )  # fmt: skip
  aliases = {"n_embed": "hidden_size"}
  harmless = ""
  ignored = r"h\.\d+\.self_attention\.rotary_emb\.inv_freq"
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_attention_heads",
    F=lambda config: config.whole("ffn_hidden_size", 4 * config.whole("hidden_size")),
    L=lambda config: config.whole("max_position_embeddings", 2048),
  )  # fmt: skip

  def rows(self, config):
    """Two norms have other names; queries may lie in groups."""
    attention = f"{LAYER}/attention"
    names_of_norms: NameTable = {}
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

  def new(self, config):
    """Returns whether the block is that of Falcon 40B."""
    return config.flag("new_decoder_architecture", False)

  def norms(self, config):
    """Returns the number of norms of a parallel block."""
    default = 2 if self.new(config) else 1
    return config.choose("num_ln_in_parallel_attn", {1: 1, default: default}, default)

  def groups(self, config):
    """Returns the number of key heads; 0: as many as of queries."""
    shared = config.flag("multi_query", True)
    heads = config.whole("num_attention_heads")
    groups = config.whole("num_kv_heads", heads)
    if self.new(config):
      return groups
    if not shared and groups != heads:
      config.same("num_kv_heads", "num_attention_heads")
    return 1 if shared else 0

  def parts(self, config):
    config.need(alibi=False, apply_residual_connection_post_layernorm=False)
    bias, groups = config.flag("bias", False), self.groups(config)
    parallel = config.flag("parallel_attn", True) or self.new(config)
    spec = f"gqa({groups}, bias={bias})" if groups else f"multihead(bias={bias})"
    norms = {1: "one", 2: "each"}[self.norms(config)]
    return dict(
      position=rope(config),
      attention=attentions.build(spec),
      norm=LayerNorm(config.number("layer_norm_epsilon")),
      activation=config.choose("activation", ACTIVATIONS),
      norm_placement=Parallel(norms) if parallel else PreNorm(),
      embedding=TokenEmbedding(power=0),
      decoders=config.whole("num_hidden_layers"),
      tied=config.flag("tie_word_embeddings", True),
      feedforward_bias=bias,
    )


@families.register("mpt")
class MPT(HFFamily):
  """MosaicML, 2023. https://www.databricks.com/blog/mpt-7b

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "mpt"})
  >>> arch.position.name, arch.norm
  ('alibi', LayerNorm(epsilon=1e-05, shift=False, gain=True))
  """

  called = "Mpt"
  defaults = dict(
    vocab_size=50_368, d_model=2048, n_heads=16, n_layers=24, max_seq_len=2048,
    layer_norm_epsilon=1e-5, tie_word_embeddings=True,
  )  # fmt: skip
  aliases = dict(
    num_attention_heads="n_heads", hidden_size="d_model", num_hidden_layers="n_layers"
  )
  # There are no learned positions, all norms are of one kind, and feed-forward layers
  # are four times as wide as the model, regardless of their ratio.
  harmless = "learned_pos_emb norm_type expansion_ratio"
  prefix = "transformer."
  copies = {"lm_head.weight": "transformer.wte.weight"}
  sizes = dict(
    V="vocab_size", D="d_model", H="n_heads", L="max_seq_len",
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
    words = config.part("attn_config")
    words.need(alibi=True, alibi_bias_max=8, qk_ln=False, prefix_lm=False)
    words.need(attn_type="multihead_attention", softmax_scale=None)
    cut = words.number("clip_qkv", 0.0)
    # HuggingFace's code reads no sequence ids.
    words.check_read(HARMLESS | {"attn_uses_sequence_id"}, "attn_config")
    return dict(
      position=positions.build("alibi"),
      attention=attentions.build(f"multihead(clip={cut})"),
      norm=LayerNorm(config.number("layer_norm_epsilon"), shift=False),
      activation=Gelu(approximate=False),
      embedding=TokenEmbedding(power=0),
      decoders=config.whole("n_layers"),
    )
