"""Kimi Linear: Kimi Delta Attention, latent attention without positions, experts."""

import re

from transformer_jax.attention.mixers.kda import KimiDelta
from transformer_jax.interop import described
from transformer_jax.interop.deepseek import DeepseekV3, latent_attention
from transformer_jax.interop.described import part, words
from transformer_jax.interop.expert_names import apart, experts, kinds_of, merged
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.hybrid import LINEAR, Hybrid
from transformer_jax.interop.layer_types import FULL, layer_kinds
from transformer_jax.interop.llama import LAYER, THEIRS, LlamaLike
from transformer_jax.models.layers import SwiGLU
from transformer_jax.positions import PositionalEncoding

OURS, MIXER, MLP = f"{LAYER}/attention", f"{THEIRS}.self_attn", f"{THEIRS}.mlp"
OWN = "linear_attn_config"  # where the released config.json has words of the mixer
# Words of a mixer, and what they are called there.
WORDS = {
  "linear_num_heads": "num_heads",
  "linear_head_dim": "head_dim",
  "linear_conv_kernel_dim": "short_conv_kernel_size",
}
SPARSE, DENSE = "sparse", "dense"
# Patterns of names of parameters, and their names in released files.
RELEASED = {
  r"self_attn\.forget_gate\.": "self_attn.",
  r"\.mlp\.(gate\.|experts\.|shared_experts\.)": r".block_sparse_moe.\1",
  r"(\.experts\.\d+)\.gate_proj\.": r"\1.w1.",
  r"(\.experts\.\d+)\.down_proj\.": r"\1.w2.",
  r"(\.experts\.\d+)\.up_proj\.": r"\1.w3.",
}
KINDS = {SPARSE: True, DENSE: False}


@families.register("kimi_linear")
class KimiLinear(Hybrid):
  """Zhang et al., 2025. https://arxiv.org/abs/2510.26692

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "kimi_linear"})
  >>> [arch.attention.layer(n).name for n in (0, 3, 4)], arch.position.name
  (['kda', 'kda', 'mla'], 'none')
  >>> arch.feedforward_kind.layer(0).experts, arch.feedforward_kind.layer(1).experts
  (0, 256)
  """

  defaults = dict(
    vocab_size=163_840, hidden_size=2304, intermediate_size=9216, num_hidden_layers=27,
    moe_intermediate_size=1024, num_attention_heads=32, num_key_value_heads=32,
    n_shared_experts=1, routed_scaling_factor=2.446, kv_lora_rank=512, v_head_dim=128,
    qk_rope_head_dim=64, qk_nope_head_dim=128, n_group=1, topk_group=1,
    num_experts_per_tok=8, norm_topk_prob=True, hidden_act="silu", rms_norm_eps=1e-5,
    max_position_embeddings=1_048_576, tie_word_embeddings=False, num_local_experts=256,
    linear_head_dim=128, linear_num_heads=32, linear_conv_kernel_dim=4,
  )  # fmt: skip
  aliases = dict(
    model_max_length="max_position_embeddings", moe_renormalize="norm_topk_prob",
    num_expert_group="n_group", num_experts="num_local_experts",
    num_experts_per_token="num_experts_per_tok", num_shared_experts="n_shared_experts",
  )  # fmt: skip
  # Losses and further tokens; widths that are sums of others; rotations, which no
  # layer has; what released files say of the one router that there is.
  harmless = """
    output_router_logits num_nextn_predict_layers qk_head_dim head_dim rope_theta
    rope_scaling rope_parameters moe_layer_freq moe_router_activation_func
    use_grouped_topk mla_use_nope
  """
  renamed = {
    **LlamaLike.renamed,
    r"self_attn\.(f_a_proj|f_b_proj|dt_bias|A_log)": r"self_attn.forget_gate.\1",
    r"\.block_sparse_moe\.": ".mlp.",
    r"(\.experts\.\d+)\.w1\.": r"\1.gate_proj.",
    r"(\.experts\.\d+)\.w2\.": r"\1.down_proj.",
    r"(\.experts\.\d+)\.w3\.": r"\1.up_proj.",
  }
  joined = {
    "self_attn.conv1d.weight": tuple(f"self_attn.{x}_conv1d.weight" for x in "qkv")
  }
  sizes = DeepseekV3.sizes
  table = {
    **{path: row for path, row in LlamaLike.table.items() if f"{OURS}/" not in path},
    **experts(
      f"{LAYER}/feedforward", f"{MLP}.gate", f"{MLP}.experts", f"{MLP}.shared_experts",
      f"{MLP}.gate.e_score_correction_bias",
    ),
  }  # fmt: skip
  layers = {
    LINEAR: {
      f"{OURS}/query_DHK": (f"{MIXER}.q_proj.weight", "HK D"),
      f"{OURS}/key_DHK": (f"{MIXER}.k_proj.weight", "HK D"),
      f"{OURS}/value_DHE": (f"{MIXER}.v_proj.weight", "HE D"),
      f"{OURS}/query_mix_HKN": (f"{MIXER}.conv1d.weight", "* 1 -N"),
      f"{OURS}/key_mix_HKN": (f"{MIXER}.conv1d.weight", "* 1 -N"),
      f"{OURS}/value_mix_HEN": (f"{MIXER}.conv1d.weight", "* 1 -N"),
      f"{OURS}/strength_DH": (f"{MIXER}.b_proj.weight", "H D"),
      f"{OURS}/decay_in_DW": (f"{MIXER}.forget_gate.f_a_proj.weight", "W D"),
      f"{OURS}/decay_out_WHK": (f"{MIXER}.forget_gate.f_b_proj.weight", "HK W"),
      f"{OURS}/log_rate_H": (f"{MIXER}.forget_gate.A_log", "1 1 H 1"),
      f"{OURS}/step_shift_HK": (f"{MIXER}.forget_gate.dt_bias", "HK"),
      f"{OURS}/gate_in_DW": (f"{MIXER}.g_a_proj.weight", "W D"),
      f"{OURS}/gate_out_WHE": (f"{MIXER}.g_b_proj.weight", "HE W"),
      f"{OURS}/norm_gain_E": (f"{MIXER}.o_norm.weight", "E"),
      f"{OURS}/out_HED": (f"{MIXER}.o_proj.weight", "D HE"),
    },
    FULL: {path: row for path, row in DeepseekV3.table.items() if f"{OURS}/" in path},
  }

  def described(self, arch):
    sparse = described.sparse(arch)
    return {
      **described.without(described.sizes(arch), "attention_bias", *described.ROTARY),
      **described.latent(arch),
      **words(
        part(arch, KimiDelta),
        convolution="linear_conv_kernel_dim", heads="linear_num_heads",
        key_width="linear_head_dim",
      ),
      **described.experts(
        arch,
        count="num_local_experts", active="num_experts_per_tok",
        width="moe_intermediate_size", normalized="norm_topk_prob",
        scale="routed_scaling_factor", groups="n_group", active_groups="topk_group",
      ),
      **described.many(arch),
      "mlp_layer_types": [SPARSE if has else DENSE for has in sparse],
      "layer_types": described.kinds(arch, KimiDelta, LINEAR, FULL),
    }  # fmt: skip

  def today(self, tensors):
    return merged(super().today(tensors))

  def saved(self, tensors):
    tensors = apart(super().saved(tensors))
    for name, theirs in RELEASED.items():
      tensors = {re.sub(name, theirs, n): x for n, x in tensors.items()}
    return tensors

  def parts(self, config):
    config.need(attention_bias=False)
    config.same("num_key_value_heads", "num_attention_heads")
    return super().parts(config) | dict(feedforward_kind=self.feedforward_kind(config))

  def feedforward_kind(self, config):
    """Returns the kind of each layer's feed-forward part."""
    word, count = "mlp_layer_types", config.whole("num_hidden_layers")
    dense = config.get("first_k_dense_replace", 1)
    usual = [DENSE if n < dense else SPARSE for n in range(count)]
    listed = config.many(word, usual)
    if len(listed) != count:
      raise ValueError(
        f"config.json says {word} of {len(listed)} layers, and there are {count}; write"
        " one kind for each"
      )
    sparse = [(config | {word: kind}).choose(word, KINDS) for kind in listed]
    return kinds_of(sparse, self.experts(config))

  def experts(self, config):
    """Returns the spec of a layer of experts."""
    width, many = (
      config.whole(word) for word in ("moe_intermediate_size", "n_shared_experts")
    )
    return (
      f"experts({config.whole('num_local_experts')},"
      f" {config.whole('num_experts_per_tok')}, width={width}, shared={width * many},"
      f" router='sigmoid', normalized={config.flag('norm_topk_prob', True)}, bias=True,"
      f" scale={config.number('routed_scaling_factor')},"
      f" groups={config.whole('n_group')},"
      f" active_groups={config.whole('topk_group')})"
    )

  def activation(self, config):
    return config.choose("hidden_act", {"silu": SwiGLU()})  # of the mixer, too

  def position(self, config):
    return PositionalEncoding()

  def kinds(self, config):
    count, own = config.whole("num_hidden_layers"), config.part(OWN)
    usual = [FULL if n and n % 4 == 0 else LINEAR for n in range(count)]
    if own.get("full_attn_layers") and own.get("kda_layers"):
      full = own.many("full_attn_layers", [])  # from 1
      usual = [FULL if n + 1 in full else LINEAR for n in range(count)]
    return layer_kinds(config, usual, (LINEAR, FULL))

  def specs(self, config):
    latent = latent_attention(config)
    own = config.part(OWN)
    heads, width, convolution = (
      (config | {word: own.get(theirs, config.get(word))}).whole(word)
      for word, theirs in WORDS.items()
    )
    own.check_read({"full_attn_layers", "kda_layers"}, OWN)
    mixer = (
      f"kda({convolution}, heads={heads}, key_width={width}, value_width={width},"
      f" epsilon={config.number('rms_norm_eps')})"
    )
    return {LINEAR: mixer, FULL: latent}
