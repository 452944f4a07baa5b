"""DeepSeek-V3: latent attention and experts."""

import dataclasses
import math

from transformer_jax.attention.variants.dsa import DeepSeekSparse, rotates_alone
from transformer_jax.interop import described
from transformer_jax.interop.described import many
from transformer_jax.interop.expert_names import apart, experts, kinds_of, merged
from transformer_jax.interop.hf_config import HFConfig
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.layer_types import layer_kinds
from transformer_jax.interop.llama import LAYER, THEIRS, LlamaLike
from transformer_jax.interop.outputs import WRITER, bare
from transformer_jax.interop.rotary import rope
from transformer_jax.positions import positions
from transformer_jax.positions.rope_yarn import YarnRope

INDEXED = ("indexed_attention",)
OURS, ATTENTION = f"{LAYER}/attention", f"{THEIRS}.self_attn"
INNER, MLP = f"{LAYER}/feedforward", f"{THEIRS}.mlp"
# Words of losses, of layers that predict further tokens, and of other programs.
SILENT = """
  output_router_logits num_mtp_layers num_nextn_predict_layers moe_layer_freq
  aux_loss_alpha seq_aux ep_size
"""


def latent_attention(config: HFConfig) -> str:
  """Returns the spec of latent attention."""
  latent, part, value = (
    config.whole(word) for word in ("kv_lora_rank", "qk_rope_head_dim", "v_head_dim")
  )
  queries = config.whole("q_lora_rank", 0)
  return f"mla(latent={latent}, part={part}, queries={queries}, value={value})"


@families.register("deepseek_v3")
class DeepseekV3(LlamaLike):
  """DeepSeek-AI, 2024. https://arxiv.org/abs/2412.19437

  >>> import transformer_jax as tj
  >>> config = {"model_type": "deepseek_v3", "first_k_dense_replace": 61}
  >>> arch = tj.interop.architecture(config)
  >>> arch.attention.latent, arch.attention.part, arch.attention.queries
  (512, 64, 1536)
  """

  aliases = {"num_local_experts": "n_routed_experts"}
  defaults = LlamaLike.defaults | dict(
    vocab_size=129_280, hidden_size=7168, intermediate_size=18_432, kv_lora_rank=512,
    num_hidden_layers=61, num_attention_heads=128, max_position_embeddings=4096,
    q_lora_rank=1536, qk_rope_head_dim=64, v_head_dim=128, qk_nope_head_dim=128,
    first_k_dense_replace=3, num_key_value_heads=128, rope_interleave=True,
    moe_intermediate_size=2048, n_shared_experts=1, n_routed_experts=256,
    routed_scaling_factor=2.5, n_group=8, topk_group=4, num_experts_per_tok=8,
    norm_topk_prob=True,
  )  # fmt: skip
  harmless = f"{SILENT} head_dim qk_head_dim"  # the widths are sums of others
  sizes = LlamaLike.sizes | dict(K="qk_nope_head_dim")
  table = {
    **{path: row for path, row in LlamaLike.table.items() if f"{OURS}/" not in path},
    **experts(
      INNER,
      f"{MLP}.gate",
      f"{MLP}.experts",
      f"{MLP}.shared_experts",
      bias=f"{MLP}.gate.e_score_correction_bias",
    ),
    f"{OURS}/query_DHK": (f"{ATTENTION}.q_proj.weight", "H* D"),
    f"{OURS}/query_part_DHP": (f"{ATTENTION}.q_proj.weight", "H* D"),
    f"{OURS}/query_down_DQ": (f"{ATTENTION}.q_a_proj.weight", "Q D"),
    f"{OURS}/query_gain_Q": (f"{ATTENTION}.q_a_layernorm.weight", "Q"),
    f"{OURS}/query_QHK": (f"{ATTENTION}.q_b_proj.weight", "H* Q"),
    f"{OURS}/query_part_QHP": (f"{ATTENTION}.q_b_proj.weight", "H* Q"),
    f"{OURS}/latent_DC": (f"{ATTENTION}.kv_a_proj_with_mqa.weight", "* D"),
    f"{OURS}/key_part_DP": (f"{ATTENTION}.kv_a_proj_with_mqa.weight", "* D"),
    f"{OURS}/latent_gain_C": (f"{ATTENTION}.kv_a_layernorm.weight", "C"),
    f"{OURS}/key_CHK": (f"{ATTENTION}.kv_b_proj.weight", "H* C"),
    f"{OURS}/value_CHE": (f"{ATTENTION}.kv_b_proj.weight", "H* C"),
    f"{OURS}/out_HED": (f"{ATTENTION}.o_proj.weight", "D HE"),
  }

  def described(self, arch):
    sparse = described.sparse(arch)
    dense = sparse.index(True) if True in sparse else len(sparse)
    own = described.experts(
      arch,
      count="n_routed_experts", active="num_experts_per_tok", groups="n_group",
      width="moe_intermediate_size", active_groups="topk_group",
      normalized="norm_topk_prob", scale="routed_scaling_factor",
    )  # fmt: skip
    turned = described.encodings(arch)[0]
    return {
      **described.without(described.sizes(arch), "head_dim"),
      **described.latent(arch),
      **own,
      **many(arch),
      "rope_interleave": getattr(turned, "interleaved", True),
      "first_k_dense_replace": dense,
    }

  def parts(self, config):
    config.need(attention_bias=False, scoring_func="sigmoid", topk_method="noaux_tc")
    config.same("num_key_value_heads", "num_attention_heads")
    kind = kinds_of(self.sparse(config), self.experts(config))
    return super().parts(config) | dict(feedforward_kind=kind)

  def sparse(self, config):
    """Returns whether each layer has experts."""
    dense = config.get("first_k_dense_replace")
    if type(dense) is not int or dense < 0:
      raise ValueError(
        f"config.json says first_k_dense_replace={dense!r}; write 0 or more"
      )
    return [n >= dense for n in range(config.whole("num_hidden_layers"))]

  def experts(self, config):
    """Returns the spec of a layer of experts."""
    count, active, width, shared, groups, open_ = (
      config.whole(word)
      for word in (
        "n_routed_experts", "num_experts_per_tok", "moe_intermediate_size",
        "n_shared_experts", "n_group", "topk_group",
      )
    )  # fmt: skip
    return (
      f"experts({count}, {active}, width={width}, shared={shared * width},"
      f" router='sigmoid', normalized={config.flag('norm_topk_prob', True)},"
      f" scale={config.number('routed_scaling_factor')}, bias=True, groups={groups},"
      f" active_groups={open_})"
    )

  def today(self, tensors):
    return merged(super().today(tensors))

  def saved(self, tensors):
    return apart(tensors)

  def position(self, config):
    """Returns the rotary encoding; with two scales, YaRN scales whole scores too."""
    encoding = rope(config, interleaved=config.flag("rope_interleave", True))
    word = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    both = config.part(word).number("mscale_all_dim", 0.0)
    if not both or not isinstance(encoding, YarnRope) or encoding.factor <= 1:
      return encoding
    log = 0.1 * math.log(encoding.factor)
    own = (encoding.gain({}) * (both * log + 1) - 1) / log
    return dataclasses.replace(encoding, mscale=own, mscale_all=both)

  def attention(self, config):
    return [latent_attention(config)]


@families.register("deepseek_v32")
class DeepseekV32(DeepseekV3):
  """DeepSeek-AI, 2025. https://arxiv.org/abs/2512.02556

  An indexer chooses the keys of each query.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "deepseek_v32"})
  >>> mla, dsa = arch.attention.parts
  >>> dsa.k, dsa.heads, dsa.width, dsa.latent
  (2048, 64, 128, 1536)
  """

  outputs = (WRITER, bare())
  aliases = {**DeepseekV3.aliases, "num_experts": "n_routed_experts"}
  defaults = DeepseekV3.defaults | dict(
    max_position_embeddings=163_840, index_topk=2048, index_head_dim=128,
    index_n_heads=64,
  )  # fmt: skip
  table = {
    **DeepseekV3.table,
    f"{OURS}/index_query_QNW": (f"{ATTENTION}.indexer.wq_b.weight", "NW Q"),
    f"{OURS}/index_key_DW": (f"{ATTENTION}.indexer.wk.weight", "W D"),
    f"{OURS}/index_gain_W": (f"{ATTENTION}.indexer.k_norm.weight", "W"),
    f"{OURS}/index_shift_W": (f"{ATTENTION}.indexer.k_norm.bias", "W"),
    f"{OURS}/index_head_DN": (f"{ATTENTION}.indexer.weights_proj.weight", "N D"),
  }

  def described(self, arch):
    chosen = described.part(arch, DeepSeekSparse)
    return super().described(arch) | described.words(
      chosen, k="index_topk", heads="index_n_heads", width="index_head_dim"
    )

  def parts(self, config):
    # The epsilon of the indexer's norms is one here.
    config.need(mlp_bias=False, rms_norm_eps=1e-6, rope_interleave=True)
    layer_kinds(config, ["indexed_attention"] * len(self.sparse(config)), INDEXED)
    return super().parts(config)

  def sparse(self, config):
    usual = ["sparse" if has else "dense" for has in super().sparse(config)]
    word = "mlp_layer_types"
    listed = config.many(word, usual)
    if len(listed) != len(usual) or any(x not in ("sparse", "dense") for x in listed):
      raise ValueError(
        f"config.json says {word}={listed!r:.60}; write sparse or dense for each of"
        f" {len(usual)} layers"
      )
    return [kind == "sparse" for kind in listed]

  def attention(self, config):
    k, heads, width, part, latent = (
      config.whole(word)
      for word in (
        "index_topk", "index_n_heads", "index_head_dim", "qk_rope_head_dim",
        "q_lora_rank",
      )
    )  # fmt: skip
    encoding = dataclasses.replace(self.position(config), interleaved=False)
    if not rotates_alone(encoding):
      raise ValueError(
        f"config.json says rope_type={encoding.name.removeprefix('rope_')}, and an"
        " indexer turns by the position alone; only default, linear, llama3 and yarn"
        " are read here"
      )
    indexer = (
      f"dsa({k}, heads={heads}, width={width}, part={part}, latent={latent},"
      f" position={positions.label(encoding)!r})"
    )
    return [*super().attention(config), indexer]
