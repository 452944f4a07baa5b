"""Qwen3-Next: gated DeltaNet, gated attention, experts with a shared one."""

from transformer_jax.attention.mixers.gated_delta import GatedDelta
from transformer_jax.interop import described
from transformer_jax.interop.described import part, words
from transformer_jax.interop.expert_names import apart, experts, kinds_of, merged
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.hybrid import LINEAR, Hybrid, key_heads
from transformer_jax.interop.layer_types import FULL, layer_kinds
from transformer_jax.interop.llama import LAYER, THEIRS, LlamaLike, Qwen3
from transformer_jax.interop.outputs import SCORE, WRITER, bare, of_tokens
from transformer_jax.interop.rotary import SHARE, rope
from transformer_jax.models.feature_norms import RMSNorm
from transformer_jax.models.layers import SwiGLU

OURS, MIXER, MLP = f"{LAYER}/attention", f"{THEIRS}.linear_attn", f"{THEIRS}.mlp"
ATTENTION, INNER = f"{THEIRS}.self_attn", f"{LAYER}/feedforward"


@families.register("qwen3_next")
class Qwen3Next(Hybrid):
  """Qwen, 2025. https://huggingface.co/Qwen/Qwen3-Next-80B-A3B-Instruct

  Queries, keys, values and gates of a mixer are one tensor, by heads of keys; so are
  queries and gates of attention, by heads. Gains of norms are stored near zero.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "qwen3_next"})
  >>> [arch.attention.layer(n).name for n in (0, 3)], arch.position.fraction
  (['gated_delta', 'gqa + qk_norm + gated'], 0.25)
  >>> arch.feedforward_kind.active, arch.feedforward_kind.shared_gate
  (10, True)
  """

  defaults = LlamaLike.defaults | dict(
    vocab_size=151_936, hidden_size=2048, intermediate_size=5632, num_hidden_layers=48,
    num_attention_heads=16, num_key_value_heads=2, max_position_embeddings=32_768,
    head_dim=256, linear_conv_kernel_dim=4, linear_key_head_dim=128,
    linear_value_head_dim=128, linear_num_key_heads=16, linear_num_value_heads=32,
    decoder_sparse_step=1, moe_intermediate_size=512, num_experts_per_tok=10,
    shared_expert_intermediate_size=512, num_experts=512, norm_topk_prob=True,
    full_attention_interval=4,
  )  # fmt: skip
  outputs = WRITER, SCORE, of_tokens("ForTokenClassification", "score"), bare()
  harmless = "output_router_logits router_aux_loss_coef"
  table = {
    **{path: row for path, row in LlamaLike.table.items() if f"{OURS}/" not in path},
    **experts(INNER, f"{MLP}.gate", f"{MLP}.experts", f"{MLP}.shared_expert"),
    f"{INNER}/shared_mix_D1": (f"{MLP}.shared_expert_gate.weight", "1 D"),
  }
  layers = {
    LINEAR: {
      f"{OURS}/query_DGK": (f"{MIXER}.in_proj_qkvz.weight", "G* D"),
      f"{OURS}/key_DGK": (f"{MIXER}.in_proj_qkvz.weight", "G* D"),
      f"{OURS}/value_DHE": (f"{MIXER}.in_proj_qkvz.weight", "G* D"),
      f"{OURS}/gate_DHE": (f"{MIXER}.in_proj_qkvz.weight", "G* D"),
      f"{OURS}/strength_DH": (f"{MIXER}.in_proj_ba.weight", "G* D"),
      f"{OURS}/decay_DH": (f"{MIXER}.in_proj_ba.weight", "G* D"),
      f"{OURS}/query_mix_GKN": (f"{MIXER}.conv1d.weight", "* 1 -N"),
      f"{OURS}/key_mix_GKN": (f"{MIXER}.conv1d.weight", "* 1 -N"),
      f"{OURS}/value_mix_HEN": (f"{MIXER}.conv1d.weight", "* 1 -N"),
      f"{OURS}/log_rate_H": (f"{MIXER}.A_log", "H"),
      f"{OURS}/step_shift_H": (f"{MIXER}.dt_bias", "H"),
      f"{OURS}/norm_gain_E": (f"{MIXER}.norm.weight", "E"),
      f"{OURS}/out_HED": (f"{MIXER}.out_proj.weight", "D HE"),
    },
    FULL: {
      **{path: row for path, row in Qwen3.table.items() if f"{OURS}/" in path},
      f"{OURS}/query_DHK": (f"{ATTENTION}.q_proj.weight", "H* D"),
      f"{OURS}/gate_DHE": (f"{ATTENTION}.q_proj.weight", "H* D"),
      f"{OURS}/query_shift_HK": (f"{ATTENTION}.q_proj.bias", "H*"),
      f"{OURS}/gate_shift_HE": (f"{ATTENTION}.q_proj.bias", "H*"),
    },
  }

  def described(self, arch):
    sparse = described.sparse(arch)
    gated = words(
      part(arch, GatedDelta),
      convolution="linear_conv_kernel_dim", heads="linear_num_value_heads",
      key_width="linear_key_head_dim", value_width="linear_value_head_dim",
    )  # fmt: skip
    gated |= key_heads(part(arch, GatedDelta))
    return {
      "partial_rotary_factor": 1.0,
      **described.sizes(arch),
      **gated,
      **described.experts(
        arch,
        count="num_experts", active="num_experts_per_tok", normalized="norm_topk_prob",
        width="moe_intermediate_size", shared="shared_expert_intermediate_size",
      ),
      "mlp_only_layers": [n for n, has in enumerate(sparse) if not has],
      "layer_types": described.kinds(arch, GatedDelta, LINEAR, FULL),
    }  # fmt: skip

  def today(self, tensors):
    return merged(super().today(tensors))

  def saved(self, tensors):
    return apart(super().saved(tensors))

  def parts(self, config):
    return super().parts(config) | dict(feedforward_kind=self.feedforward_kind(config))

  def feedforward_kind(self, config):
    """Returns the kind of each layer's feed-forward part."""
    step, dense = (
      config.whole("decoder_sparse_step"), config.many("mlp_only_layers", [])
    )  # fmt: skip
    layers = range(config.whole("num_hidden_layers"))
    sparse = [n not in dense and (n + 1) % step == 0 for n in layers]
    return kinds_of(sparse, self.experts(config))

  def experts(self, config):
    """Returns the spec of a layer of experts."""
    width, shared = (
      config.whole(f"{part}_intermediate_size") for part in ("moe", "shared_expert")
    )
    return (
      f"experts({config.whole('num_experts')}, {config.whole('num_experts_per_tok')},"
      f" width={width}, shared={shared}, shared_gate=True,"
      f" normalized={config.flag('norm_topk_prob', True)})"
    )

  def norm(self, config):
    return RMSNorm(config.number("rms_norm_eps"), offset=1.0)

  def activation(self, config):
    return config.choose("hidden_act", {"silu": SwiGLU()})  # of the mixer, too

  def position(self, config):
    return rope(config, share=SHARE, usual=0.25)

  def kinds(self, config):
    count, period = (
      config.whole(word) for word in ("num_hidden_layers", "full_attention_interval")
    )
    usual = [LINEAR if (n + 1) % period else FULL for n in range(count)]
    return layer_kinds(config, usual, (LINEAR, FULL))

  def specs(self, config):
    bias, epsilon = config.flag("attention_bias", False), config.number("rms_norm_eps")
    attention = [
      *self.projections(config, bias),
      f"qk_norm(epsilon={epsilon}, offset=1.0)",
      "gated(start=0.0)" if bias else "gated",
    ]
    return {LINEAR: self.mixer(config), FULL: " + ".join(attention)}

  def mixer(self, config):
    """Returns the spec of gated DeltaNet."""
    key_heads, heads = (
      config.whole(f"linear_num_{part}_heads") for part in ("key", "value")
    )
    key_width, width = (
      config.whole(f"linear_{part}_head_dim") for part in ("key", "value")
    )
    return (
      f"gated_delta({config.whole('linear_conv_kernel_dim')}, heads={heads},"
      f" key_heads={key_heads}, key_width={key_width}, value_width={width},"
      f" epsilon={config.number('rms_norm_eps')})"
    )
