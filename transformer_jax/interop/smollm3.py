"""SmolLM3: Llama with some layers without positional encoding (NoPE)."""

from transformer_jax.interop import described
from transformer_jax.interop.hf_family import families
from transformer_jax.interop.layer_types import by_layer
from transformer_jax.interop.llama import Llama, LlamaLike
from transformer_jax.interop.rotary import rope
from transformer_jax.positions import PositionalEncoding
from transformer_jax.positions.rope import Rope


@families.register("smollm3")
class SmolLM3(Llama):
  """Bakouch et al., 2025. https://huggingface.co/blog/smollm3

  Every fourth layer has no positions, if config.json names no others.

  >>> import transformer_jax as tj
  >>> arch = tj.interop.architecture({"model_type": "smollm3"})
  >>> [encoding.name for encoding in arch.position.encodings]
  ['rope', 'rope', 'rope', 'none']
  """

  defaults = LlamaLike.defaults | dict(
    vocab_size=128_256, hidden_size=2048, num_hidden_layers=36, num_attention_heads=16,
    num_key_value_heads=4, max_position_embeddings=32_768, rope_theta=2_000_000.0,
    tie_word_embeddings=True, no_rope_layer_interval=4,
  )  # fmt: skip
  harmless = "sliding_window"  # unused without use_sliding_window

  def described(self, arch):
    turned = [int(isinstance(x, Rope)) for x in described.encodings(arch)]
    return super().described(arch) | {"no_rope_layers": turned}

  def parts(self, config):
    config.need(use_sliding_window=False)
    for kind in config.many("layer_types", []):
      (config | {"layer_types": kind}).need(layer_types="full_attention")
    return super().parts(config)

  def position(self, config):
    encoding = rope(config)
    kinds = [
      encoding if turns else PositionalEncoding() for turns in self.turns(config)
    ]
    return by_layer(kinds)

  def turns(self, config):
    """Returns 1 for each layer with rotary positions, 0 for the others."""
    word, count = "no_rope_layers", config.whole("num_hidden_layers")
    period = config.whole("no_rope_layer_interval")
    flags = config.many(word, [int((n + 1) % period != 0) for n in range(count)])
    if len(flags) < count or any(flag not in (0, 1) for flag in flags):
      raise ValueError(
        f"config.json says {word}={flags!r:.60}; write 1 for each of the {count} layers"
        " that has rotary positions, and 0 for each that has none"
      )
    return flags[:count]
