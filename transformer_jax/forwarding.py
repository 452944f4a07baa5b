"""Classes that forward members: a wrapper to its inner object, a sum to its parts.

`forward` covers every member of a base class. A new member is forwarded, or the import
fails until the class defines it.
"""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, overload

from transformer_jax.members import HOOK, members

Value = TypeVar("Value")


def forward(
  cls: type,
  base: type,
  hook: Callable[[str], Any] | None = None,
  value: Callable[[str], Any] | None = None,
) -> None:
  """Adds each public member of a base class that a class does not define itself.

  cls     the class that forwards to other objects of the base
  base    the class with the hooks and declarations to forward
  hook    (name) -> attribute that forwards this hook, or None: cls must define it
  value   the same for a declaration

  Raises TypeError with the members that cls would otherwise silently inherit.
  """
  open_members = {n: kind for n, kind in members(base).items() if n not in vars(cls)}
  made = {n: (hook if kind is HOOK else value) for n, kind in open_members.items()}
  made = {name: make and make(name) for name, make in made.items()}
  if missing := [name for name, member in made.items() if member is None]:
    raise TypeError(
      f"{cls.__name__} does not define {', '.join(missing)} of {base.__name__}, and"
      " would inherit what other objects have to answer; define it in the class"
    )
  for name, member in made.items():
    setattr(cls, name, member)


def of_field(field: str) -> Callable[[str], property]:
  """Returns a factory of properties that forward to the object in a field."""

  def make(name: str) -> property:
    return property(lambda self: getattr(getattr(self, field), name))

  return make


def of_first_layer(name: str) -> property:
  """Returns a property that forwards to the object of layer 0."""
  return property(lambda self: getattr(self.layer(0), name))


class computed(Generic[Value]):  # noqa: N801, a decorator
  """A declaration that depends on an object's fields; used as `property` is.

  Type checkers let it stand in place of a base class's plain value:

  >>> class Base:
  ...   relative = True
  >>> class Absolute(Base):
  ...   @computed
  ...   def relative(self) -> bool:
  ...     return False
  >>> Absolute().relative
  False
  """

  def __init__(self, function: Callable[[Any], Value]):
    self.function, self.__doc__ = function, function.__doc__

  @overload
  def __get__(self, thing: None, owner: type) -> "computed[Value]": ...

  @overload
  def __get__(self, thing: object, owner: type) -> Value: ...

  def __get__(self, thing, owner):
    return self if thing is None else self.function(thing)


class Combined:
  """Declaration of an object with `parts`, combined from the declarations of the parts.

  combine   gets the values of the parts, in their order: `relative = Combined(all)`

  >>> class Part:
  ...   def __init__(self, relative):
  ...     self.relative = relative
  >>> class Sum:
  ...   relative = Combined(all)
  ...   parts = Part(True), Part(False)
  >>> Sum().relative
  False
  """

  def __init__(self, combine: Callable[[Iterable[Any]], Any]):
    self.combine = combine

  def __set_name__(self, owner: type, name: str) -> None:
    self.name = name

  def __get__(self, thing: Any, owner: type | None = None) -> Any:
    if thing is None:
      return self
    return self.combine(getattr(part, self.name) for part in thing.parts)
