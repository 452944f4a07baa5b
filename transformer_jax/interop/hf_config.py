"""HuggingFace's config.json, with a record of the keys that were read."""

from collections.abc import Mapping
from typing import Any

from transformer_jax.interop.checkpoint_files import Config
from transformer_jax.spec import nearest


class HFConfig:
  """A config.json with a record of the keys that were read.

  A required key that is missing or null raises ValueError.

  config     the keys with their values
  read       keys that were read; configs derived from this one share the set
  replaced   keys with values from elsewhere; reading them is not recorded

  >>> config = HFConfig({"hidden_size": 64, "use_cache": True})
  >>> config.whole("hidden_size"), config.flag("tie_word_embeddings", False)
  (64, False)
  """

  def __init__(
    self,
    config: Config,
    read: set[str] | None = None,
    replaced: frozenset[str] = frozenset(),
  ):
    self.config, self.replaced = config, replaced
    self.read = set() if read is None else read

  def __getitem__(self, word: str) -> Any:
    if self.get(word) is None:
      near = nearest(word, self.config.keys() - {word})
      raise ValueError(f"config.json has no '{word}'; write it there.{near}")
    return self.config[word]

  def __or__(self, more: Config) -> "HFConfig":
    """Returns the config with added or replaced keys."""
    return type(self)(self.config | more, self.read, self.replaced | more.keys())

  def get(self, word: str, default: Any = None) -> Any:
    if word not in self.replaced:
      self.read.add(word)
    value = self.config.get(word)
    return default if value is None else value

  def whole(self, word: str, default: int | None = None) -> int:
    """Returns an integer from 1; the default is not checked."""
    if default is not None and self.get(word) is None:
      return default
    if type(self[word]) is not int or self[word] < 1:
      raise ValueError(
        f"config.json says {word}={self[word]!r}; write a whole number from 1"
      )
    return self[word]

  def number(self, word: str, default: float | None = None) -> float:
    """Returns a number; the default is not checked."""
    if default is not None and self.get(word) is None:
      return default
    if isinstance(self[word], bool) or not isinstance(self[word], (int, float)):
      raise ValueError(f"config.json says {word}={self[word]!r}; write a number")
    return self[word]

  def many(self, word: str, default: list[Any]) -> list[Any]:
    """Returns a list."""
    value = self.get(word, default)
    if not isinstance(value, list):
      raise ValueError(f"config.json says {word}={value!r}; write a list")
    return value

  def flag(self, word: str, default: bool) -> bool:
    """Returns true or false."""
    return self.choose(word, {True: True, False: False}, default)

  def part(self, word: str) -> "HFConfig":
    """Returns the nested config of a key, empty if it is missing."""
    value = self.get(word, {})
    if not isinstance(value, dict):
      raise ValueError(f"config.json says {word}={value!r}; write words with values")
    return type(self)(value)

  def choose(self, word: str, choices: Mapping[Any, Any], default: Any = None) -> Any:
    """Returns the choice that belongs to a key's value. Raises ValueError."""
    value = self.get(word, default)
    if value not in list(choices):
      raise ValueError(
        f"config.json says {word}={value!r}, which is not read here; choose from"
        f" {', '.join(map(str, choices))}"
      )
    return choices[value]

  def need(self, **values: Any) -> None:
    """Raises ValueError if a key has another value than the only supported one."""
    for word, value in values.items():
      self.choose(word, {value: None}, default=value)

  def same(self, word: str, other: str) -> None:
    """Raises ValueError if two keys have different values."""
    if self.get(word, self[other]) != self[other]:
      raise ValueError(
        f"config.json says {word}={self[word]!r} and {other}={self[other]!r}; models in"
        " which they differ are not read here"
      )

  def check_read(self, harmless: set[str], where: str = "config.json") -> None:
    """Raises ValueError with the unread keys. Null and empty values are ignored.

    harmless   keys that do not change a model's outputs
    """
    known = self.read | self.replaced | harmless
    unread = {
      word: value
      for word, value in self.config.items()
      if word not in known and value not in (None, {}, [], "")
    }
    if unread:
      said = ", ".join(f"{word}={value!r:.60}" for word, value in unread.items())
      near = nearest(next(iter(unread)), self.read)
      raise ValueError(
        f"{where} says {said}, which nothing here follows, so that the model would be"
        " another one; remove what changes nothing of what is computed, and use"
        f" HuggingFace's own code for the rest.{near}"
      )
