"""Phi-3: Llama with fused projections and LongRoPE."""

from transformer_jax.interop import names
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.llama import LAYER, THEIRS, LlamaLike
from transformer_jax.interop.rotary import SHARE, rope

OLDER = {"su": "longrope", "yarn": "longrope"}  # earlier names of LongRoPE
KINDS = OLDER | {"default": "default", "longrope": "longrope"}
QKV, GATED = f"{THEIRS}.self_attn.qkv_proj.weight", f"{THEIRS}.mlp.gate_up_proj.weight"


@families.register("phi3")
class Phi3(LlamaLike):
  """Abdin et al., 2024. https://arxiv.org/abs/2404.14219

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "phi3", "sliding_window": 2047})
  >>> [part.name for part in arch.attention.parts]
  ['gqa', 'window']
  """

  defaults = LlamaLike.defaults | dict(
    vocab_size=32_064, hidden_size=3072, intermediate_size=8192, rms_norm_eps=1e-5,
    max_position_embeddings=4096, original_max_position_embeddings=4096,
  )  # fmt: skip
  table = {
    **{
      path: row for path, row in LlamaLike.table.items() if "feedforward/" not in path
    },
    f"{LAYER}/attention/query_DHK": (QKV, "*K D"),
    f"{LAYER}/attention/key_DGK": (QKV, "*K D"),
    f"{LAYER}/attention/value_DGK": (QKV, "*K D"),
    f"{LAYER}/feedforward/gate_DF": (GATED, "*F D"),
    f"{LAYER}/feedforward/in_DF": (GATED, "*F D"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", f"{THEIRS}.mlp.down_proj"),
  }

  def position(self, config):
    word = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    words = config.part(word)
    words |= {"rope_type": words.get("rope_type", words.get("type", "default"))}
    kind = words.choose("rope_type", KINDS)
    renamed = config | {word: words.config | {"rope_type": kind}}
    return rope(renamed, share=SHARE)

  def attention(self, config):
    width = config.whole("sliding_window", 0)
    return self.projections(config, False) + ([f"window({width})"] if width else [])
