"""What config.json says of rotary positions."""

from collections.abc import Callable

from transformer_jax.interop.family import Words
from transformer_jax.positions import PositionalEncoding, positions

# Their name of a scaling: the spec of ours, of the words about it.
SCALINGS: dict[str, Callable[[Words], str]] = {
  "default": lambda words: "rope(",
  "linear": lambda words: f"rope_linear(factor={words['factor']}, ",
  "llama3": lambda words: (
    f"rope_llama3(factor={words['factor']},"
    f" original={words['original_max_position_embeddings']},"
    f" fast={words['high_freq_factor']}, slow={words['low_freq_factor']}, "
  ),
  "yarn": lambda words: (
    f"rope_yarn(factor={words['factor']},"
    f" original={words['original_max_position_embeddings']},"
    f" fast={words.get('beta_fast', 32.0)}, slow={words.get('beta_slow', 1.0)},"
    f" truncate={words.get('truncate', True)}, "
  ),
}


def rope(config: Words, base: float = 10_000.0, **more: object) -> PositionalEncoding:
  """Returns the rotary encoding of a config, old style or new.

  base   where config.json has none
  more   further arguments of the encoding
  """
  old = config.get("rope_scaling", {})
  words = config.get("rope_parameters", old)
  words = {"rope_type": words.get("type", "default"), **words}
  spec = Words(words).choose("rope_type", SCALINGS)(Words(words))
  more["base"] = words.get("rope_theta", config.get("rope_theta", base))
  share = words.get("partial_rotary_factor", config.get("partial_rotary_factor"))
  more |= {"fraction": share} if share is not None else {}
  arguments = ", ".join(f"{name}={value!r}" for name, value in more.items())
  return positions.build(f"{spec}{arguments})")
