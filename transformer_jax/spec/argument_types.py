"""Types of arguments, as classes annotate them, and checks of values against them."""

import inspect
import types
import typing
from typing import Any

WORDS = {
  bool: "True or False",
  int: "a whole number",
  float: "a number",
  str: "a text in quotes",
  type(None): "None",
}


def types_of(cls: type) -> dict[str, Any]:
  """Returns the annotated types of a class's arguments, also of users' classes."""
  try:
    return typing.get_type_hints(inspect.getattr_static(cls, "__init__"))
  except (NameError, TypeError):
    return {}


def fits(value: Any, kind: Any) -> bool:
  """Returns whether a value is of a type; True for types without a check."""
  origin, inner = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return any(fits(value, one) for one in inner)
  if origin is tuple:
    if not isinstance(value, tuple):
      return False
    kinds = inner[:1] * len(value) if Ellipsis in inner else inner
    return len(kinds) == len(value) and all(map(fits, value, kinds))
  if kind in (int, float):  # True is an int in Python
    number = int if kind is int else (int, float)
    return isinstance(value, number) and not isinstance(value, bool)
  return kind is Any or not isinstance(kind, type) or isinstance(value, kind)


def wanted(kind: Any) -> str:
  """Returns a description of a type's values, for messages."""
  origin, inner = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return " or ".join(map(wanted, inner))
  if origin is tuple:
    if Ellipsis in inner:
      return f"a tuple, each of it {wanted(inner[0])}"
    return f"a tuple of {', '.join(map(wanted, inner))}"
  return WORDS.get(kind) or f"a {kind.__name__}, by its name"
