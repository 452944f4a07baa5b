"""Rotary encodings described by config.json."""

import math
from typing import Any

from transformer_jax.interop.hf_config import HFConfig
from transformer_jax.positions import PositionalEncoding, positions

# HuggingFace's rope_type: our encoding, and our argument for each of its keys.
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
  "longrope": (
    "longrope", LENGTH | {"short_factor": "short", "long_factor": "long"},
  ),
}  # fmt: skip
OPTIONAL = ("beta_fast", "beta_slow", "truncate")
LISTS = ("short_factor", "long_factor")
SHARE = "partial_rotary_factor"
USUAL = ("rope_type", "type", "rope_theta", SHARE)
OF = ("", "original_")
GROWTH = ("attention_factor", "mscale", "mscale_all_dim")


def rope(
  config: HFConfig,
  base: str = "rope_theta",
  share: str = "",
  usual: float = 1.0,
  interleaved: bool = False,
  reverse: bool = False,
) -> PositionalEncoding:
  """Returns the rotary encoding of a config, old style or new.

  config        of the model
  base          top-level key of the base
  share         key of the fraction of rotated features; "": all are rotated
  usual         default of that fraction
  interleaved   whether the features of a pair are adjacent
  reverse       whether they turn by the negative angle
  """
  new, old = "rope_parameters", "rope_scaling"
  words = config.part(old) if config.get(old) else config.part(new)
  words |= {"rope_type": words.get("rope_type", words.get("type", "default"))}
  name, arguments = words.choose("rope_type", SCALINGS)
  check(words, arguments)
  given = words | lengths(config, words)
  more = _scaling(words, given, arguments)
  more["base"] = words.number("rope_theta", config.number(base, 10_000.0))
  fraction = words.number("partial_rotary_factor", config.number(share or SHARE, usual))
  if not share and fraction != 1:
    raise ValueError(
      f"config.json says {SHARE}={fraction}, and all features turn in this family;"
      f" remove it, or write {SHARE}=1.0"
    )
  more |= {"fraction": fraction} if fraction != 1 else {}
  more |= {"interleaved": True} if interleaved else {}
  more |= {"reverse": True} if reverse else {}
  written = ", ".join(f"{name}={value!r}" for name, value in more.items())
  return positions.build(f"{name}({written})")


def _scaling(
  words: HFConfig, given: HFConfig, arguments: dict[str, str]
) -> dict[str, Any]:
  """Returns the encoding's arguments for longer texts than those of pretraining.

  words       the config's part on rotary encodings
  given       the same with lengths that stand elsewhere in the config
  arguments   {key of the config: argument of the encoding}
  """
  more: dict[str, Any] = {}
  if words["rope_type"] == "longrope" and words.get("factor") is None:
    now, before = (given.whole(f"{word}max_position_embeddings") for word in OF)
    given |= {"factor": now / before}
  for theirs, ours in arguments.items():
    if theirs in LISTS:
      more[ours] = divisors(given, theirs)
    elif theirs not in OPTIONAL:
      more[ours] = given.number(theirs)
    elif words.get(theirs) is not None:
      more[ours] = given[theirs]
  if words["rope_type"] == "yarn":
    more |= growth(words, more["factor"])
  if words["rope_type"] == "longrope":
    more["factor"] = stretch(words, more["factor"], more["original"])
  return more


def rope_of_kind(
  config: HFConfig, kind: str, word: str, base: float, scaled: bool
) -> PositionalEncoding:
  """Returns the rotary encoding of the layers of one kind, new style or old.

  config   of the model
  kind     key of the kind in the new style's rope_parameters
  word     key of its base in the old style
  base     HuggingFace's default base
  scaled   whether the old style's rope_scaling applies to this kind
  """
  own = config.part("rope_parameters").part(kind).config
  scaling = config.part("rope_scaling").config if scaled else {}
  words = {"rope_theta": config.number(word, base)} | own | scaling
  return rope(config | {"rope_parameters": words, "rope_scaling": None})


def growth(words: HFConfig, factor: float) -> dict[str, float]:
  """Returns the `mscale` argument of YaRN: the growth of rotated features.

  Two numbers (mscale) are a quotient, as in HuggingFace's Llama; DeepSeek's code
  scales whole scores by the second one.
  """
  own, both = words.number("attention_factor", 0.0), None
  one, other = (words.number(word, 0.0) for word in GROWTH[1:])
  log = 0.1 * math.log(factor) if factor > 1 else 0.0
  if one and other:
    both = (one * log + 1) / (other * log + 1)
  grown = own or both
  if not grown:
    return {}
  if not log:
    raise ValueError(
      f"config.json says that rotary positions grow by {grown} with factor={factor};"
      " write a factor above 1"
    )
  return {"mscale": (grown - 1) / log}


def stretch(words: HFConfig, factor: float, original: int) -> float:
  """Returns the factor at which LongRoPE has the attention_factor of config.json."""
  grown = words.number("attention_factor", 0.0)
  if not grown:
    return max(factor, 1.0)
  if grown < 1:
    raise ValueError(
      f"config.json says attention_factor={grown} of longrope, with which features"
      " shrink; write 1.0 or more"
    )
  return original ** (grown**2 - 1)


def divisors(words: HFConfig, word: str) -> tuple[float, ...]:
  """Returns a non-empty list of numbers. Raises ValueError."""
  numbers = words.many(word, [])
  if not numbers:
    raise ValueError(f"config.json has no '{word}'; write a number for each pair there")
  return tuple((words | {word: number}).number(word) for number in numbers)


def check(words: HFConfig, arguments: dict[str, str]) -> None:
  """Raises ValueError for keys of rotary positions that are not read."""
  grow = {"yarn": GROWTH, "longrope": GROWTH[:1]}.get(words["rope_type"], ())
  known = (*USUAL, *arguments, *grow)
  others = [w for w, x in words.config.items() if x is not None and w not in known]
  if others:
    raise ValueError(
      f"config.json says {', '.join(others)} of rotary positions of the kind"
      f" {words['rope_type']}, which is not read here; only {', '.join(known)} are"
    )


def lengths(config: HFConfig, words: HFConfig) -> dict[str, int | None]:
  """Returns the largest text length, and that before the scaling."""
  now, before = "max_position_embeddings", "original_max_position_embeddings"
  original = config.get(before, words.get(before, config.get(now)))
  return {before: original, now: config.get(now)}
