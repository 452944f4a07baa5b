"""Granite 4: Mamba-2 in most layers, attention without positions in the others."""

import re

from transformer_jax.attention.mixers.state_space_duality import Mamba2
from transformer_jax.attention.variants.scale import Scale
from transformer_jax.interop import described, names
from transformer_jax.interop.expert_names import experts
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.hybrid import LINEAR, Hybrid
from transformer_jax.interop.layer_types import FULL, layer_kinds
from transformer_jax.interop.llama import LAYER, THEIRS, LlamaLike
from transformer_jax.interop.mamba2 import limit, mixer, steps
from transformer_jax.interop.rotary import rope
from transformer_jax.models.embeddings import TokenEmbedding
from transformer_jax.models.feedforward_kinds import FeedForwardKind, feedforwards
from transformer_jax.models.heads import LinearHead
from transformer_jax.models.layers import SwiGLU
from transformer_jax.models.residual.residual_scales import ScaledResidual
from transformer_jax.positions import PositionalEncoding

OURS, INNER = f"{LAYER}/attention", f"{LAYER}/feedforward"
SHARED, SPARSE = f"{THEIRS}.shared_mlp", f"{THEIRS}.block_sparse_moe"
# Names of parameters, and those in released files.
RELEASED = {
  "moe.experts.gate_up_proj": "moe.input_linear.weight",
  "moe.experts.down_proj": "moe.output_linear.weight",
  "moe.router.weight": "moe.router.layer.weight",
}


@families.register("granitemoehybrid")
class GraniteHybrid(Hybrid):
  """IBM, 2025. https://huggingface.co/ibm-granite/granite-4.0-h-tiny

  Embeddings, scores, updates of the residual stream and logits have a factor each.

  >>> import transformer_jax as tj
  >>> kinds = ["mamba"] * 3 + ["attention"]
  >>> config = {"model_type": "granitemoehybrid", "num_hidden_layers": 4}
  >>> config |= {"layer_types": kinds, "residual_multiplier": 0.22}
  >>> arch = tj.interop.architecture(config)
  >>> [arch.attention.layer(n).name for n in range(4)]
  ['mamba2', 'mamba2', 'mamba2', 'gqa + scale']
  >>> arch.norm_placement.factor, arch.feedforward_kind.count, arch.position.name
  (0.22, 8, 'none')
  """

  called = "GraniteMoeHybrid"
  defaults = LlamaLike.defaults | dict(
    embedding_multiplier=1.0, logits_scaling=1.0, residual_multiplier=1.0,
    attention_multiplier=1.0, num_local_experts=8, num_experts_per_tok=2,
    shared_intermediate_size=1024, mamba_n_heads=128, mamba_n_groups=1,
    mamba_d_state=256, mamba_d_head="auto", mamba_d_conv=4, mamba_expand=2,
    mamba_conv_bias=True, mamba_proj_bias=False,
  )  # fmt: skip
  aliases = dict(layers_block_type="layer_types")
  # Losses, first parameters, how the same numbers are computed; words of other code.
  harmless = """
    output_router_logits router_aux_loss_coef mamba_chunk_size normalization_function
    init_method rope_parameters rope_theta rope_scaling
  """
  renamed = {
    **LlamaLike.renamed,
    **{re.escape(theirs): name for name, theirs in RELEASED.items()},
  }
  sizes = LlamaLike.sizes | dict(F="shared_intermediate_size")
  table = {
    **{path: row for path, row in LlamaLike.table.items() if f"{LAYER}/" not in path},
    **names.norm(f"{OURS}_norm", f"{THEIRS}.input_layernorm"),
    **names.norm(f"{INNER}_norm", f"{THEIRS}.post_attention_layernorm"),
    **experts(INNER, f"{SPARSE}.router", f"{SPARSE}.experts", ""),
    **{
      f"{INNER}/{prefix}{ours}": (f"{SHARED}.{theirs}.weight", axes)
      for prefix in ("", "shared_")
      for ours, theirs, axes in (
        ("gate_DF", "input_linear", "*F D"),
        ("in_DF", "input_linear", "*F D"),
        ("out_FD", "output_linear", "D F"),
      )
    },
  }
  layers = {
    LINEAR: mixer(OURS, f"{THEIRS}.mamba"),
    FULL: names.heads(
      OURS, *(f"{THEIRS}.self_attn.{part}_proj" for part in ("q", "k", "v", "o"))
    ),
  }

  def described(self, arch):
    said, own = described.sizes(arch), described.part(arch, Mamba2)
    inward = own.heads * own.width if own else 0
    rotated = "rope_theta" in said
    shared = described.experts(arch, shared="shared_intermediate_size")
    return {
      **described.without(said, *(() if rotated else described.ROTARY)),
      "num_local_experts": 0,
      "num_experts_per_tok": 0,
      "shared_intermediate_size": arch.dims.F,
      **described.experts(
        arch,
        count="num_local_experts", active="num_experts_per_tok",
        width="intermediate_size",
      ),
      **shared,
      **described.words(
        own,
        heads="mamba_n_heads", width="mamba_d_head", state="mamba_d_state",
        groups="mamba_n_groups", convolution="mamba_d_conv", shift="mamba_conv_bias",
        bias="mamba_proj_bias",
      ),
      **limit(own),
      **({"mamba_expand": inward // arch.dims.D} if own else {}),
      **described.words(arch.norm_placement, factor="residual_multiplier"),
      **described.words(arch.embedding, scale="embedding_multiplier"),
      "logits_scaling": 1 / getattr(arch.head, "scale", 1.0),
      **described.words(described.part(arch, Scale), factor="attention_multiplier"),
      "position_embedding_type": "rope" if rotated else "nope",
      "layer_types": described.kinds(arch, Mamba2, "mamba", "attention"),
    }  # fmt: skip

  def saved(self, tensors):
    for name, theirs in RELEASED.items():
      tensors = {n.replace(name, theirs): x for n, x in tensors.items()}
    return tensors

  def parts(self, config):
    config.need(mlp_bias=False)
    return super().parts(config) | dict(
      embedding=TokenEmbedding(power=0, scale=config.number("embedding_multiplier")),
      head=LinearHead(scale=1 / config.number("logits_scaling")),
      norm_placement=ScaledResidual(config.number("residual_multiplier")),
      feedforward_kind=self.feedforward_kind(config),
    )

  def feedforward_kind(self, config):
    """Returns experts beside a shared one, or a dense layer."""
    active = config.get("num_experts_per_tok")
    width = config.whole("intermediate_size")
    if config.get("num_local_experts") == 0:
      return FeedForwardKind()
    count, shared = (
      config.whole(word) for word in ("num_local_experts", "shared_intermediate_size")
    )
    return feedforwards.build(
      f"experts({count}, {active!r}, width={width}, shared={shared})"
    )

  def activation(self, config):
    return config.choose("hidden_act", {"silu": SwiGLU()})  # of the mixer, too

  def position(self, config):
    known = {"rope": True, "nope": False, None: False}
    turns = config.choose("position_embedding_type", known)
    return rope(config) if turns else PositionalEncoding()

  def kinds(self, config):
    usual = [LINEAR] * config.whole("num_hidden_layers")
    return layer_kinds(config, usual, (LINEAR, FULL))

  def specs(self, config):
    (heads,) = LlamaLike.attention(self, config)
    factor = config.number("attention_multiplier")
    return {LINEAR: self.mixer(config), FULL: f"{heads} + scale(0, {factor})"}

  def mixer(self, config):
    """Returns the spec of Mamba-2."""
    heads, D, times = (
      config.whole(word) for word in ("mamba_n_heads", "hidden_size", "mamba_expand")
    )
    width = D * times // heads
    if config.get("mamba_d_head") != "auto":
      width = config.whole("mamba_d_head")
    if width * heads != D * times:
      raise ValueError(
        f"config.json says mamba_n_heads={heads} of {width}, which are not mamba_expand"
        f"={times} times hidden_size={D}; change one of them"
      )
    return (
      f"mamba2(heads={heads}, width={width}, state={config.whole('mamba_d_state')},"
      f" groups={config.whole('mamba_n_groups')},"
      f" convolution={config.whole('mamba_d_conv')},"
      f" shift={config.flag('mamba_conv_bias', True)},"
      f" bias={config.flag('mamba_proj_bias', False)}, {steps(config)},"
      f" epsilon={config.number('rms_norm_eps')})"
    )
