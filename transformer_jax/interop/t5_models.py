"""T5, both versions. Raffel et al., 2020. https://arxiv.org/abs/1910.10683"""

import numpy as np

from transformer_jax.attention import attentions
from transformer_jax.interop import names
from transformer_jax.interop.hf_activations import ACTIVATIONS, GATED
from transformer_jax.interop.hf_family import HFFamily, families
from transformer_jax.interop.outputs import Output, bare
from transformer_jax.models.embeddings import TokenEmbedding
from transformer_jax.models.feature_norms import RMSNorm
from transformer_jax.models.heads import LinearHead
from transformer_jax.positions import positions

KINDS = dict(ACTIVATIONS)
KINDS |= {f"gated-{word}": kind for word, kind in GATED.items()}
KINDS |= {"gated-gelu": GATED["gelu_new"]}  # T5 v1.1's name of the tanh approximation


def stack(side: str, cross: bool):
  """Returns the table rows of one stack; a decoder has cross-attention too."""
  ours, theirs = side + "/layer_{n}", side + ".block.{n}.layer."

  def attend(path, name):
    return names.heads(path, *(f"{name}.{p}" for p in "qkvo"))

  last = theirs + ("2" if cross else "1")
  rows = {
    f"{side}/position/table_HN": (
      f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "N H",
    ),
    **names.norm(f"{side}/final_norm", f"{side}.final_layer_norm"),
    **names.norm(f"{ours}/attention_norm", f"{theirs}0.layer_norm"),
    **attend(f"{ours}/attention", f"{theirs}0.SelfAttention"),
    **names.norm(f"{ours}/feedforward_norm", f"{last}.layer_norm"),
    **names.dense(f"{ours}/feedforward", "out_FD", f"{last}.DenseReluDense.wo"),
  }  # fmt: skip
  if not cross:
    return rows
  rows |= names.norm(f"{ours}/cross_norm", f"{theirs}1.layer_norm")
  return rows | attend(f"{ours}/cross", f"{theirs}1.EncDecAttention")


@families.register("t5")
class T5Family(HFFamily):
  """Scores without a scale, a bias that all layers of a stack share.

  Weight tying is read from the tensors: config.json once stored it under the key that
  now stores whether states are scaled.

  >>> import transformer_jax as tj
  >>> config = {"model_type": "t5", "relative_attention_num_buckets": 16}
  >>> arch = tj.interop.architecture(config)
  >>> arch.position, arch.head.power
  (T5(buckets=16, max_distance=128, causal=True), -0.5)
  """

  called = "T5"
  outputs = (
    Output(("ForConditionalGeneration", "WithLMHeadModel")),
    bare("EncoderModel", decoders=0),
    bare(),
  )
  defaults = dict(
    vocab_size=32_128, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8,
    relative_attention_num_buckets=32, relative_attention_max_distance=128,
    layer_norm_epsilon=1e-6, feed_forward_proj="relu", tie_word_embeddings=True,
  )  # fmt: skip
  aliases = dict(
    hidden_size="d_model", num_attention_heads="num_heads", head_dim="d_kv",
    num_hidden_layers="num_layers",
  )  # fmt: skip
  copies = dict.fromkeys(
    ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
    "shared.weight",
  )
  # An older release stored biases that its cross-attention never read.
  ignored = r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias.*"
  sizes = dict(
    V="vocab_size", D="d_model", H="num_heads", K="d_kv", F="d_ff",
    L=lambda config: config.whole("n_positions", 512),
  )  # fmt: skip
  table = {
    "embedding_VD": ("shared.weight", "V D"),
    "output_DV": ("lm_head.weight", "V D"),
    **stack("encoder", cross=False),
    **stack("decoder", cross=True),
  }

  def rows(self, config):
    """Returns the table; the first projection has another name with a gate."""
    gated = self.activation(config).gated
    table = dict(self.table)
    for side, part in (("encoder", 1), ("decoder", 2)):
      ours = side + "/layer_{n}/feedforward"
      theirs = side + ".block.{n}.layer." + f"{part}.DenseReluDense."
      table |= names.dense(ours, "in_DF", theirs + ("wi_1" if gated else "wi"))
      table |= names.dense(ours, "gate_DF", f"{theirs}wi_0")
    return table

  def parts(self, config):
    buckets = config.whole("relative_attention_num_buckets")
    max_distance = config.whole("relative_attention_max_distance")
    return dict(
      position=positions.build(f"t5({buckets}, {max_distance})"),
      attention=attentions.build("scale(0)"),
      norm=RMSNorm(config.number("layer_norm_epsilon")),
      activation=self.activation(config),
      embedding=TokenEmbedding(power=0),
      head=LinearHead(power=-0.5 if self.scaled(config) else 0.0),
      encoders=config.whole("num_layers"),
      decoders=config.whole("num_decoder_layers", config.whole("num_layers")),
      tied=config.flag("tie_word_embeddings", True),
    )

  def activation(self, config):
    """Returns the activation, for which later releases have two more keys."""
    kind = config.get("feed_forward_proj")
    activation = config.choose("feed_forward_proj", KINDS)
    of = "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-")
    config.need(dense_act_fn=of, is_gated_act=activation.gated)
    return activation

  def scaled(self, config):
    """Returns whether states are scaled before the output: in T5, not in T5 v1.1."""
    tied = config.flag("tie_word_embeddings", True)
    return config.flag("scale_decoder_outputs", tied)

  def untied(self, config, tensors):
    """Returns changed keys if the output contradicts config.json."""
    output, embedding = (
      tensors.get(f"{name}.weight") for name in ("lm_head", "shared")
    )
    tied = output is None or embedding is None or np.array_equal(output, embedding)
    if tied == config.flag("tie_word_embeddings", True):
      return {}
    return {"tie_word_embeddings": tied, "scale_decoder_outputs": self.scaled(config)}


@families.register("mt5")
class MT5(T5Family):
  """Xue et al., 2021. https://arxiv.org/abs/2010.11934

  T5 v1.1 with unscaled states.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "mt5"})
  >>> arch.activation, arch.head.power
  (GeGLU(approximate=True), 0.0)
  """

  called = "MT5"
  defaults = T5Family.defaults | dict(
    vocab_size=250_112, d_ff=1024, num_layers=8, num_heads=6,
    feed_forward_proj="gated-gelu",
  )  # fmt: skip

  def scaled(self, config):
    config.need(scale_decoder_outputs=False)
    return False
