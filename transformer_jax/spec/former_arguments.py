"""Errors of classes that are called with an argument they do not have."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from transformer_jax.spec.errors import SpecError, nearest

Class = TypeVar("Class", bound=type)


def explain_arguments(**former: str) -> Callable[[Class], Class]:
  """Returns a class decorator: an unknown argument raises SpecError with a suggestion.

  former   {former argument: a clause that says what to write now}

  >>> import transformer_jax as tj
  >>> try:
  ...   tj.Architecture(placement="pre")
  ... except tj.SpecError as error:
  ...   print(error)
  Architecture has no argument 'placement': it is called norm_placement
  """

  def explained(cls: Class) -> Class:
    init: Any = inspect.getattr_static(cls, "__init__")
    names = [*inspect.signature(init).parameters][1:]

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **named: Any) -> None:
      for name in named:
        if name not in names:
          raise SpecError(_sentence(cls.__name__, name, names, former))
      init(self, *args, **named)

    setattr(cls, "__init__", checked)  # noqa: B010, mypy refuses the assignment
    return cls

  return explained


def _sentence(cls: str, name: str, names: list[str], former: dict[str, str]) -> str:
  start = f"{cls} has no argument '{name}'"
  if name in former:
    return f"{start}: {former[name]}"
  return f"{start}.{nearest(name, names)} It takes {', '.join(names)}"
