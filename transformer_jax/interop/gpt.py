"""GPT-2 and similar decoders before Llama."""

from transformer_jax.attention import attentions
from transformer_jax.interop import described, names
from transformer_jax.interop.hf_activations import ACTIVATIONS
from transformer_jax.interop.hf_family import HFFamily, families
from transformer_jax.interop.layer_types import turns
from transformer_jax.models.embeddings import TokenEmbedding
from transformer_jax.models.feature_norms import LayerNorm
from transformer_jax.models.heads import LinearHead
from transformer_jax.models.residual import Parallel
from transformer_jax.positions import positions

LAYER = "decoder/layer_{n}"


@families.register("gpt2")
class GPT2(HFFamily):
  """Radford et al., 2019. https://openai.com/index/better-language-models

  Matrices are [in, out].

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "gpt2", "n_layer": 24})
  >>> arch.position, arch.dims.D, arch.decoders
  (Learned(max_positions=1024, start=0), 768, 24)
  """

  defaults = dict(
    vocab_size=50_257, n_positions=1024, n_embd=768, n_layer=12, n_head=12,
    activation_function="gelu_new", layer_norm_epsilon=1e-5, tie_word_embeddings=True,
  )  # fmt: skip
  aliases = dict(
    hidden_size="n_embd", max_position_embeddings="n_positions",
    num_attention_heads="n_head", num_hidden_layers="n_layer",
  )  # fmt: skip
  prefix = "transformer."
  ignored = r"h\.\d+\.attn\.(masked_)?bias"
  copies = {"lm_head.weight": "transformer.wte.weight"}
  sizes = dict(V="vocab_size", D="n_embd", H="n_head", L="n_positions") | {
    "F": lambda config: config.whole("n_inner", 4 * config.whole("n_embd"))
  }
  table = {
    "embedding_VD": ("transformer.wte.weight", "V D"),
    "output_DV": ("lm_head.weight", "V D"),
    "decoder/position/table_LD": ("transformer.wpe.weight", "L D"),
    **names.norm("decoder/final_norm", "transformer.ln_f"),
    **names.norm(f"{LAYER}/attention_norm", "transformer.h.{n}.ln_1"),
    **names.norm(f"{LAYER}/feedforward_norm", "transformer.h.{n}.ln_2"),
    **names.fused(
      f"{LAYER}/attention", "transformer.h.{n}.attn.c_attn",
      "transformer.h.{n}.attn.c_proj", "*HK", out_in=False,
    ),
    **names.dense(
      f"{LAYER}/feedforward", "in_DF", "transformer.h.{n}.mlp.c_fc", out_in=False
    ),
    **names.dense(
      f"{LAYER}/feedforward", "out_FD", "transformer.h.{n}.mlp.c_proj", out_in=False
    ),
  }  # fmt: skip

  def described(self, arch):
    dims = arch.dims
    return {
      "vocab_size": dims.V, "n_embd": dims.D, "n_inner": dims.F, "n_head": dims.H,
      "n_layer": arch.decoders, "n_positions": dims.L,
      "layer_norm_epsilon": getattr(arch.norm, "epsilon", 1e-5),
      "activation_function": described.activation(arch, ACTIVATIONS, "gelu_new"),
      "tie_word_embeddings": arch.tied,
    }  # fmt: skip

  def parts(self, config):
    return dict(
      position=positions.build(f"learned({config.whole('n_positions')})"),
      attention=attentions.build(self.attention(config)),
      norm=LayerNorm(config.number("layer_norm_epsilon")),
      activation=config.choose("activation_function", ACTIVATIONS),
      embedding=TokenEmbedding(power=0),
      decoders=config.whole("n_layer"),
      tied=config.flag("tie_word_embeddings", True),
      feedforward_bias=True,
    )

  def attention(self, config):
    """Returns the attention's spec."""
    root = config.flag("scale_attn_weights", True)
    by_layer = config.flag("scale_attn_by_inverse_layer_idx", False)
    usual = "multihead(bias=True)"
    if root and not by_layer:
      return usual
    return f"{usual} + scale({0.5 if root else 0}, by_layer={by_layer})"


@families.register("gpt_neo")
class GPTNeo(GPT2):
  """Black et al., 2021. https://doi.org/10.5281/zenodo.5297715

  No scale; layers with a window between those without; a bias only after attention.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "gpt_neo", "window_size": 128})
  >>> arch.attention.parts[2].last
  Window(width=128)
  """

  defaults = dict(
    vocab_size=50_257, max_position_embeddings=2048, hidden_size=2048, num_layers=24,
    num_heads=16, window_size=256, activation_function="gelu_new",
    layer_norm_epsilon=1e-5, tie_word_embeddings=True,
  )  # fmt: skip
  aliases = dict(num_attention_heads="num_heads", num_hidden_layers="num_layers")
  ignored = r"h\.\d+\.attn\.attention\.(masked_)?bias"
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_heads",
    L="max_position_embeddings",
    F=lambda config: config.whole("intermediate_size", 4 * config.whole("hidden_size")),
  )  # fmt: skip
  table = {
    **GPT2.table,
    **names.heads(
      f"{LAYER}/attention",
      *(
        "transformer.h.{n}.attn.attention." + part
        for part in ("q_proj", "k_proj", "v_proj", "out_proj")
      ),
    ),
    **names.dense(f"{LAYER}/feedforward", "in_DF", "transformer.h.{n}.mlp.c_fc"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", "transformer.h.{n}.mlp.c_proj"),
  }

  def parts(self, config):
    words = {"n_positions": config["max_position_embeddings"]}
    words |= {"n_layer": config.whole("num_layers")}
    return super().parts(config | words)

  def attention(self, config):
    config.need(scale_attn_by_inverse_layer_idx=False, scale_attn_weights=True)
    width, word = config.whole("window_size"), "attention_types"
    kinds = {"global": "multihead", "local": f"window({width})"}

    def named(kind):
      return (config | {word: kind}).choose(word, kinds)

    listed = self.layer_kinds(config.many(word, [[["global", "local"], 12]]))
    order = [named(kind) for kind in listed]
    if len(order) != config.whole("num_layers"):
      raise ValueError(
        f"config.json gives {len(order)} layers a kind of attention ({word}) and has"
        f" num_layers={config['num_layers']}; write one for each"
      )
    if config.get("attention_layers", listed) != listed:
      raise ValueError(
        f"config.json says attention_layers={config['attention_layers']}, and {word}"
        f" says {listed}; make them the same, or remove one of them"
      )
    return f"multihead(bias='out') + scale(0) + {turns(order)}"

  def layer_kinds(self, types):
    """Returns the kind of each layer, from groups of kinds that are repeated."""
    try:
      return [str(kind) for some, times in types for kind in list(some) * times]
    except (TypeError, ValueError) as error:
      raise ValueError(
        f"config.json says attention_types={types!r}; write groups of kinds with how"
        ' often each is repeated: [[["global", "local"], 12]]'
      ) from error


@families.register("opt")
class OPT(HFFamily):
  """Zhang et al., 2022. https://arxiv.org/abs/2205.01068

  Rows 0 and 1 of its position table are unused.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "opt"})
  >>> arch.activation, arch.position
  (Relu(), Learned(max_positions=2050, start=2))
  """

  defaults = dict(
    vocab_size=50_272, hidden_size=768, num_hidden_layers=12, ffn_dim=3072,
    num_attention_heads=12, max_position_embeddings=2048, activation_function="relu",
    enable_bias=True, do_layer_norm_before=True, tie_word_embeddings=True,
  )  # fmt: skip
  prefix = "model."
  copies = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
  sizes = dict(
    V="vocab_size", D="hidden_size", H="num_attention_heads", F="ffn_dim",
    L="max_position_embeddings",
  )  # fmt: skip
  table = {
    "embedding_VD": ("model.decoder.embed_tokens.weight", "V D"),
    "output_DV": ("lm_head.weight", "V D"),
    "decoder/position/table_LD": ("model.decoder.embed_positions.weight", "L D"),
    **names.norm("decoder/final_norm", "model.decoder.final_layer_norm"),
    **names.norm(
      f"{LAYER}/attention_norm", "model.decoder.layers.{n}.self_attn_layer_norm"
    ),
    **names.norm(
      f"{LAYER}/feedforward_norm", "model.decoder.layers.{n}.final_layer_norm"
    ),
    **names.heads(
      f"{LAYER}/attention",
      *(
        "model.decoder.layers.{n}.self_attn." + part
        for part in ("q_proj", "k_proj", "v_proj", "out_proj")
      ),
    ),
    **names.dense(f"{LAYER}/feedforward", "in_DF", "model.decoder.layers.{n}.fc1"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", "model.decoder.layers.{n}.fc2"),
  }

  def parts(self, config):
    config.need(do_layer_norm_before=True, layer_norm_elementwise_affine=True)
    config.need(_remove_final_layer_norm=False)
    config.same("word_embed_proj_dim", "hidden_size")
    bias = config.flag("enable_bias", True)
    rows = config.whole("max_position_embeddings") + 2
    return dict(
      position=positions.build(f"learned({rows}, start=2)"),
      attention=attentions.build(f"multihead(bias={bias})"),
      norm=LayerNorm(1e-5),
      activation=config.choose("activation_function", ACTIVATIONS),
      embedding=TokenEmbedding(power=0),
      decoders=config.whole("num_hidden_layers"),
      tied=config.flag("tie_word_embeddings", True),
      feedforward_bias=bias,
    )


@families.register("gptj")
class GPTJ(GPT2):
  """Wang, 2021. https://github.com/kingoflolz/mesh-transformer-jax

  One norm serves attention and feed-forward layer; only the first features of a
  head are rotated.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "gptj"})
  >>> arch.position.fraction, arch.norm_placement
  (0.25, Parallel(norms='one'))
  """

  defaults = dict(
    vocab_size=50_400, n_positions=2048, n_embd=4096, n_layer=28, n_head=16,
    rotary_dim=64, activation_function="gelu_new", layer_norm_epsilon=1e-5,
    tie_word_embeddings=False,
  )  # fmt: skip
  ignored = r"h\.\d+\.attn\.((masked_)?bias|embed_positions)"
  table = {
    **GPT2.table,
    **names.heads(
      f"{LAYER}/attention",
      *(
        "transformer.h.{n}.attn." + part
        for part in ("q_proj", "k_proj", "v_proj", "out_proj")
      ),
    ),
    **names.dense(f"{LAYER}/feedforward", "in_DF", "transformer.h.{n}.mlp.fc_in"),
    **names.dense(f"{LAYER}/feedforward", "out_FD", "transformer.h.{n}.mlp.fc_out"),
    "head/shift_V": ("lm_head.bias", "V"),
  }

  def parts(self, config):
    config.need(rotary=True)
    width = config.whole("n_embd") / config.whole("n_head")
    share = config.whole("rotary_dim") / width
    return super().parts(config) | dict(
      position=positions.build(f"rope(interleaved=True, fraction={share})"),
      norm_placement=Parallel("one"),
      head=LinearHead(bias=True),
    )

  def attention(self, config):
    config.need(scale_attn_by_inverse_layer_idx=False, scale_attn_weights=True)
    return "multihead"
