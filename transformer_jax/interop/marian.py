"""Encoder-decoders after Vaswani et al., 2017: Marian, BART."""

import jax.numpy as jnp
import numpy as np

from transformer_jax.attention import attentions
from transformer_jax.interop import names
from transformer_jax.interop.hf_activations import ACTIVATIONS
from transformer_jax.interop.hf_family import HFFamily, families
from transformer_jax.interop.outputs import Output, bare
from transformer_jax.models.embeddings import TokenEmbedding
from transformer_jax.models.feature_norms import LayerNorm
from transformer_jax.models.heads import LinearHead
from transformer_jax.models.residual import PostNorm
from transformer_jax.positions import positions
from transformer_jax.positions.sinusoidal import sinusoids


def stack(side: str):
  """Returns the table rows of one stack; an encoder has none of cross-attention."""
  ours, theirs = side + "/layer_{n}", f"model.{side}.layers." + "{n}"
  projections = [f"{part}_proj" for part in ("q", "k", "v", "out")]

  def attend(path, name):
    return names.heads(path, *(f"{theirs}.{name}.{part}" for part in projections))

  return {
    f"{side}/position/table_LD": (f"model.{side}.embed_positions.weight", "L D"),
    **names.norm(f"{side}/embedding_norm", f"model.{side}.layernorm_embedding"),
    **names.norm(f"{side}/final_norm", f"model.{side}.layer_norm"),
    **attend(f"{ours}/attention", "self_attn"),
    **names.norm(f"{ours}/attention_norm", f"{theirs}.self_attn_layer_norm"),
    **attend(f"{ours}/cross", "encoder_attn"),
    **names.norm(f"{ours}/cross_norm", f"{theirs}.encoder_attn_layer_norm"),
    **names.dense(f"{ours}/feedforward", "in_DF", f"{theirs}.fc1"),
    **names.dense(f"{ours}/feedforward", "out_FD", f"{theirs}.fc2"),
    **names.norm(f"{ours}/feedforward_norm", f"{theirs}.final_layer_norm"),
  }


@families.register("marian")
class Marian(HFFamily):
  """Junczys-Dowmunt et al., 2018. https://arxiv.org/abs/1804.00344

  Tables of sinusoids are computed, not read.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "marian", "decoder_layers": 1})
  >>> arch.encoders, arch.decoders, arch.position.name, arch.head.bias
  (12, 1, 'sinusoidal', True)
  """

  called = "Marian"
  outputs = Output(("MTModel",)), bare()
  defaults = dict(
    vocab_size=58_101, d_model=1024, encoder_layers=12, decoder_layers=12,
    encoder_attention_heads=16, decoder_attention_heads=16, encoder_ffn_dim=4096,
    decoder_ffn_dim=4096, max_position_embeddings=1024, activation_function="gelu",
    scale_embedding=False,
  )  # fmt: skip
  aliases = dict(
    hidden_size="d_model", num_attention_heads="encoder_attention_heads",
    num_hidden_layers="encoder_layers",
  )  # fmt: skip
  harmless = "static_position_embeddings extra_pos_embeddings"
  embedding_norm = False
  zeros = ("final_logits_bias",)
  prefix = "model."
  ignored = r"(encoder|decoder)\.embed_positions\.weight"
  copies = dict.fromkeys(
    (
      "model.encoder.embed_tokens.weight",
      "model.decoder.embed_tokens.weight",
      "lm_head.weight",
    ),
    "model.shared.weight",
  )
  sizes = dict(
    V="vocab_size", D="d_model", H="encoder_attention_heads", F="encoder_ffn_dim",
    L="max_position_embeddings",
  )  # fmt: skip
  decoder_sizes = dict(H="decoder_attention_heads", F="decoder_ffn_dim")
  table = {
    "embedding_VD": ("model.shared.weight", "V D"),
    "head/shift_V": ("final_logits_bias", "1 V"),
    **stack("encoder"),
    **stack("decoder"),
  }

  def parts(self, config):
    config.same("decoder_vocab_size", "vocab_size")
    config.need(tie_word_embeddings=True, share_encoder_decoder_embeddings=True)
    config.need(add_bias_logits=False, add_final_layer_norm=False)
    config.need(do_blenderbot_90_layernorm=False)
    config.need(normalize_before=False, normalize_embedding=self.embedding_norm)
    return dict(
      position=self.position(config),
      attention=attentions.build("multihead(bias=True)"),
      norm=LayerNorm(1e-5),
      activation=config.choose("activation_function", ACTIVATIONS),
      norm_placement=PostNorm(),
      embedding=TokenEmbedding(0.5 if config.flag("scale_embedding", False) else 0),
      head=LinearHead(bias=True),
      encoders=config.whole("encoder_layers"),
      decoders=config.whole("decoder_layers"),
      feedforward_bias=True,
    )

  def position(self, config):
    return positions.build("sinusoidal(interleaved=False)")

  def check(self, tensors, names):
    """Raises ValueError for position tables other than the computed sinusoids."""
    super().check(tensors, names)
    for name in tensors.keys() - names.expected().keys():
      if "embed_positions" in name and not of_sinusoids(tensors[name]):
        raise ValueError(
          f"{name} is no table of sinusoids, and no other table is read here"
        )


def of_sinusoids(x_LD):
  """Returns whether a table holds sinusoids, up to the rounding of 16 bits."""
  if x_LD.ndim != 2 or x_LD.shape[1] % 2:
    return False
  L, D = x_LD.shape
  made_LD = sinusoids(jnp.arange(L), D, interleaved=False)
  return np.allclose(made_LD, x_LD, atol=5e-3)


@families.register("bart")
class Bart(Marian):
  """Lewis et al., 2019. https://arxiv.org/abs/1910.13461

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "bart"})
  >>> arch.position, arch.embedding.norm.epsilon
  (Learned(max_positions=1026, start=2), 1e-05)
  """

  called = "Bart"
  outputs = Output(("ForConditionalGeneration",)), bare()
  defaults = Marian.defaults | dict(vocab_size=50_265)
  ignored = "$^"
  embedding_norm = True

  def parts(self, config):
    fields = super().parts(config)
    norm, power = LayerNorm(1e-5), fields["embedding"].power
    return fields | dict(embedding=TokenEmbedding(power, norm=norm))

  def position(self, config):
    # Rows 0 and 1 belonged to padding, and are unused.
    return positions.build(
      f"learned({config.whole('max_position_embeddings') + 2}, start=2)"
    )
