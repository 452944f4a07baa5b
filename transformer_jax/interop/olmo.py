"""OLMo and OLMo 2."""

from transformer_jax.interop import names
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.llama import LAYER, THEIRS, LlamaLike
from transformer_jax.models.feature_norms import LayerNorm
from transformer_jax.models.residual import UpdateNorm


@families.register("olmo")
class Olmo(LlamaLike):
  """Groeneveld et al., 2024. https://arxiv.org/abs/2402.00838

  Norms have no parameters; some models cut queries, keys and values.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "olmo", "clip_qkv": 8.0})
  >>> arch.norm, arch.attention.clip
  (LayerNorm(epsilon=1e-05, shift=False, gain=False), 8.0)
  """

  defaults = LlamaLike.defaults | dict(vocab_size=50_304)
  harmless = "rms_norm_eps"  # the epsilon is 1e-5

  def norm(self, config):
    return LayerNorm(1e-5, shift=False, gain=False)

  def attention(self, config):
    (projections,) = super().attention(config)
    return [f"{projections[:-1]}, clip={config.number('clip_qkv', 0.0)})"]


@families.register("olmo2")
class Olmo2(LlamaLike):
  """Walsh et al., 2025. https://arxiv.org/abs/2501.00656

  Updates of the residual stream are normed; so are queries and keys, over all heads
  together.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "olmo2"})
  >>> arch.norm_placement, arch.attention.parts[1].together
  (UpdateNorm(), True)
  """

  defaults = LlamaLike.defaults | dict(vocab_size=50_304, rms_norm_eps=1e-5)
  table = {
    **LlamaLike.table,
    **names.norm(f"{LAYER}/attention_norm", f"{THEIRS}.post_attention_layernorm"),
    **names.norm(f"{LAYER}/feedforward_norm", f"{THEIRS}.post_feedforward_layernorm"),
    f"{LAYER}/attention/query_gain_HK": (f"{THEIRS}.self_attn.q_norm.weight", "HK"),
    f"{LAYER}/attention/key_gain_GK": (f"{THEIRS}.self_attn.k_norm.weight", "GK"),
  }

  def parts(self, config):
    return super().parts(config) | dict(norm_placement=UpdateNorm())

  def attention(self, config):
    epsilon = config.number("rms_norm_eps")
    return [*super().attention(config), f"qk_norm(epsilon={epsilon}, together=True)"]
