"""DeBERTa, versions 2 and 3. He et al., 2021. https://arxiv.org/abs/2111.09543"""

from transformer_jax.interop import names
from transformer_jax.interop.bert import Bert, encoder_outputs, head, layers
from transformer_jax.interop.hf_activations import ACTIVATIONS
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.outputs import of_texts
from transformer_jax.positions import positions


@families.register("deberta-v2")
class DebertaV2(Bert):
  """Distance embeddings, projected by each layer with its token projections.

  Models with a convolution after the first layer are not supported.

  >>> import transformer_jax as tj
  >>> config = {"model_type": "deberta-v2", "relative_attention": True}
  >>> config |= {"share_att_key": True, "position_biased_input": False}
  >>> config |= {"pos_att_type": ["p2c", "c2p"], "position_buckets": 256}
  >>> tj.interop.architecture(config).position
  Deberta(max_distance=512, buckets=256, norm=False, released=True, shared=True)
  """

  outputs = encoder_outputs(
    "cls.predictions.transform.dense.weight",
    of_texts(
      "pooler.dense", "classifier",
      lambda config: config.choose("pooler_hidden_act", ACTIVATIONS),
    ),
  )  # fmt: skip
  defaults = dict(
    vocab_size=128_100, hidden_size=1536, num_hidden_layers=24, type_vocab_size=0,
    num_attention_heads=24, intermediate_size=6144, max_position_embeddings=512,
    hidden_act="gelu", layer_norm_eps=1e-7, pooler_hidden_act="gelu",
    relative_attention=False, max_relative_positions=-1, position_biased_input=True,
  )  # fmt: skip
  harmless = "conv_act conv_groups padding_idx"  # of a convolution, which raises
  sizes = Bert.sizes | {"K": lambda config: config.whole("attention_head_size", 0)}
  prefix = "deberta."
  # The pretraining heads of version 3 differ.
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
    text = isinstance(kinds, str)
    kinds = kinds.lower().split("|") if text else config.many("pos_att_type", [])
    both = "|".join(sorted(str(kind).strip() for kind in kinds))
    (config | {"pos_att_type": both}).need(pos_att_type="c2p|p2c")
    max_distance = config.number("max_relative_positions", -1)
    max_distance = (
      max_distance if max_distance >= 1 else config.whole("max_position_embeddings")
    )
    buckets = max(config.number("position_buckets", -1), 0) or None
    norm = config.choose("norm_rel_ebd", {"layer_norm": True, "none": False}, "none")
    return positions.build(
      f"deberta({max_distance}, {buckets}, {norm}, released=True, shared=True)"
    )
