"""OLMo Hybrid: gated DeltaNet in most layers, attention in the others."""

from transformer_jax.attention.mixers.gated_delta import GatedDelta
from transformer_jax.interop import described, names
from transformer_jax.interop.checkpoint_files import Tensors
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.hybrid import LINEAR, Hybrid, key_heads
from transformer_jax.interop.layer_types import FULL, cycle, layer_kinds
from transformer_jax.interop.llama import LAYER, THEIRS, LlamaLike
from transformer_jax.interop.olmo import Olmo2
from transformer_jax.interop.rotary import rope
from transformer_jax.models.layers import SwiGLU
from transformer_jax.models.residual import PreNorm, UpdateNorm
from transformer_jax.models.residual.placement_list import PlacementList
from transformer_jax.positions import PositionalEncoding

OURS, MIXER = f"{LAYER}/attention", f"{THEIRS}.linear_attn"
HEADS = "num_attention_heads"
PLACEMENTS = {LINEAR: PreNorm(), FULL: UpdateNorm()}


@families.register("olmo_hybrid")
class OlmoHybrid(Hybrid):
  """Merrill et al., 2026. https://arxiv.org/abs/2604.03444

  Layers of a mixer have norms before their parts, those of attention after them. The
  released models have no positional encoding.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "olmo_hybrid"})
  >>> arch.attention.usual.negative, arch.attention.usual.value_width
  (True, 192)
  >>> arch.norm_placement.placements[2:], arch.position.name
  ((PreNorm(final_norm=True, first_norm=True), UpdateNorm()), 'none')
  """

  defaults = LlamaLike.defaults | dict(
    vocab_size=100_352, hidden_size=3840, num_attention_heads=30,
    max_position_embeddings=65_536, linear_conv_kernel_dim=4,
    linear_allow_neg_eigval=True,
  )  # fmt: skip
  # How the first parameters are drawn.
  harmless = """
    linear_a_log_min linear_a_log_max linear_dt_min linear_dt_max linear_dt_init_floor
  """
  # As the released files have them.
  renamed = {
    **LlamaLike.renamed,
    "attention_layer_norm": "input_layernorm",
    "feedforward_layer_norm": "post_attention_layernorm",
  }
  joined = {
    "linear_attn.conv1d.weight": tuple(
      f"linear_attn.{part}_conv1d.weight" for part in "qkv"
    )
  }
  layers = {
    LINEAR: {
      **names.norm(f"{LAYER}/attention_norm", f"{THEIRS}.input_layernorm"),
      **names.norm(f"{LAYER}/feedforward_norm", f"{THEIRS}.post_attention_layernorm"),
      f"{OURS}/query_DGK": (f"{MIXER}.q_proj.weight", "GK D"),
      f"{OURS}/key_DGK": (f"{MIXER}.k_proj.weight", "GK D"),
      f"{OURS}/value_DHE": (f"{MIXER}.v_proj.weight", "HE D"),
      f"{OURS}/query_mix_GKN": (f"{MIXER}.conv1d.weight", "* 1 -N"),
      f"{OURS}/key_mix_GKN": (f"{MIXER}.conv1d.weight", "* 1 -N"),
      f"{OURS}/value_mix_HEN": (f"{MIXER}.conv1d.weight", "* 1 -N"),
      f"{OURS}/strength_DH": (f"{MIXER}.b_proj.weight", "H D"),
      f"{OURS}/decay_DH": (f"{MIXER}.a_proj.weight", "H D"),
      f"{OURS}/log_rate_H": (f"{MIXER}.A_log", "H"),
      f"{OURS}/step_shift_H": (f"{MIXER}.dt_bias", "H"),
      f"{OURS}/gate_DHE": (f"{MIXER}.g_proj.weight", "HE D"),
      f"{OURS}/norm_gain_E": (f"{MIXER}.o_norm.weight", "E"),
      f"{OURS}/out_HED": (f"{MIXER}.o_proj.weight", "D HE"),
    },
    FULL: {
      path: row
      for path, row in Olmo2.table.items()
      if f"{OURS}/" in path
      or path.startswith((f"{OURS}_norm", f"{LAYER}/feedforward_norm"))
    },
  }

  def described(self, arch):
    said = described.sizes(arch)
    turns = {"rope_theta": said["rope_theta"]} if "rope_theta" in said else {}
    return {
      **described.without(said, "rope_theta", "head_dim"),
      **({"rope_parameters": turns} if turns else {}),
      **described.words(
        described.part(arch, GatedDelta),
        convolution="linear_conv_kernel_dim", negative="linear_allow_neg_eigval",
        heads="linear_num_value_heads", 
        key_width="linear_key_head_dim", value_width="linear_value_head_dim",
      ),
      **key_heads(described.part(arch, GatedDelta)),
      "layer_types": described.kinds(arch, GatedDelta, LINEAR, FULL),
    }  # fmt: skip

  def saved(self, tensors):
    tensors = super().saved(tensors)
    return {released(name, tensors): x for name, x in tensors.items()}

  def parts(self, config):
    placements = cycle([PLACEMENTS[kind] for kind in self.kinds(config)])
    return super().parts(config) | dict(norm_placement=PlacementList(placements))

  def activation(self, config):
    return config.choose("hidden_act", {"silu": SwiGLU()})  # of the mixer, too

  def position(self, config):
    there = config.part("rope_parameters").get("rope_theta") is not None
    return rope(config) if there else PositionalEncoding()

  def kinds(self, config):
    count = config.whole("num_hidden_layers")
    usual = [LINEAR if (n + 1) % 4 else FULL for n in range(count)]
    usual = usual if FULL in usual else [*usual[:-1], FULL]
    return layer_kinds(config, usual, (LINEAR, FULL))

  def specs(self, config):
    epsilon = config.number("rms_norm_eps")
    own = LlamaLike.attention(self, config)
    attention = " + ".join([*own, f"qk_norm(epsilon={epsilon}, together=True)"])
    return {LINEAR: self.mixer(config), FULL: attention}

  def mixer(self, config):
    """Returns the spec of gated DeltaNet."""
    heads, key_heads = (
      config.whole(f"linear_num_{part}_heads", config.whole(HEADS))
      for part in ("value", "key")
    )
    width = int(0.75 * config.whole("hidden_size") / key_heads)
    width = config.whole("linear_key_head_dim", width)
    return (
      f"gated_delta({config.whole('linear_conv_kernel_dim')},"
      f" {config.flag('linear_allow_neg_eigval', True)}, heads={heads},"
      f" key_heads={key_heads}, key_width={width},"
      f" value_width={config.whole('linear_value_head_dim', 2 * width)}, epsilon=1e-5)"
    )


def released(name: str, tensors: Tensors) -> str:
  """Returns the name of a tensor in the released files."""
  layer, norm, last = name.rpartition(".post_attention_layernorm")
  if norm and f"{layer}.linear_attn.A_log" in tensors:
    return f"{layer}.feedforward_layer_norm{last}"
  return name.replace("input_layernorm", "attention_layer_norm")
