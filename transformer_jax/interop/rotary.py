"""What config.json says of rotary positions."""

from transformer_jax.interop.family import Words
from transformer_jax.positions import PositionalEncoding, positions

# Their name of a scaling: the name of ours, and our argument for each of its words.
LENGTH = {"factor": "factor", "original_max_position_embeddings": "original"}
SCALINGS = {
  "default": ("rope", {}),
  "linear": ("rope_linear", {"factor": "factor"}),
  "dynamic": (
    "rope_dynamic", {"factor": "factor", "max_position_embeddings": "original"},
  ),
  "llama3": (
    "rope_llama3", LENGTH | {"high_freq_factor": "fast", "low_freq_factor": "slow"},
  ),
  "yarn": (
    "rope_yarn",
    LENGTH | {"beta_fast": "fast", "beta_slow": "slow", "truncate": "truncate"},
  ),
}  # fmt: skip
OPTIONAL = ("beta_fast", "beta_slow", "truncate")
USUAL = ("rope_type", "type", "rope_theta", "partial_rotary_factor")


def rope(config: Words, base: float = 10_000.0, **more: object) -> PositionalEncoding:
  """Returns the rotary encoding of a config, old style or new.

  base   where config.json has none
  more   further arguments of the encoding
  """
  new, old = "rope_parameters", "rope_scaling"
  words = config.part(new if config.get(new) else old)
  words |= {"rope_type": words.get("rope_type", words.get("type", "default"))}
  name, arguments = words.choose("rope_type", SCALINGS)
  check(words, arguments)
  given = words | lengths(config, words)
  for theirs, ours in arguments.items():
    if theirs not in OPTIONAL or words.get(theirs) is not None:
      more[ours] = given[theirs]
  more["base"] = words.get("rope_theta", config.get("rope_theta", base))
  share = words.get("partial_rotary_factor", config.get("partial_rotary_factor"))
  more |= {"fraction": share} if share is not None else {}
  written = ", ".join(f"{name}={value!r}" for name, value in more.items())
  return positions.build(f"{name}({written})")


def check(words: Words, arguments: dict[str, str]) -> None:
  """Raises ValueError if a word says something that is not read."""
  known = (*USUAL, *arguments)
  others = [w for w, x in words.config.items() if x is not None and w not in known]
  if others:
    raise ValueError(
      f"config.json says {', '.join(others)} of rotary positions of the kind"
      f" {words['rope_type']}, which is not read here; only {', '.join(known)} are"
    )


def lengths(config: Words, words: Words) -> dict[str, int | None]:
  """Returns how long texts may be, and were before a scaling."""
  now, before = "max_position_embeddings", "original_max_position_embeddings"
  original = config.get(before, words.get(before, config.get(now)))
  return {before: original, now: config.get(now)}
