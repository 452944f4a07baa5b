"""LFM2: gated short convolutions in most layers, attention in the others."""

from transformer_jax.attention.mixers.gated_conv import GatedConv
from transformer_jax.interop import described, names
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.hybrid import Hybrid
from transformer_jax.interop.layer_types import FULL, layer_kinds
from transformer_jax.interop.llama import LAYER, THEIRS, LlamaLike
from transformer_jax.models.feature_norms import RMSNorm
from transformer_jax.models.layers import SwiGLU

CONV = "conv"
OURS, MIXER, ATTENTION = f"{LAYER}/attention", f"{THEIRS}.conv", f"{THEIRS}.self_attn"


def units(config):
  """Returns the hidden units of a feed-forward layer, F."""
  F, multiple = (
    config.whole(word) for word in ("intermediate_size", "block_multiple_of")
  )
  factor = config.number("block_ffn_dim_multiplier", 0.0)
  if not config.flag("block_auto_adjust_ff_dim", True):
    return F
  F = int(2 * F / 3)
  return -(-int(factor * F) // multiple) * multiple if factor else F


@families.register("lfm2")
class LFM2(Hybrid):
  """Amini et al., 2025. https://arxiv.org/abs/2511.23404

  Layers with attention have no order: config.json lists them.

  >>> import transformer_jax as tj
  >>> config = {"model_type": "lfm2", "num_hidden_layers": 4, "full_attn_idxs": [1, 2]}
  >>> arch = tj.interop.architecture(config)
  >>> [arch.attention.layer(n).name for n in range(4)]
  ['gated_conv', 'gqa + qk_norm', 'gqa + qk_norm', 'gated_conv']
  >>> arch.dims.F  # two thirds of 12288
  8192
  """

  called = "Lfm2"
  defaults = dict(
    vocab_size=65_536, hidden_size=2560, intermediate_size=12_288, num_hidden_layers=32,
    num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=128_000,
    norm_eps=1e-5, rope_theta=1_000_000.0, tie_word_embeddings=True,
    conv_bias=False, conv_L_cache=3,
    block_multiple_of=256, block_ffn_dim_multiplier=1.0, block_auto_adjust_ff_dim=True,
  )  # fmt: skip
  aliases = dict(block_ff_dim="intermediate_size", tie_embedding="tie_word_embeddings")
  harmless = """
    block_dim block_mlp_init_scale block_norm_eps block_out_init_scale num_heads
    block_use_swiglu block_use_xavier_init conv_dim conv_dim_out conv_use_xavier_init
    use_pos_enc
  """
  sizes = LlamaLike.sizes | dict(F=units)
  table = {
    "embedding_VD": LlamaLike.table["embedding_VD"],
    "output_DV": LlamaLike.table["output_DV"],
    **names.norm("decoder/final_norm", "model.embedding_norm"),
    **names.norm(f"{OURS}_norm", f"{THEIRS}.operator_norm"),
    **names.norm(f"{LAYER}/feedforward_norm", f"{THEIRS}.ffn_norm"),
    **names.dense(f"{LAYER}/feedforward", "gate_DF", f"{THEIRS}.feed_forward.w1"),
    **names.dense(f"{LAYER}/feedforward", "in_DF", f"{THEIRS}.feed_forward.w3"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", f"{THEIRS}.feed_forward.w2"),
  }
  layers = {
    CONV: {
      f"{OURS}/write_DF": (f"{MIXER}.in_proj.weight", "* D"),
      f"{OURS}/read_DF": (f"{MIXER}.in_proj.weight", "* D"),
      f"{OURS}/value_DF": (f"{MIXER}.in_proj.weight", "* D"),
      f"{OURS}/write_shift_F": (f"{MIXER}.in_proj.bias", "*"),
      f"{OURS}/read_shift_F": (f"{MIXER}.in_proj.bias", "*"),
      f"{OURS}/value_shift_F": (f"{MIXER}.in_proj.bias", "*"),
      f"{OURS}/mix_FN": (f"{MIXER}.conv.weight", "F 1 -N"),
      f"{OURS}/mix_shift_F": (f"{MIXER}.conv.bias", "F"),
      f"{OURS}/out_FD": (f"{MIXER}.out_proj.weight", "D F"),
      f"{OURS}/out_shift_D": (f"{MIXER}.out_proj.bias", "D"),
    },
    FULL: {
      **names.heads(
        OURS, *(f"{ATTENTION}.{part}_proj" for part in ("q", "k", "v", "out"))
      ),
      f"{OURS}/query_gain_K": (f"{ATTENTION}.q_layernorm.weight", "K"),
      f"{OURS}/key_gain_K": (f"{ATTENTION}.k_layernorm.weight", "K"),
    },
  }

  def described(self, arch):
    said = described.sizes(arch)
    unread = "rms_norm_eps", "hidden_act", "attention_bias"
    return {
      **described.without(said, *unread),
      "norm_eps": said["rms_norm_eps"],
      "block_auto_adjust_ff_dim": False,
      **described.words(
        described.part(arch, GatedConv), kernel="conv_L_cache", bias="conv_bias"
      ),
      "layer_types": described.kinds(arch, GatedConv, CONV, FULL),
    }

  def norm(self, config):
    return RMSNorm(config.number("norm_eps"))

  def activation(self, config):
    return SwiGLU()

  def kinds(self, config):
    layers = range(config.whole("num_hidden_layers"))
    full = config.many("full_attn_idxs", [*layers])
    return layer_kinds(
      config, [FULL if n in full else CONV for n in layers], (CONV, FULL)
    )

  def specs(self, config):
    kernel, bias = config.whole("conv_L_cache"), config.flag("conv_bias", False)
    epsilon = config.number("norm_eps")
    attention = [*self.projections(config, False), f"qk_norm(epsilon={epsilon})"]
    return {CONV: f"gated_conv({kernel}, bias={bias})", FULL: " + ".join(attention)}
