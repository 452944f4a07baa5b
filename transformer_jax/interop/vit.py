"""Vision Transformers. Dosovitskiy et al., 2021. https://arxiv.org/abs/2010.11929"""

import math

from transformer_jax.attention import attentions
from transformer_jax.interop import names
from transformer_jax.interop.hf_activations import ACTIVATIONS
from transformer_jax.interop.hf_family import RENAMED, HFFamily, families
from transformer_jax.interop.outputs import bare, labels, of_tokens
from transformer_jax.models.embeddings import PatchEmbedding
from transformer_jax.models.feature_norms import LayerNorm
from transformer_jax.positions import positions

LAYER, THEIRS = "encoder/layer_{n}", "vit.layers.{n}"

# Names of a layer's parts in releases before version 5.
OLDER = {
  r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)": (
    lambda found: f"layers.{found[1]}.attention.{found[2][0]}_proj"
  ),
  r"encoder\.layer\.(\d+)\.attention\.output\.dense": r"layers.\1.attention.o_proj",
  r"encoder\.layer\.(\d+)\.intermediate\.dense": r"layers.\1.mlp.fc1",
  r"encoder\.layer\.(\d+)\.output\.dense": r"layers.\1.mlp.fc2",
  r"encoder\.layer\.(\d+)\.layernorm": r"layers.\1.layernorm",
}


def _patches(config):
  """Returns the number of patches of an image, which need not be square."""
  size, word = config.get("image_size"), "image_size"
  sizes = size if isinstance(size, list) and len(size) == 2 else [size, size]
  sides = ((config | {word: side}).whole(word) for side in sizes)
  return math.prod(side // config.whole("patch_size") for side in sides)


@families.register("vit")
class ViT(HFFamily):
  """ViT classifier; the class logits are those of the first token.

  >>> import transformer_jax as tj
  >>> config = {"model_type": "vit", "image_size": 224, "patch_size": 32}
  >>> arch = tj.interop.architecture(config)
  >>> arch.embedding, arch.classes
  (PatchEmbedding(size=32, channels=3), 2)
  >>> arch.position  # 7 x 7 patches and the class token
  Learned(max_positions=50, start=0)
  """

  outputs = of_tokens("ForImageClassification", "classifier"), bare()
  writes = False
  defaults = dict(
    hidden_size=768, num_hidden_layers=12, num_attention_heads=12, num_channels=3,
    intermediate_size=3072, hidden_act="gelu", layer_norm_eps=1e-12, image_size=224,
    patch_size=16, qkv_bias=True,
  )  # fmt: skip
  harmless = "encoder_stride"
  renamed = RENAMED | OLDER
  prefix = "vit."
  ignored = r"pooler\..*"
  sizes = dict(
    D="hidden_size", H="num_attention_heads", F="intermediate_size",
    L=lambda config: 1 + _patches(config),
    V=labels, K=lambda config: config.whole("head_dim", 0),
  )  # fmt: skip
  table = {
    "patch_CPPD": ("vit.embeddings.patch_embeddings.projection.weight", "D C P p"),
    "patch_shift_D": ("vit.embeddings.patch_embeddings.projection.bias", "D"),
    "first_D": ("vit.embeddings.cls_token", "1 1 D"),
    "encoder/position/table_LD": ("vit.embeddings.position_embeddings", "1 L D"),
    **names.norm("encoder/final_norm", "vit.layernorm"),
    **names.norm(f"{LAYER}/attention_norm", f"{THEIRS}.layernorm_before"),
    **names.norm(f"{LAYER}/feedforward_norm", f"{THEIRS}.layernorm_after"),
    **names.heads(
      f"{LAYER}/attention",
      *(f"{THEIRS}.attention.{part}_proj" for part in ("q", "k", "v", "o")),
    ),
    **names.dense(f"{LAYER}/feedforward", "in_DF", f"{THEIRS}.mlp.fc1"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", f"{THEIRS}.mlp.fc2"),
  }

  def parts(self, config):
    config.need(qkv_bias=True)
    return dict(
      position=positions.build(f"learned({1 + _patches(config)})"),
      attention=attentions.build("multihead(bias=True)"),
      norm=LayerNorm(config.number("layer_norm_eps")),
      activation=config.choose("hidden_act", ACTIVATIONS),
      embedding=PatchEmbedding(
        config.whole("patch_size"), config.whole("num_channels")
      ),
      encoders=config.whole("num_hidden_layers"),
      feedforward_bias=True,
    )
