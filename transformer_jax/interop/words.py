"""The words of a config.json."""

from typing import Any

from transformer_jax.interop.files import Config
from transformer_jax.spec import nearest


class Words:
  """The words of a config.json; one that is missing, or null, raises ValueError."""

  def __init__(self, config: Config):
    self.config = config

  def __getitem__(self, word: str) -> Any:
    if self.get(word) is None:
      near = nearest(word, self.config.keys() - {word})
      raise ValueError(f"config.json has no '{word}'; write it there.{near}")
    return self.config[word]

  def __or__(self, more: Config) -> "Words":
    """Returns the words with more, or others."""
    return type(self)(self.config | more)

  def get(self, word: str, default: Any = None) -> Any:
    value = self.config.get(word)
    return default if value is None else value

  def whole(self, word: str, default: int | None = None) -> int:
    """Returns a size, from 1; the default may be anything."""
    if default is not None and self.get(word) is None:
      return default
    if type(self[word]) is not int or self[word] < 1:
      raise ValueError(
        f"config.json says {word}={self[word]!r}; write a whole number from 1"
      )
    return self[word]

  def part(self, word: str) -> "Words":
    """Returns the words under a word, none if it is missing."""
    value = self.get(word, {})
    if not isinstance(value, dict):
      raise ValueError(f"config.json says {word}={value!r}; write words with values")
    return type(self)(value)

  def choose(self, word: str, choices: dict[str, Any], default: Any = None) -> Any:
    """Returns what a word's value stands for."""
    value = self.get(word, default)
    if value not in list(choices):
      raise ValueError(
        f"config.json says {word}={value!r}, which is not read here; choose from"
        f" {', '.join(map(str, choices))}"
      )
    return choices[value]

  def need(self, **values: Any) -> None:
    """Raises ValueError where a word has another value than the only one served."""
    for word, value in values.items():
      self.choose(word, {value: None}, default=value)

  def same(self, word: str, other: str) -> None:
    """Raises ValueError where two words that may differ have not one value."""
    if self.get(word, self[other]) != self[other]:
      raise ValueError(
        f"config.json says {word}={self[word]!r} and {other}={self[other]!r}; models in"
        " which they differ are not read here"
      )

  def bare(self, *endings: str) -> bool:
    """Says whether the model was saved without an output head."""
    names = self.get("architectures", ())
    return bool(names) and not any(names[0].endswith(end) for end in endings)
