"""nanochat: Llama's layers with norms without weights and a squared ReLU."""

from transformer_jax.interop import described, names
from transformer_jax.interop.hf_activations import ACTIVATIONS
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.llama import LAYER, THEIRS, LlamaLike
from transformer_jax.interop.outputs import WRITER, bare
from transformer_jax.interop.rotary import rope
from transformer_jax.models.embeddings import TokenEmbedding
from transformer_jax.models.feature_norms import RMSNorm
from transformer_jax.models.heads import LinearHead


@families.register("nanochat")
class NanoChat(LlamaLike):
  """Karpathy, 2025. https://github.com/karpathy/nanochat

  Queries and keys turn in the other direction, and are normed after that; so are the
  embeddings. No norm has weights, and logits are capped.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "nanochat"})
  >>> arch.position.reverse, arch.attention.parts[1].after, arch.norm.gain
  (True, True, False)
  """

  called = "NanoChat"
  outputs = (WRITER, bare())
  defaults = LlamaLike.defaults | dict(
    vocab_size=50_304, hidden_size=768, intermediate_size=8192, num_hidden_layers=12,
    num_attention_heads=6, hidden_act="relu2", final_logit_softcapping=15.0,
  )  # fmt: skip
  table = {
    **{
      path: row for path, row in LlamaLike.table.items() if "/feedforward/" not in path
    },
    **names.dense(f"{LAYER}/feedforward", "in_DF", f"{THEIRS}.mlp.fc1"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", f"{THEIRS}.mlp.fc2"),
  }

  def described(self, arch):
    return described.sizes(arch) | {
      "hidden_act": described.activation(arch, ACTIVATIONS, "relu2"),
      "final_logit_softcapping": getattr(arch.head, "cap", 0.0) or None,
    }

  def parts(self, config):
    norm = self.norm(config)
    return super().parts(config) | dict(
      embedding=TokenEmbedding(power=0, norm=norm),
      head=LinearHead(cap=config.number("final_logit_softcapping", 0.0)),
    )

  def position(self, config):
    return rope(config, reverse=True)

  def norm(self, config):
    return RMSNorm(config.number("rms_norm_eps"), gain=False)

  def activation(self, config):
    return config.choose("hidden_act", ACTIVATIONS)

  def attention(self, config):
    epsilon = config.number("rms_norm_eps")
    return [
      *super().attention(config),
      f"qk_norm(epsilon={epsilon}, gain=False, after=True)",
    ]
