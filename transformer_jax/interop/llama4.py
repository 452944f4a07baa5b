"""Llama 4, text models: chunks, layers without positions, and experts."""

from transformer_jax.attention.variants.chunked import Chunked
from transformer_jax.attention.variants.qk_norm import QKNorm
from transformer_jax.interop import described, names
from transformer_jax.interop.expert_names import experts, kinds_of
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.layer_types import FULL, by_layer, layer_kinds, turns
from transformer_jax.interop.llama import LAYER, THEIRS, LlamaLike
from transformer_jax.interop.outputs import WRITER, bare
from transformer_jax.interop.rotary import rope
from transformer_jax.interop.smollm3 import SmolLM3
from transformer_jax.positions import PositionalEncoding
from transformer_jax.positions.log_steps import LogSteps
from transformer_jax.positions.rope import Rope

CHUNKED, MLP = "chunked_attention", f"{THEIRS}.feed_forward"


@families.register("llama4_text")
class Llama4(SmolLM3):
  """Meta, 2025. https://ai.meta.com/blog/llama-4-multimodal-intelligence/

  Layers with rotary positions attend within chunks and norm queries and keys; others
  have a temperature. An expert's input is multiplied by its score.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "llama4_text"})
  >>> [encoding.name for encoding in arch.position.encodings]
  ['rope', 'rope', 'rope', 'log_steps']
  >>> kind = arch.feedforward_kind
  >>> kind.count, kind.active, kind.scaled_input
  (16, 1, True)
  """

  called = "Llama4"
  outputs = (WRITER, bare("TextModel", "Model"))
  defaults = LlamaLike.defaults | dict(
    vocab_size=202_048, hidden_size=5120, intermediate_size=8192,
    intermediate_size_mlp=16_384, num_hidden_layers=48, num_attention_heads=40,
    num_key_value_heads=8, head_dim=128, max_position_embeddings=131_072,
    rms_norm_eps=1e-5, rope_theta=500_000.0, num_experts_per_tok=1,
    num_local_experts=16, interleave_moe_layer_step=1, no_rope_layer_interval=4,
    attention_chunk_size=8192, floor_scale=8192, attn_scale=0.1,
  )  # fmt: skip
  harmless = (
    "output_router_logits router_aux_loss_coef router_jitter_noise for_llm_compressor"
  )
  sizes = LlamaLike.sizes | dict(F="intermediate_size_mlp")
  table = {
    **LlamaLike.table,
    **names.dense(f"{LAYER}/feedforward", "in_DF", f"{MLP}.up_proj"),
    **names.dense(f"{LAYER}/feedforward", "gate_DF", f"{MLP}.gate_proj"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", f"{MLP}.down_proj"),
    **experts(
      f"{LAYER}/feedforward", f"{MLP}.router", f"{MLP}.experts",
      f"{MLP}.shared_expert", out_in=False,
    ),
  }  # fmt: skip

  def described(self, arch):
    dims, sparse = arch.dims, described.sparse(arch)
    tuned = [x for x in described.encodings(arch) if isinstance(x, LogSteps)]
    turned = [int(isinstance(x, Rope)) for x in described.encodings(arch)]
    return {
      **described.sizes(arch),
      "intermediate_size_mlp": dims.F,
      **described.experts(
        arch,
        count="num_local_experts", active="num_experts_per_tok",
        width="intermediate_size",
      ),
      "moe_layers": [n for n, has in enumerate(sparse) if has],
      "no_rope_layers": turned,
      "attn_temperature_tuning": bool(tuned),
      **described.words(next(iter(tuned), None), step="floor_scale", gain="attn_scale"),
      "use_qk_norm": described.part(arch, QKNorm) is not None,
      "attention_chunk_size": getattr(described.part(arch, Chunked), "size", None),
      "layer_types": described.kinds(arch, Chunked, CHUNKED, FULL),
    }  # fmt: skip

  def parts(self, config):
    own = LlamaLike.parts(self, config)
    return own | dict(feedforward_kind=self.feedforward_kind(config))

  def feedforward_kind(self, config):
    count, step = (
      config.whole(word) for word in ("num_hidden_layers", "interleave_moe_layer_step")
    )
    sparse = config.many("moe_layers", [*range(step - 1, count, step)])
    total, active, width = (
      config.whole(word)
      for word in ("num_local_experts", "num_experts_per_tok", "intermediate_size")
    )
    spec = (
      f"experts({total}, {active}, width={width}, shared={width}, router='sigmoid',"
      " normalized=False, scaled_input=True)"
    )
    return kinds_of([n in sparse for n in range(count)], spec)

  def position(self, config):
    encoding, other = rope(config, interleaved=True), PositionalEncoding()
    tuned = LogSteps(other, config.whole("floor_scale"), config.number("attn_scale"))
    other = tuned if config.flag("attn_temperature_tuning", True) else other
    return by_layer([encoding if flag else other for flag in self.turns(config)])

  def attention(self, config):
    flags = self.turns(config)
    size = config.whole("attention_chunk_size", 0)
    usual = [CHUNKED if flag and size else FULL for flag in flags]
    normed = config.flag("use_qk_norm", True)
    epsilon = config.number("rms_norm_eps")
    norm = f"qk_norm(epsilon={epsilon}, gain=False, after=True)"
    parts = []
    for flag, kind in zip(
      flags, layer_kinds(config, usual, (CHUNKED, FULL)), strict=True
    ):
      own = [f"chunked({size})"] if kind == CHUNKED else []
      own += [norm] if flag and normed else []
      parts.append(" + ".join(own) or "multihead")
    return [*LlamaLike.attention(self, config), turns(parts)]
