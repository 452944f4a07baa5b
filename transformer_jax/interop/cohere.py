"""Cohere's Command R."""

from transformer_jax.interop import names
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.llama import LAYER, THEIRS, LlamaLike
from transformer_jax.interop.outputs import WRITER, bare
from transformer_jax.interop.rotary import rope
from transformer_jax.models.feature_norms import LayerNorm
from transformer_jax.models.heads import LinearHead
from transformer_jax.models.residual import Parallel


@families.register("cohere")
class Cohere(LlamaLike):
  """Cohere, 2024. https://huggingface.co/CohereForAI/c4ai-command-r-v01

  One norm serves attention and feed-forward layer; rotary pairs are adjacent.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "cohere"})
  >>> arch.norm_placement, arch.norm, arch.head.scale
  (Parallel(norms='one'), LayerNorm(epsilon=1e-05, shift=False, gain=True), 0.0625)
  """

  outputs = WRITER, bare()
  defaults = {
    word: value for word, value in LlamaLike.defaults.items() if word != "rms_norm_eps"
  } | dict(
    vocab_size=256_000, hidden_size=8192, intermediate_size=22_528, logit_scale=0.0625,
    num_hidden_layers=40, num_attention_heads=64, max_position_embeddings=8192,
    layer_norm_eps=1e-5, rope_theta=500_000.0, tie_word_embeddings=True,
  )  # fmt: skip
  table = {
    **LlamaLike.table,
    f"{LAYER}/attention/query_gain_HK": (f"{THEIRS}.self_attn.q_norm.weight", "H K"),
    f"{LAYER}/attention/key_gain_GK": (f"{THEIRS}.self_attn.k_norm.weight", "G K"),
    **names.norm(f"{LAYER}/attention_norm", f"{THEIRS}.input_layernorm"),
  }

  def parts(self, config):
    return super().parts(config) | dict(
      norm_placement=Parallel("one"),
      head=LinearHead(scale=config.number("logit_scale")),
    )

  def position(self, config):
    return rope(config, interleaved=True)

  def norm(self, config):
    return LayerNorm(config.number("layer_norm_eps"), shift=False)

  def attention(self, config):
    parts = super().attention(config)
    if not config.flag("use_qk_norm", False):
      return parts
    epsilon = config.number("layer_norm_eps")
    return [*parts, f"qk_norm(centered=True, epsilon={epsilon}, per_head=True)"]
