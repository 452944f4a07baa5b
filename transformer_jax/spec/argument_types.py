"""Types of arguments, as classes annotate them, and checks of values against them."""

import ast
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


def words(kind: Any) -> tuple[str, ...]:
  """Returns the words that an argument of a type `Literal` may be, else ().

  >>> words(typing.Literal["low", "high"])
  ('low', 'high')
  """
  return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()


def fits(value: Any, kind: Any) -> bool:
  """Returns whether a value is of a type; True for types without a check."""
  origin, inner = typing.get_origin(kind), typing.get_args(kind)
  if words(kind):
    return value in inner
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
  if words(kind):
    return f"one of {', '.join(inner)}"
  if origin in (typing.Union, types.UnionType):
    return " or ".join(map(wanted, inner))
  if origin is tuple:
    if Ellipsis in inner:
      return f"a tuple, each of it {wanted(inner[0])}"
    return f"a tuple of {', '.join(map(wanted, inner))}"
  return WORDS.get(kind) or f"a {kind.__name__}, by its name"


def with_words(cls: type, call: ast.Call) -> ast.Call:
  """Returns a call in which the words of arguments of type `Literal` are texts."""
  kinds, names = types_of(cls), [*inspect.signature(cls).parameters]

  def text(name: str | None, node: ast.expr) -> ast.expr:
    is_word = isinstance(node, ast.Name) and bool(words(kinds.get(name or "")))
    return ast.Constant(ast.unparse(node)) if is_word else node

  names += [""] * len(call.args)  # too many arguments are refused later
  args = [text(*each) for each in zip(names, call.args, strict=False)]
  keywords = [ast.keyword(k.arg, text(k.arg, k.value)) for k in call.keywords]
  return ast.Call(call.func, args, keywords)
