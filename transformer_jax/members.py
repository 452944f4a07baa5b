"""Checks of the members of users' classes: misspelt, hidden, wrong arguments."""

import dataclasses
import difflib
import inspect
import pathlib
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

from transformer_jax.spec import SpecError

PACKAGE = __name__.partition(".")[0]
HOOK, VALUE = "a hook", "a declaration"

# Members under their former names, by base class: a class that has one is told so.
RENAMED = {
  "PositionalEncoding": {
    "place": "assign_positions",
    "turn": "transform_qk",
    "rows": "full_scores",
    "reach": "num_positions",
    "settled": "stable_length",
    "whole_numbers": "integer_positions",
    "whole_text": "needs_full_text",
    "from_middle": "centred",
    "longer": "extrapolation",
  },
  "Variant": {"seen": "mask", "extra": "sink_logit"},
}


def outside(cls: type) -> bool:
  """Returns whether a class is defined outside of this package."""
  return cls.__module__.partition(".")[0] != PACKAGE


def parts(thing: Any, base: type) -> Iterator[Any]:
  """Yields an object and all objects in its fields that are instances of a base."""
  if isinstance(thing, tuple):
    for one in thing:
      yield from parts(one, base)
  elif isinstance(thing, base):
    yield thing
    for field in dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ():
      yield from parts(getattr(thing, field.name, None), base)


def check_members(thing: Any, base: type, by_name: Iterable = (), **optional: Any):
  """Raises SpecError where a user's class misuses the members of its base.

  base       base class with the hooks and declarations
  by_name    arguments that are passed to hooks by name
  optional   functions with the signatures of hooks that the base does not define
  """
  related = [c for c in type(thing).__mro__ if issubclass(c, base) or c in base.__mro__]
  ours = [c for c in related if c is not object and not outside(c)]
  known: dict[str, str] = {}
  for cls in reversed(ours):
    known |= members(cls)
  hooks = {n: vars(c)[n] for c in reversed(ours) for n in vars(c)} | optional
  theirs = [c for c in type(thing).__mro__ if outside(c) and c is not object]
  for cls in theirs:
    _check_class(cls, base, known, hooks, by_name)
    for name, value in vars(cls).items():
      inherited = any(hasattr(c, name) for c in ours)
      if not (name.startswith("_") or name in known or inherited):
        _check_unknown(cls, theirs, base, name, value, known, hooks)
  for name, kind in members(base).items():
    if kind is VALUE:
      _check_value(thing, base, name)
  try:
    hash(thing)
  except TypeError as error:
    raise SpecError(
      f"{type(thing).__name__} must be a constant to be compiled, and {error}; make it"
      " a frozen dataclass whose fields are numbers, texts and tuples"
    ) from error


def members(cls: type) -> dict[str, str]:
  """Returns the public members of a class and its bases: {name: HOOK or VALUE}."""
  found: dict[str, str] = {}
  for base in reversed(cls.__mro__[:-1]):
    own, types = vars(base), vars(base).get("__annotations__", {})
    for name in (*types, *own):
      if not name.startswith("_"):
        is_hook = inspect.isfunction(own.get(name)) or "Callable" in str(
          types.get(name)
        )
        found[name] = HOOK if is_hook else VALUE
  return found


def _check_class(cls: type, base: type, known: dict, hooks: dict, by_name: Iterable):
  """Checks the public members of one class of a user.

  cls       the user's class
  base      its base class in this package
  known     members of the package's classes: {name: HOOK or VALUE}
  hooks     hooks of the package's classes, by name
  by_name   arguments that are passed to hooks by name
  """
  fields = dict.fromkeys(getattr(cls, "__annotations__", ()))
  for name, value in (fields | dict(vars(cls))).items():
    if name.startswith("_"):
      continue
    if name in known:
      _check_known(cls, base, name, value, known[name])
      if inspect.isfunction(value) and inspect.isfunction(hooks.get(name)):
        _check_arguments(cls, name, value, hooks[name], by_name)


def _check_known(cls: type, base: type, name: str, value: Any, kind: str) -> None:
  """Checks that a member overrides one of its kind: a hook, or a declaration.

  cls     the user's class
  base    its base class
  name    of the member
  value   the member in the user's class; None where it is only annotated
  kind    HOOK or VALUE, in the base class
  """
  is_field = name in getattr(cls, "__annotations__", ()) or value is not None
  bound = callable(value) or hasattr(type(value), "__get__")
  if kind is HOOK and is_field and not bound:
    raise SpecError(
      f"{cls.__name__}.{name} hides the hook {name} of {base.__name__}; give the field"
      " another name"
    )
  if kind is VALUE and inspect.isfunction(value):
    raise SpecError(
      f"{cls.__name__}.{name} is a method, and {name} is {VALUE}; write {name} = ... in"
      " the class, or put @property above it"
    )


def _check_arguments(cls: type, name: str, method: Any, hook: Any, by_name: Iterable):
  """Checks that a hook accepts the arguments of the base's hook.

  cls       the user's class
  name      of the hook
  method    the user's function
  hook      the base's function
  by_name   arguments that are passed by name
  """
  wanted = inspect.signature(hook).parameters
  try:
    named = {name: None for name in by_name if name in wanted}
    inspect.signature(method).bind(*wanted)
    inspect.signature(method).bind_partial(**named)
  except TypeError as error:
    has, want = (", ".join(inspect.signature(f).parameters) for f in (method, hook))
    raise SpecError(
      f"{cls.__name__}.{name} takes ({has}); write def {name}({want})"
    ) from error


def _check_unknown(cls, theirs, base: type, name: str, value: Any, known, hooks):
  """Checks that an unknown member is not a misspelt member of the base.

  cls      the user's class that has the member
  theirs   all of the user's classes in the method resolution order
  base     the base class
  name     of the member
  value    the member
  known    members of the package's classes: {name: HOOK or VALUE}
  hooks    hooks of the package's classes, by name
  """
  if _is_method(value) and any(_used(c, name) for c in theirs):
    return  # a helper that another method of the user calls
  present = RENAMED.get(base.__name__, {}).get(name)
  if present and name not in getattr(cls, "__annotations__", ()):
    raise SpecError(f"{cls.__name__}.{name} is called {present}")
  fields = {n for c in cls.__mro__ for n in getattr(c, "__dataclass_fields__", ())}
  near = [n for n in known if n not in fields or n in members(base)]
  near = [n for n in near if _meant(name, value, known[n], hooks.get(n), n)]
  near = [other for other in near if not any(other in vars(c) for c in theirs)]
  if near:
    best = max(near, key=lambda other: _similarity(name, other))
    raise SpecError(
      f"{cls.__name__}.{name} is not {known[best]} of {base.__name__} and would change"
      f" nothing; rename it to {best}, or to _{name} if it is your own"
    )


def _similarity(one: str, other: str) -> float:
  return difflib.SequenceMatcher(None, one, other).ratio()


def _meant(name: str, value: Any, kind: str, member: Any, other: str) -> bool:
  """Returns whether an unknown member is likely a misspelt member of the base.

  A similar name is not enough: arguments, or types, must agree as well.

  name     of the unknown member
  value    the unknown member
  kind     HOOK or VALUE, of the member of the base
  member   the member of the base; None where the base has no default
  other    its name
  """
  like = _similarity(name, other)
  if isinstance(value, property):
    return kind is VALUE and like > 0.88
  if not inspect.isfunction(value):
    alike = member is None or value is None or type(value) is type(member)
    return kind is VALUE and like > 0.8 and alike
  if kind is not HOOK:
    return False
  if not inspect.isfunction(member):  # a hook that the base leaves out
    return like > 0.8
  given, wanted = (list(inspect.signature(f).parameters) for f in (value, member))
  return like > (0.6 if given == wanted and len(given) > 2 else 0.8) and (
    len(given) == len(wanted)
  )


def _is_method(value: Any) -> bool:
  is_function = inspect.isfunction(value) or inspect.isbuiltin(value)
  return is_function or isinstance(value, (staticmethod, classmethod, property))


def _used(cls: type, name: str) -> bool:
  """Returns whether the code of a class's members refers to a name."""
  return any(name in _names(value) for value in vars(cls).values())


def _names(value: Any) -> set[str]:
  """Returns the names in the code of a method, inner functions included."""
  value = getattr(value, "fget", None) or getattr(value, "__func__", value)
  code = getattr(value, "__code__", None)
  found, todo = set(), [code] if code else []
  while todo:
    code = todo.pop()
    found |= {*code.co_names}
    todo += [const for const in code.co_consts if inspect.iscode(const)]
  return found


def _check_value(thing: Any, base: type, name: str) -> None:
  """Checks that a declaration has the type of its default."""
  default = getattr(base, name, None)
  if default is None or isinstance(default, property):
    return
  value = getattr(thing, name)
  if not isinstance(value, type(default)):
    raise SpecError(
      f"{type(thing).__name__}.{name} is {value!r}; write {name} = {default!r}, or"
      f" another value of that kind"
    )


def call(where: str, function: Any, *args: Any, known: str = "") -> Any:
  """Returns `function(*args)`; raises SpecError, naming the hook, where it fails.

  known: names of the existing parameters, for the message of a KeyError
  """
  try:
    return function(*args)
  except SpecError:
    raise
  except KeyError as error:
    (name,) = error.args or ("",)
    hint = f"; write ids = ('{name}',) in the class if the task supplies it" * (
      str(name).endswith("_BL")
    )
    raise SpecError(
      f"{where} reads '{name}', which it does not get; it has"
      f" {known or 'no parameters'}{hint}"
    ) from error
  except Exception as error:  # a user's code may raise anything
    raise failed(where, error) from error


def failed(where: str, error: BaseException) -> SpecError:
  """Returns the SpecError of a hook that raises, with the line of the user's file."""
  first = str(error).strip().partition("\n")[0]
  return SpecError(f"{where} fails{_line(error)}: {type(error).__name__}: {first}")


def _line(error: BaseException) -> str:
  """Returns " in line N of FILE": the innermost frame in a user's file, else ""."""
  own = ""
  for frame, line in traceback.walk_tb(error.__traceback__):
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    path = pathlib.Path(frame.f_code.co_filename)
    if package != PACKAGE and "site-packages" not in path.parts:
      own = f" in line {line} of {path.name}"
  return own


def kind_of(thing: Any) -> str:
  """Returns an object's type in words, for messages: "a list"."""
  return "None" if thing is None else f"a {type(thing).__name__}"
