"""Gemma 3n, text models."""

from transformer_jax.attention import Variant, attentions
from transformer_jax.attention.variants.layered import LayerList
from transformer_jax.attention.variants.shared_keys import ReadsKeys, WritesKeys
from transformer_jax.attention.variants.window import Window
from transformer_jax.interop import described, names
from transformer_jax.interop.gemma3 import Gemma3
from transformer_jax.interop.hf_activations import GATED
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.layer_types import FULL, LOCAL, cycle, layer_kinds
from transformer_jax.interop.llama import LAYER, THEIRS, Gemma2
from transformer_jax.interop.outputs import WRITER, bare
from transformer_jax.models.feature_norms import RMSNorm
from transformer_jax.models.feedforward_kinds import (
  FeedForwardKind,
  KindsByLayer,
  SparseUnits,
)
from transformer_jax.models.layer_embeddings import LayerTokens
from transformer_jax.models.residual.altup import AltUp
from transformer_jax.models.residual.laurel import Laurel
from transformer_jax.positions.rope import Rope

ALTUP, LAUREL = f"{THEIRS}.altup", f"{THEIRS}.laurel"
RESIDUAL, INNER = f"{LAYER}/attention_residual", f"{LAYER}/embedding"
SPARSE_LAYERS = 10  # of models with more layers, if config.json has no list


@families.register("gemma3n_text")
class Gemma3n(Gemma3):
  """Google, 2025. https://ai.google.dev/gemma/docs/gemma-3n

  Several residual streams, embeddings of tokens in each layer, and last layers that
  read the keys of earlier ones. Gains of norms are stored as they are.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "gemma3n_text"})
  >>> [arch.attention.layer(n).kv_from for n in (18, 19, 20, 24)]
  ['', '', 'sliding_attention', 'full_attention']
  >>> arch.norm_placement
  AltUp(inner=Laurel(rank=64), streams=4, active=0, clip=0.0, scaled=True)
  """

  called = "Gemma3n"
  outputs = WRITER, bare("TextModel", "Model")
  defaults = Gemma2.defaults | dict(
    vocab_size=262_400, hidden_size=2048, intermediate_size=16_384,
    num_hidden_layers=35, num_key_value_heads=2, max_position_embeddings=32_768,
    sliding_window=512, vocab_size_per_layer_input=262_144,
    hidden_size_per_layer_input=256, altup_active_idx=0, altup_coef_clip=120.0,
    altup_correct_scale=True, altup_num_inputs=4, num_kv_shared_layers=15,
    laurel_rank=64, attn_logit_softcapping=None, query_pre_attn_scalar=1,
  )  # fmt: skip
  # Weights are clipped in training alone. The scale of scores is 1.
  harmless = f"{Gemma2.harmless} altup_coef_clip query_pre_attn_scalar"
  # A model that does not scale has the tensor, too.
  ignored = r"layers\.\d+\.altup\.correct_output_scale"
  sizes = Gemma3.sizes | dict(F=lambda config: units(config))
  table = {
    **Gemma3.table,
    **names.norm(f"{LAYER}/router_norm", f"{ALTUP}.router_norm"),
    **names.norm(f"{LAYER}/laurel_norm", f"{LAUREL}.post_laurel_norm"),
    **names.norm(f"{INNER}_update_norm", f"{THEIRS}.post_per_layer_input_norm"),
    f"{RESIDUAL}/router_DR": (f"{ALTUP}.modality_router.weight", "R D"),
    f"{RESIDUAL}/predict_RSN": (f"{ALTUP}.prediction_coefs.weight", "NS R"),
    f"{RESIDUAL}/correct_RN": (f"{ALTUP}.correction_coefs.weight", "N R"),
    f"{RESIDUAL}/scale_D": (f"{ALTUP}.correct_output_scale", "D"),
    f"{RESIDUAL}/left_DR": (f"{LAUREL}.linear_left.weight", "R D"),
    f"{RESIDUAL}/right_RD": (f"{LAUREL}.linear_right.weight", "D R"),
    f"{INNER}/table_VW": ("model.embed_tokens_per_layer.weight", "V *"),
    f"{INNER}/context_DW": ("model.per_layer_model_projection.weight", "* D"),
    f"{INNER}/gate_DW": (f"{THEIRS}.per_layer_input_gate.weight", "W D"),
    f"{INNER}/out_WD": (f"{THEIRS}.per_layer_projection.weight", "D W"),
    "decoder/embedding/gain_W": ("model.per_layer_projection_norm.weight", "W"),
  }

  def described(self, arch):
    unread = "hidden_act", *described.ROTARY
    kinds = described.kinds(arch, Window, LOCAL, FULL)
    turned = zip(kinds, described.encodings(arch), strict=True)
    ropes = {kind: described.rotation(x) for kind, x in turned if isinstance(x, Rope)}
    embedding, altup = arch.embedding, arch.norm_placement
    kept = [getattr(kind, "sparsity", 0.0) for kind in described.feedforwards(arch)]
    return {
      **described.without(described.sizes(arch), *unread),
      "hidden_activation": described.activation(arch, GATED, "gelu_pytorch_tanh"),
      "final_logit_softcapping": getattr(arch.head, "cap", 0.0) or None,
      **described.words(described.part(arch, Window), width="sliding_window"),
      "rope_parameters": ropes,
      "num_kv_shared_layers": sum(map(bool, described.of_layers(arch, ReadsKeys))),
      "activation_sparsity_pattern": kept,
      "hidden_size_per_layer_input": getattr(embedding, "width", 1),
      "vocab_size_per_layer_input": getattr(embedding, "rows", arch.dims.V),
      "altup_num_inputs": getattr(altup, "streams", 1),
      "altup_active_idx": getattr(altup, "active", 0),
      "altup_correct_scale": getattr(altup, "scaled", True),
      "laurel_rank": getattr(getattr(altup, "inner", None), "rank", 1),
      "layer_types": kinds,
    }

  def rows(self, config):
    rows = dict(super().rows(config))
    for ours, theirs in (("open/into", ""), ("/out_of", "unembed_")):
      path = f"decoder/residual_{ours}" if not theirs else f"decoder/residual{ours}"
      for n in range(1, config.whole("altup_num_inputs")):
        name = f"model.altup_{theirs}projections.{n - 1}.weight"
        rows[f"{path}_{n}_DD"] = name, "d D"
    return rows

  def parts(self, config):
    active = or_zero(config, "altup_active_idx")
    epsilon = config.number("rms_norm_eps")
    return super().parts(config) | dict(
      attention=self.layers(config),
      norm_placement=AltUp(
        Laurel(config.whole("laurel_rank")),
        streams=config.whole("altup_num_inputs"),
        active=active,
        scaled=config.flag("altup_correct_scale", True),
      ),
      feedforward_kind=self.sparsity(config),
      embedding=LayerTokens(
        width=config.whole("hidden_size_per_layer_input"),
        rows=config.whole("vocab_size_per_layer_input"),
        epsilon=epsilon,
      ),
    )

  def norm(self, config):
    return RMSNorm(config.number("rms_norm_eps"))

  def kinds(self, config):
    count = config.whole("num_hidden_layers")
    return layer_kinds(config, [LOCAL if (n + 1) % 5 else FULL for n in range(count)])

  def layers(self, config):
    """Returns the attention of all layers: own keys first, then those of earlier ones.

    Readers have the kind of attention whose keys they read.
    """
    kinds, shared = self.kinds(config), or_zero(config, "num_kv_shared_layers")
    own = len(kinds) - shared
    if own < 1 or not {*kinds[own:]} <= {*kinds[:own]}:
      raise ValueError(
        f"config.json says num_kv_shared_layers={shared} of {len(kinds)} layers, and"
        " each of these reads an earlier layer of its kind; write fewer"
      )
    last = {kind: n for n, kind in enumerate(kinds[:own])}
    readers = {*kinds[own:]}
    variants: list[Variant] = []
    for n, kind in enumerate(kinds):
      if n >= own:
        variants.append(ReadsKeys(self.variant(config, kind, keys=False), kind))
        continue
      variant = self.variant(config, kind, keys=True)
      writes = kind in readers and last[kind] == n
      variants.append(WritesKeys(variant, kind) if writes else variant)
    return LayerList(cycle(variants))

  def variant(self, config, kind, keys):
    """Returns the attention of a layer of a kind, with keys of its own or without."""
    epsilon = config.number("rms_norm_eps")
    parts = [
      *self.projections(config, config.flag("attention_bias", False)),
      "scale(0, 1.0)",
      f"qk_norm(epsilon={epsilon}, keys={keys})",
    ]
    parts += [f"value_norm(gain=False, epsilon={epsilon})"] if keys else []
    parts += [f"window({config.whole('sliding_window')})"] if kind == LOCAL else []
    return attentions.build(" + ".join(parts))

  def position(self, config):
    position = super().position(config)
    for kind in ("dynamic", "longrope"):
      for words in (config.part("rope_parameters").part(x) for x in (FULL, LOCAL)):
        if words.get("rope_type") == kind:
          raise ValueError(
            f"config.json says rope_type={kind!r}, with which keys turn when they are"
            " read, and here several layers read them; only fixed rotations are"
          )
    return position

  def attention(self, config):
    return ["multihead"]  # `layers` has what each layer has

  def sparsity(self, config):
    """Returns the kind of feed-forward layer of each layer."""
    word, count = "activation_sparsity_pattern", config.whole("num_hidden_layers")
    sparse = SPARSE_LAYERS if count > SPARSE_LAYERS else 0
    shares = config.get(word)
    if shares is None:
      shares = [0.95] * sparse + [0.0] * (count - sparse)
    shares = shares if isinstance(shares, list) else [shares] * count
    if len(shares) != count:
      raise ValueError(
        f"config.json says {word} of {len(shares)} layers, and there are {count}; write"
        " one share for each"
      )
    shares = [(config | {word: share}).number(word) for share in shares]
    kinds = [SparseUnits(share) if share > 0 else FeedForwardKind() for share in shares]
    some = cycle(kinds)
    return some[0] if len(some) == 1 else KindsByLayer(some)


def or_zero(config, word):
  """Returns a whole number from 0."""
  return 0 if config.get(word) == 0 else config.whole(word)


def units(config):
  """Returns the hidden units of a layer, from one number or a list of equal ones."""
  word = "intermediate_size"
  sizes = config.get(word)
  if not isinstance(sizes, list):
    return config.whole(word)
  if len({*map(str, sizes)}) != 1 or len(sizes) != config.whole("num_hidden_layers"):
    raise ValueError(
      f"config.json says {word}={sizes!r:.60}, and layers of several widths are not"
      " read here; only one width for all layers is"
    )
  return (config | {word: sizes[0]}).whole(word)
