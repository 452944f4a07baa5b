"""Encoders of the BERT family."""

from transformer_jax.attention import attentions
from transformer_jax.interop import names
from transformer_jax.interop.hf_activations import ACTIVATIONS
from transformer_jax.interop.hf_family import HFConfig, HFFamily, families
from transformer_jax.interop.outputs import SPANS, Output, bare, of_texts, of_tokens
from transformer_jax.models.embeddings import TokenEmbedding
from transformer_jax.models.feature_norms import LayerNorm
from transformer_jax.models.heads import TransformHead
from transformer_jax.models.layers import Gelu, Relu
from transformer_jax.models.residual import PostNorm
from transformer_jax.positions import PositionalEncoding, positions

LAYER = "encoder/layer_{n}"
SIZES = dict(
  vocab_size=30_522, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
  intermediate_size=3072, max_position_embeddings=512,
)  # fmt: skip


def layers(theirs: str, query: str = "query", key: str = "key", value: str = "value"):
  """Returns the table rows of BERT's layers."""
  attention = theirs + ".attention"
  return {
    **names.heads(
      f"{LAYER}/attention",
      query=f"{attention}.self.{query}",
      key=f"{attention}.self.{key}",
      value=f"{attention}.self.{value}",
      last=f"{attention}.output.dense",
    ),
    **names.norm(f"{LAYER}/attention_norm", f"{attention}.output.LayerNorm"),
    **names.dense(f"{LAYER}/feedforward", "in_DF", f"{theirs}.intermediate.dense"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", f"{theirs}.output.dense"),
    **names.norm(f"{LAYER}/feedforward_norm", f"{theirs}.output.LayerNorm"),
  }


def head(dense: str, norm: str, bias: str):
  """Returns the table rows of a head with a dense layer and a norm."""
  return {
    "head/dense_DD": (f"{dense}.weight", "d D"),
    "head/dense_shift_D": (f"{dense}.bias", "D"),
    "head/norm_gain_D": (f"{norm}.weight", "D"),
    "head/norm_shift_D": (f"{norm}.bias", "D"),
    "head/shift_V": (bias, "V"),
  }


def encoder_outputs(marker: str, texts: Output, **fields):
  """Returns the outputs of an encoder.

  marker   a tensor that only a masked language model has
  texts    output of a text classifier
  fields   of the architecture of a bare model
  """
  masked = Output(("ForMaskedLM", "ForPreTraining"), (marker,))
  tokens = of_tokens("ForTokenClassification", "classifier")
  return masked, texts, tokens, SPANS, bare(**fields)


@families.register("bert")
class Bert(HFFamily):
  """Devlin et al., 2019. https://arxiv.org/abs/1810.04805

  The next-sentence head is not supported.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "bert", "num_hidden_layers": 6})
  >>> arch.encoders, arch.position, arch.norm_placement
  (6, Learned(max_positions=512, start=0), PostNorm(final_norm=False))
  """

  outputs = encoder_outputs(
    "cls.predictions.transform.dense.weight",
    of_texts("bert.pooler.dense", "classifier"),
  )
  writes = False
  defaults = SIZES | dict(
    hidden_act="gelu", layer_norm_eps=1e-12, type_vocab_size=2, pad_token_id=0
  )
  prefix = "bert."
  activation = "hidden_act"
  ignored = r"embeddings\.position_ids|pooler\..*|cls\.seq_relationship\..*"
  copies = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
  }
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_attention_heads", F="intermediate_size",
    L="max_position_embeddings",
  )  # fmt: skip
  table = {
    "embedding_VD": ("bert.embeddings.word_embeddings.weight", "V D"),
    "type_ND": ("bert.embeddings.token_type_embeddings.weight", "N D"),
    "encoder/position/table_LD": ("bert.embeddings.position_embeddings.weight", "L D"),
    **names.norm("encoder/embedding_norm", "bert.embeddings.LayerNorm"),
    **layers("bert.encoder.layer.{n}"),
    **head(
      "cls.predictions.transform.dense",
      "cls.predictions.transform.LayerNorm",
      "cls.predictions.bias",
    ),
  }

  def parts(self, config):
    norm = LayerNorm(config.number("layer_norm_eps"))
    activation = config.choose(self.activation, ACTIVATIONS)
    config.need(is_decoder=False, add_cross_attention=False, tie_word_embeddings=True)
    return dict(
      position=self.position(config),
      attention=attentions.build("multihead(bias=True)"),
      norm=norm,
      activation=activation,
      norm_placement=PostNorm(),
      embedding=TokenEmbedding(0, config.number("type_vocab_size", 0), norm),
      head=TransformHead(activation=activation, norm=norm),
      encoders=config.whole("num_hidden_layers"),
      feedforward_bias=True,
    )

  def position(self, config: HFConfig) -> PositionalEncoding:
    config.need(position_embedding_type="absolute")
    return positions.build(f"learned({config.whole('max_position_embeddings')})")


@families.register("roberta")
class Roberta(Bert):
  """Liu et al., 2019. https://arxiv.org/abs/1907.11692

  The first token reads the row after that of padding. The output's activation is gelu.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "roberta"})
  >>> arch.position  # the first two rows belong to padding
  Learned(max_positions=512, start=2)
  """

  outputs = encoder_outputs(
    "lm_head.dense.weight", of_texts("classifier.dense", "classifier.out_proj")
  )
  defaults = Bert.defaults | dict(vocab_size=50_265, pad_token_id=1)
  prefix = "roberta."
  copies = {
    "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "lm_head.bias",
  }
  table = {
    **{
      path: (name.replace("bert.", "roberta."), axes)
      for path, (name, axes) in Bert.table.items()
    },
    **head("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
  }

  def parts(self, config):
    fields = super().parts(config)
    head = TransformHead(activation=Gelu(approximate=False), norm=fields["norm"])
    return fields | dict(head=head)

  def position(self, config):
    config.need(position_embedding_type="absolute")
    rows, start = (
      config.whole("max_position_embeddings"),
      config.number("pad_token_id") + 1,
    )
    return positions.build(f"learned({rows}, start={start})")


@families.register("xlm-roberta")
class XLMRoberta(Roberta):
  """Conneau et al., 2020. https://arxiv.org/abs/1911.02116

  >>> import transformer_jax as tj
  >>> config = {"model_type": "xlm-roberta", "vocab_size": 250002}
  >>> arch = tj.interop.architecture(config)
  >>> arch.dims.V, arch.position
  (250002, Learned(max_positions=512, start=2))
  """

  defaults = Roberta.defaults | dict(vocab_size=30_522)


@families.register("distilbert")
class DistilBert(Bert):
  """Sanh et al., 2019. https://arxiv.org/abs/1910.01108

  >>> import transformer_jax as tj
  >>> config = {"model_type": "distilbert", "n_layers": 3, "dim": 384}
  >>> arch = tj.interop.architecture(config)
  >>> arch.encoders, arch.dims.D
  (3, 384)
  """

  outputs = encoder_outputs(
    "vocab_transform.weight",
    of_texts("pre_classifier", "classifier", lambda config: Relu()),
  )
  defaults = dict(
    vocab_size=30_522, dim=768, n_layers=6, n_heads=12, hidden_dim=3072,
    max_position_embeddings=512, activation="gelu",
  )  # fmt: skip
  aliases = dict(
    hidden_size="dim", num_attention_heads="n_heads", num_hidden_layers="n_layers"
  )
  harmless = "tie_weights_"
  prefix = "distilbert."
  activation = "activation"
  copies = {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}
  sizes = dict(
    V="vocab_size", D="dim", H="n_heads", F="hidden_dim",
    L="max_position_embeddings",
  )  # fmt: skip
  table = {
    "embedding_VD": ("distilbert.embeddings.word_embeddings.weight", "V D"),
    "encoder/position/table_LD": (
      "distilbert.embeddings.position_embeddings.weight", "L D",
    ),
    **names.norm("encoder/embedding_norm", "distilbert.embeddings.LayerNorm"),
    **names.heads(
      f"{LAYER}/attention",
      *(
        "distilbert.transformer.layer.{n}.attention." + part
        for part in ("q_lin", "k_lin", "v_lin", "out_lin")
      ),
    ),
    **names.norm(
      f"{LAYER}/attention_norm", "distilbert.transformer.layer.{n}.sa_layer_norm"
    ),
    **names.dense(
      f"{LAYER}/feedforward", "in_DF", "distilbert.transformer.layer.{n}.ffn.lin1"
    ),
    **names.dense(
      f"{LAYER}/feedforward", "out_FD", "distilbert.transformer.layer.{n}.ffn.lin2"
    ),
    **names.norm(
      f"{LAYER}/feedforward_norm",
      "distilbert.transformer.layer.{n}.output_layer_norm",
    ),
    **head("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
  }  # fmt: skip

  def parts(self, config):
    words = {"num_hidden_layers": config.whole("n_layers")}
    words |= {"type_vocab_size": 0, "layer_norm_eps": 1e-12}
    return super().parts(config | words)
