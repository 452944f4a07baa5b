"""Mamba-2: a model of mixers alone."""

from transformer_jax.attention.mixers.state_space_duality import Mamba2
from transformer_jax.interop import described, names
from transformer_jax.interop.checkpoint_files import Config
from transformer_jax.interop.hf_config import HFConfig
from transformer_jax.interop.hf_family import HFFamily, families
from transformer_jax.interop.outputs import WRITER, bare
from transformer_jax.interop.table import NameTable
from transformer_jax.models.embeddings import TokenEmbedding
from transformer_jax.models.feature_norms import RMSNorm
from transformer_jax.models.residual import PreNorm
from transformer_jax.untrusted import INFINITY

LAYER, THEIRS = "decoder/layer_{n}", "backbone.layers.{n}"


def mixer(path: str, name: str) -> NameTable:
  """Returns the rows of a Mamba-2 mixer.

  path   of our layer
  name   of their module
  """
  inward = dict(gate="HE", value="HE", write="GK", read="GK", step="H")
  rows = {}
  for part, axes in inward.items():
    rows[f"{path}/{part}_D{axes}"] = f"{name}.in_proj.weight", "* D"
    rows[f"{path}/{part}_in_shift_{axes}"] = f"{name}.in_proj.bias", "*"
  for part in ("value", "write", "read"):
    axes = inward[part]
    rows[f"{path}/{part}_mix_{axes}N"] = f"{name}.conv1d.weight", "* 1 -N"
    rows[f"{path}/{part}_mix_shift_{axes}"] = f"{name}.conv1d.bias", "*"
  return rows | {
    f"{path}/log_rate_H": (f"{name}.A_log", "H"),
    f"{path}/step_shift_H": (f"{name}.dt_bias", "H"),
    f"{path}/skip_H": (f"{name}.D", "H"),
    f"{path}/norm_gain_HE": (f"{name}.norm.weight", "HE"),
    f"{path}/out_HED": (f"{name}.out_proj.weight", "D HE"),
    f"{path}/out_shift_D": (f"{name}.out_proj.bias", "D"),
  }


def steps(config: HFConfig) -> str:
  """Returns the bounds on steps of time, as arguments of the mixer."""
  word = "time_step_limit"
  bounds = config.many(word, [0.0, dict(INFINITY)])
  if len(bounds) != 2:
    raise ValueError(f"config.json says {word}={bounds!r:.60}; write two numbers")
  least = (config | {word: bounds[0]}).number(word)
  if bounds[1] == INFINITY:
    return f"least_step={least}"
  largest = (config | {word: bounds[1]}).number(word)
  return f"least_step={least}, largest_step={largest}"


def limit(mixer: Mamba2 | None) -> Config:
  """Returns what config.json says of a mixer's bounds on steps of time; inverse."""
  if mixer is None or (mixer.least_step, mixer.largest_step) == (0.0, 0.0):
    return {}
  return {"time_step_limit": [mixer.least_step, mixer.largest_step or dict(INFINITY)]}


@families.register("mamba2")
class Mamba2Models(HFFamily):
  """Dao and Gu, 2024. https://arxiv.org/abs/2405.21060

  Layers have no feed-forward part.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "mamba2"})
  >>> arch.attention.heads, arch.attention.state, arch.dims.F
  (128, 128, 0)
  """

  called = "Mamba2"
  outputs = WRITER, bare()
  defaults = dict(
    vocab_size=32_768, hidden_size=4096, num_heads=128, head_dim=64, state_size=128,
    num_hidden_layers=64, layer_norm_epsilon=1e-5, expand=2, conv_kernel=4, n_groups=8,
    hidden_act="silu", tie_word_embeddings=False, use_conv_bias=True,
  )  # fmt: skip
  # First parameters, and how the same numbers are computed.
  harmless = """
    time_step_rank time_step_min time_step_max time_step_floor rescale_prenorm_residual
    residual_in_fp32 chunk_size
  """
  prefix = "backbone."
  copies = {"lm_head.weight": "backbone.embeddings.weight"}
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_heads", K="head_dim",
    F=lambda config: 0, L=lambda config: 1,
  )  # fmt: skip
  table = {
    "embedding_VD": ("backbone.embeddings.weight", "V D"),
    "output_DV": ("lm_head.weight", "V D"),
    **names.norm("decoder/final_norm", "backbone.norm_f"),
    **names.norm(f"{LAYER}/attention_norm", f"{THEIRS}.norm"),
    **mixer(f"{LAYER}/attention", f"{THEIRS}.mixer"),
  }

  def described(self, arch):
    own = described.part(arch, Mamba2)
    inward = own.heads * own.width if own else 0
    return {
      **described.words(
        own,
        heads="num_heads", width="head_dim", state="state_size", groups="n_groups",
        convolution="conv_kernel", shift="use_conv_bias", bias="use_bias",
      ),
      **limit(own),
      "vocab_size": arch.dims.V,
      "hidden_size": arch.dims.D,
      "expand": max(inward // arch.dims.D, 1),
      "num_hidden_layers": arch.decoders,
      "layer_norm_epsilon": getattr(arch.norm, "epsilon", 1e-5),
      "tie_word_embeddings": arch.tied,
    }  # fmt: skip

  def parts(self, config):
    self.check_width(config)
    config.need(hidden_act="silu")
    return dict(
      position="none",
      attention=self.mixer(config),
      norm=RMSNorm(config.number("layer_norm_epsilon")),
      norm_placement=PreNorm(),
      embedding=TokenEmbedding(power=0),
      decoders=config.whole("num_hidden_layers"),
      tied=config.flag("tie_word_embeddings", False),
    )

  def check_width(self, config):
    """Raises ValueError where the heads are not as wide as the layer."""
    heads, width, D, times = (
      config.whole(word) for word in ("num_heads", "head_dim", "hidden_size", "expand")
    )
    if heads * width != D * times:
      raise ValueError(
        f"config.json says num_heads={heads} of head_dim={width}, which are not expand"
        f"={times} times hidden_size={D}; change one of them"
      )

  def mixer(self, config):
    """Returns the spec of the mixer."""
    heads, width, state, groups = (
      config.whole(word) for word in ("num_heads", "head_dim", "state_size", "n_groups")
    )
    return (
      f"mamba2(heads={heads}, width={width}, state={state}, groups={groups},"
      f" convolution={config.whole('conv_kernel')},"
      f" shift={config.flag('use_conv_bias', True)},"
      f" bias={config.flag('use_bias', False)}, {steps(config)},"
      f" epsilon={config.number('layer_norm_epsilon')})"
    )
