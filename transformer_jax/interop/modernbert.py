"""ModernBERT. Warner et al., 2024. https://arxiv.org/abs/2412.13663"""

from transformer_jax.attention import attentions
from transformer_jax.interop import names
from transformer_jax.interop.bert import head
from transformer_jax.interop.hf_activations import ACTIVATIONS, GATED
from transformer_jax.interop.hf_config import HFConfig
from transformer_jax.interop.hf_family import HFFamily, families
from transformer_jax.interop.layer_types import (
  FULL,
  LOCAL,
  by_layer,
  layer_kinds,
  turns,
)
from transformer_jax.interop.outputs import Output, bare, of_tokens
from transformer_jax.interop.rotary import rope_of_kind
from transformer_jax.models.embeddings import TokenEmbedding
from transformer_jax.models.feature_norms import LayerNorm
from transformer_jax.models.heads import TransformHead
from transformer_jax.models.residual import PreNorm

LAYER, THEIRS = "encoder/layer_{n}", "model.layers.{n}"
BASES = {FULL: ("global_rope_theta", 160_000.0), LOCAL: ("local_rope_theta", 10_000.0)}
POOLED = {"cls": False, "mean": True}


def norm(config: HFConfig) -> LayerNorm:
  """Returns the one norm that all parts use."""
  shift = config.flag("norm_bias", False)
  return LayerNorm(config.number("norm_eps"), shift=shift)


def prediction(
  config: HFConfig, bias: bool = True, pooled: bool = False
) -> TransformHead:
  """Returns the dense layer and norm of all outputs but bare states.

  bias, pooled   as of `TransformHead`
  """
  return TransformHead(
    activation=config.choose("classifier_activation", ACTIVATIONS),
    norm=norm(config),
    dense_bias=config.flag("classifier_bias", False),
    bias=bias,
    pooled=pooled,
  )


def text_prediction(config: HFConfig) -> TransformHead:
  """Returns the head of classifiers of texts: of the first token or of the mean."""
  return prediction(config, pooled=config.choose("classifier_pooling", POOLED, "cls"))


@families.register("modernbert")
class ModernBert(HFFamily):
  """Warner et al., 2024. https://arxiv.org/abs/2412.13663

  Pre-norm without biases; some layers attend to all tokens and the others to a window.
  Classifiers of texts, of tokens and of spans have tensors of the same names, so that
  config.json must name the class.

  >>> import transformer_jax as tj
  >>> config = {"model_type": "modernbert", "local_attention": 128}
  >>> arch = tj.interop.architecture(config)
  >>> arch.attention.parts[1].usual  # of two layers in three
  Window(width=65)
  >>> arch.norm_placement
  PreNorm(final_norm=True, first_norm=False)
  """

  outputs = (
    Output(("ForMaskedLM",), ("decoder.bias",)),
    of_tokens("ForSequenceClassification", "classifier", head=text_prediction),
    of_tokens("ForTokenClassification", "classifier", head=prediction),
    of_tokens("ForQuestionAnswering", "classifier", classes=2, head=prediction),
    bare(),
  )
  writes = False
  defaults = dict(
    vocab_size=50_368, hidden_size=768, intermediate_size=1152, num_hidden_layers=22,
    num_attention_heads=12, hidden_activation="gelu", max_position_embeddings=8192,
    norm_eps=1e-5, norm_bias=False, attention_bias=False, local_attention=128,
    mlp_bias=False, decoder_bias=True, classifier_pooling="cls", classifier_bias=False,
    classifier_activation="gelu", tie_word_embeddings=True,
  )  # fmt: skip
  # The epsilon is norm_eps, and all positions are rotary; the others are of training
  # and of how it is computed.
  harmless = """
    layer_norm_eps position_embedding_type embedding_dropout mlp_dropout
    initializer_cutoff_factor deterministic_flash_attn reference_compile
    repad_logits_with_grad sparse_prediction sparse_pred_ignore_index
  """
  prefix = "model."
  copies = {"decoder.weight": "model.embeddings.tok_embeddings.weight"}
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_attention_heads", F="intermediate_size",
    L="max_position_embeddings",
  )  # fmt: skip
  table = {
    "embedding_VD": ("model.embeddings.tok_embeddings.weight", "V D"),
    "output_DV": ("decoder.weight", "V D"),
    **names.norm("encoder/embedding_norm", "model.embeddings.norm"),
    **names.norm("encoder/final_norm", "model.final_norm"),
    **names.norm(f"{LAYER}/attention_norm", f"{THEIRS}.attn_norm"),
    **names.norm(f"{LAYER}/feedforward_norm", f"{THEIRS}.mlp_norm"),
    **names.fused(
      f"{LAYER}/attention", f"{THEIRS}.attn.Wqkv", f"{THEIRS}.attn.Wo", "*HK"
    ),
    f"{LAYER}/feedforward/gate_DF": (f"{THEIRS}.mlp.Wi.weight", "*F D"),
    f"{LAYER}/feedforward/in_DF": (f"{THEIRS}.mlp.Wi.weight", "*F D"),
    f"{LAYER}/feedforward/gate_shift_F": (f"{THEIRS}.mlp.Wi.bias", "*F"),
    f"{LAYER}/feedforward/in_shift_F": (f"{THEIRS}.mlp.Wi.bias", "*F"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", f"{THEIRS}.mlp.Wo"),
    **head("head.dense", "head.norm", "decoder.bias"),
  }

  def parts(self, config):
    kinds = self.kinds(config)
    config.choose("classifier_pooling", POOLED, "cls")
    return dict(
      position=self.position(config, kinds),
      attention=attentions.build(self.attention(config, kinds)),
      norm=norm(config),
      activation=config.choose("hidden_activation", GATED),
      norm_placement=PreNorm(first_norm=False),
      embedding=TokenEmbedding(power=0, norm=norm(config)),
      head=prediction(config, bias=config.flag("decoder_bias", True)),
      encoders=config.whole("num_hidden_layers"),
      tied=config.flag("tie_word_embeddings", True),
      feedforward_bias=config.flag("mlp_bias", False),
    )

  def kinds(self, config):
    """Returns the kind of attention of each layer; usually every third is global."""
    period = config.whole("global_attn_every_n_layers", 3)
    layers = range(config.whole("num_hidden_layers"))
    return layer_kinds(config, [LOCAL if n % period else FULL for n in layers])

  def attention(self, config, kinds):
    """Returns the attention's spec; local_attention counts both sides of a window."""
    width = config.whole("local_attention") // 2 + 1
    spans = {LOCAL: f"window({width})", FULL: "multihead"}
    bias = config.flag("attention_bias", False)
    return f"multihead(bias={bias}) + {turns([spans[kind] for kind in kinds])}"

  def position(self, config, kinds):
    for word, _ in BASES.values():
      if config.config.get(word, "") is None:
        raise ValueError(
          f"config.json says {word}=null, which is another base in each release of"
          " HuggingFace's code; write a number"
        )
    encodings = {
      kind: rope_of_kind(config, kind, *of, True) for kind, of in BASES.items()
    }
    config.part("rope_parameters").check_read({*BASES}, "rope_parameters")
    return by_layer([encodings[kind] for kind in kinds])
