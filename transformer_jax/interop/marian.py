"""Encoder-decoders after Vaswani et al.: Marian and BART."""

from transformer_jax.attention import attentions
from transformer_jax.interop import names
from transformer_jax.interop.family import ACTIVATIONS, Family, families
from transformer_jax.models.ends import Linear, Tokens
from transformer_jax.models.layers import LayerNorm
from transformer_jax.models.placements import PostNorm
from transformer_jax.positions import positions


def stack(side: str):
  """Returns the rows of one stack; an encoder's model has none for attention across."""
  ours, theirs = side + "/layer_{n}", f"model.{side}.layers." + "{n}"
  projections = [f"{part}_proj" for part in ("q", "k", "v", "out")]
  attend = lambda path, name: names.heads(
    path, *(f"{theirs}.{name}.{part}" for part in projections)
  )
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
class Marian(Family):
  """Junczys-Dowmunt et al., 2018. https://arxiv.org/abs/1804.00344

  Tables of sinusoids are made anew instead of read.
  """

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
    N="encoder_layers", L="max_position_embeddings",
  )  # fmt: skip
  table = {
    "embedding_VD": ("model.shared.weight", "V D"),
    "head/shift_V": ("final_logits_bias", "1 V"),
    **stack("encoder"),
    **stack("decoder"),
  }

  def parts(self, config):
    for word in ("attention_heads", "ffn_dim"):
      config.same(f"decoder_{word}", f"encoder_{word}")
    config.need(tie_word_embeddings=True)
    return dict(
      position=self.position(config),
      attention=attentions.build("multihead(bias=True)"),
      norm=LayerNorm(1e-5),
      activation=config.choose("activation_function", ACTIVATIONS, "gelu"),
      placement=PostNorm(),
      embedding=Tokens(0.5 if config.get("scale_embedding", False) else 0),
      head=Linear(bias=True),
      encoders=config["encoder_layers"],
      decoders=config["decoder_layers"],
      feedforward_bias=True,
    )

  def position(self, config):
    return positions.build("sinusoidal(interleaved=False)")


@families.register("bart")
class Bart(Marian):
  """Lewis et al., 2019. https://arxiv.org/abs/1910.13461"""

  ignored = "$^"

  def parts(self, config):
    norm = LayerNorm(1e-5)
    power = 0.5 if config.get("scale_embedding", False) else 0
    return super().parts(config) | dict(embedding=Tokens(power, norm=norm))

  def position(self, config):
    # Rows 0 and 1 were those of padding, and are read by no token.
    return positions.build(f"learned({config['max_position_embeddings'] + 2}, start=2)")
