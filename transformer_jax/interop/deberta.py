"""DeBERTa, versions 2 and 3. He et al., 2021. https://arxiv.org/abs/2111.09543"""

from transformer_jax.interop import names
from transformer_jax.interop.bert import Bert, head, layers
from transformer_jax.interop.family import families
from transformer_jax.positions import positions


@families.register("deberta-v2")
class DebertaV2(Bert):
  """Vectors of the distance, projected by each layer as it projects its tokens.

  Not served: models with a convolution after the first layer.
  """

  prefix = "deberta."
  # The heads that version 3 was pretrained with are other ones.
  ignored = r"embeddings\.position_ids|(pooler|lm_predictions|mask_predictions)\..*"
  copies = {
    "cls.predictions.decoder.weight": "deberta.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
  }
  table = {
    "embedding_VD": ("deberta.embeddings.word_embeddings.weight", "V D"),
    "type_ND": ("deberta.embeddings.token_type_embeddings.weight", "N D"),
    **names.norm("encoder/embedding_norm", "deberta.embeddings.LayerNorm"),
    "encoder/position/table_ND": ("deberta.encoder.rel_embeddings.weight", "N D"),
    **names.norm("encoder/position", "deberta.encoder.LayerNorm"),
    **layers("deberta.encoder.layer.{n}", "query_proj", "key_proj", "value_proj"),
    **head(
      "cls.predictions.transform.dense",
      "cls.predictions.transform.LayerNorm",
      "cls.predictions.bias",
    ),
  }

  def parts(self, config):
    config.need(layer_norm_eps=1e-7, conv_kernel_size=0, legacy=True)
    config.same("embedding_size", "hidden_size")
    return super().parts(config | {"layer_norm_eps": 1e-7})

  def position(self, config):
    config.choose("relative_attention", {True: None}, default=False)
    config.choose("share_att_key", {True: None}, default=False)
    config.choose("position_biased_input", {False: None}, default=True)
    kinds = config.get("pos_att_type", [])
    kinds = kinds.split("|") if isinstance(kinds, str) else kinds
    both = "|".join(sorted(kind.strip() for kind in kinds))
    (config | {"pos_att_type": both}).need(pos_att_type="c2p|p2c")
    furthest = max(config.get("max_relative_positions", -1), 0)
    furthest = furthest or config.whole("max_position_embeddings")
    buckets = max(config.get("position_buckets", -1), 0) or None
    norm = config.choose("norm_rel_ebd", {"layer_norm": True, "none": False}, "none")
    return positions.build(
      f"deberta({furthest}, {buckets}, {norm}, released=True, shared=True)"
    )
