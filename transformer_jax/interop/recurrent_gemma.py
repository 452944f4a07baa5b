"""RecurrentGemma: real-gated linear recurrent units and local attention."""

import jax.numpy as jnp
import numpy as np

from transformer_jax.attention.mixers.rg_lru import RGLRU
from transformer_jax.attention.variants.window import Window
from transformer_jax.interop import described, names
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.hybrid import Hybrid
from transformer_jax.interop.llama import LAYER, THEIRS, LlamaLike
from transformer_jax.interop.rotary import SHARE, rope
from transformer_jax.models.embeddings import TokenEmbedding
from transformer_jax.models.feature_norms import RMSNorm
from transformer_jax.models.heads import LinearHead
from transformer_jax.models.layers import GeGLU

RECURRENT, LOCAL = "recurrent", "attention"
OURS, MIXER = f"{LAYER}/attention", f"{THEIRS}.temporal_block"
UNIT = f"{MIXER}.rg_lru"
GELU = {"gelu_pytorch_tanh": GeGLU(), "gelu_new": GeGLU()}


@families.register("recurrent_gemma")
class RecurrentGemma(Hybrid):
  """Botev et al., 2024. https://arxiv.org/abs/2404.07839

  Embeddings are multiplied by the root of their width, rounded to bfloat16.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "recurrent_gemma"})
  >>> [arch.attention.layer(n).name for n in range(3)]
  ['rg_lru', 'rg_lru', 'gqa + window']
  >>> arch.embedding.scale, 2560**0.5
  (50.5, 50.59644256269407)
  """

  defaults = dict(
    vocab_size=256_000, hidden_size=2560, intermediate_size=7680, num_hidden_layers=26,
    num_attention_heads=10, attention_window_size=2048, conv1d_width=4,
    logits_soft_cap=30.0, rms_norm_eps=1e-6, hidden_activation="gelu_pytorch_tanh",
    tie_word_embeddings=True,
  )  # fmt: skip
  aliases = dict(sliding_window="attention_window_size")
  # First parameters; a width that is computed; words that no release reads.
  harmless = """
    w_init_variance_scale final_w_init_variance_scale head_dim _block_types
    embeddings_scale_by_sqrt_dim
  """
  sizes = LlamaLike.sizes | dict(
    F=lambda config: max(config.whole("intermediate_size") // 2, 1),
    K=lambda config: 0,
    L=lambda config: config.whole("max_position_embeddings", 8192),
  )
  table = {
    "embedding_VD": LlamaLike.table["embedding_VD"],
    "output_DV": LlamaLike.table["output_DV"],
    **names.norm("decoder/final_norm", "model.final_norm"),
    **names.norm(f"{OURS}_norm", f"{THEIRS}.temporal_pre_norm"),
    **names.norm(f"{LAYER}/feedforward_norm", f"{THEIRS}.channel_pre_norm"),
    **names.dense(f"{LAYER}/feedforward", "gate_DF", f"{THEIRS}.mlp_block.gate_proj"),
    **names.dense(f"{LAYER}/feedforward", "in_DF", f"{THEIRS}.mlp_block.up_proj"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", f"{THEIRS}.mlp_block.down_proj"),
  }
  layers = {
    RECURRENT: {
      f"{OURS}/value_DHE": (f"{MIXER}.linear_x.weight", "HE D"),
      f"{OURS}/value_shift_HE": (f"{MIXER}.linear_x.bias", "HE"),
      f"{OURS}/gate_DHE": (f"{MIXER}.linear_y.weight", "HE D"),
      f"{OURS}/gate_shift_HE": (f"{MIXER}.linear_y.bias", "HE"),
      f"{OURS}/mix_HEN": (f"{MIXER}.conv_1d.weight", "HE 1 -N"),
      f"{OURS}/mix_shift_HE": (f"{MIXER}.conv_1d.bias", "HE"),
      f"{OURS}/recurrence_HKE": (f"{UNIT}.recurrent_gate_weight", "H K E"),
      f"{OURS}/recurrence_shift_HE": (f"{UNIT}.recurrent_gate_bias", "H E"),
      f"{OURS}/input_HKE": (f"{UNIT}.input_gate_weight", "H K E"),
      f"{OURS}/input_shift_HE": (f"{UNIT}.input_gate_bias", "H E"),
      f"{OURS}/rate_HE": (f"{UNIT}.recurrent_param", "HE"),
      f"{OURS}/out_HED": (f"{MIXER}.linear_out.weight", "D HE"),
      f"{OURS}/out_shift_D": (f"{MIXER}.linear_out.bias", "D"),
    },
    LOCAL: names.heads(
      OURS, *(f"{MIXER}.{part}_proj" for part in ("q", "k", "v", "o"))
    ),
  }

  def described(self, arch):
    said = described.without(described.sizes(arch), "hidden_act")
    return {
      "partial_rotary_factor": 1.0,
      **said,
      "attention_bias": said.get("attention_bias") is True,
      "intermediate_size": 2 * arch.dims.F,
      "hidden_activation": described.activation(arch, GELU, "gelu_pytorch_tanh"),
      "logits_soft_cap": getattr(arch.head, "cap", 0.0),
      **described.words(
        described.part(arch, RGLRU), width="lru_width", convolution="conv1d_width"
      ),
      **described.words(described.part(arch, Window), width="attention_window_size"),
      "block_types": described.kinds(arch, RGLRU, RECURRENT, LOCAL),
    }

  def parts(self, config):
    root = np.asarray(config.whole("hidden_size") ** 0.5).astype(jnp.bfloat16)
    return super().parts(config) | dict(
      embedding=TokenEmbedding(power=0, scale=float(root)),
      head=LinearHead(cap=config.number("logits_soft_cap")),
    )

  def position(self, config):
    return rope(config, share=SHARE, usual=0.5)

  def norm(self, config):
    return RMSNorm(config.number("rms_norm_eps"), offset=1.0)

  def activation(self, config):
    return config.choose("hidden_activation", GELU)  # of the mixer, too

  def feedforward_bias(self, config):
    return True

  def kinds(self, config):
    word, kinds = "block_types", {kind: kind for kind in (RECURRENT, LOCAL)}
    listed = config.many(word, [RECURRENT, RECURRENT, LOCAL]) or [None]
    known = [(config | {word: kind}).choose(word, kinds) for kind in listed]
    return [known[n % len(known)] for n in range(config.whole("num_hidden_layers"))]

  def specs(self, config):
    width = config.whole("lru_width", config.whole("hidden_size"))
    convolution = config.whole("conv1d_width")
    bias = True if config.flag("attention_bias", False) else "out"
    window = f"window({config.whole('attention_window_size')})"
    (heads,) = self.projections(config, bias)
    return {
      RECURRENT: f"rg_lru(width={width}, convolution={convolution})",
      LOCAL: f"{heads} + {window}",
    }
