"""One string is one choice: `rope(base=5e5)`, `my_pkg.spiral:Spiral(turns=3)`.

A spec is a name with literal arguments, which may be specs or tuples of specs:
`randomized(by_layer((rope(base=5e5), alibi)))`. Some kinds can be added up:
`gqa(2) + window(256)`. `Registry.build` makes the object.
"""

import ast
import contextlib
import contextvars
import difflib
import importlib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from transformer_jax.sense import allowed

# JAX makes a key of the last 32 bits of a number: larger seeds would be other ones.
LARGEST_SEED = 2**32 - 1
LONGEST, DEEPEST = 20_000, 60  # characters of a spec, and levels of its syntax tree

# Importing a module runs it, so a file of somebody else may name no module. These two
# say whose specs are being built, and which classes the user named himself.
_source: contextvars.ContextVar[str] = contextvars.ContextVar("source", default="")
_trusted: set[str] = set()


class SpecError(ValueError):
  """A spec that cannot be built; the message says what to write instead."""


def trust(classes: Iterable[str]) -> None:
  """Lets files of others name these classes, each as `module:Class`."""
  for name in classes:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
      raise SpecError(f"--allow={name}: write module:Class, as in my_file:MyEncoding")
    _trusted.add(name)


@contextlib.contextmanager
def registered_only(source: str) -> Iterator[None]:
  """Refuses classes outside the registries, unless the user named them himself.

  source   the file of somebody else whose specs are built meanwhile, for messages
  """
  token = _source.set(source)
  try:
    yield
  finally:
    _source.reset(token)


def check_seed(seed: int) -> None:
  """Raises SpecError unless a seed is one of its own."""
  if not 0 <= seed <= LARGEST_SEED:
    raise SpecError(f"seed={seed}: a seed has 32 bits; write 0 to {LARGEST_SEED}")


def nearest(name: str, choices: Iterable[str]) -> str:
  """Returns `" Did you mean 'rope'?"` for `rop`, or "" when nothing is near."""
  close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
  return f" Did you mean '{close[0]}'?" if close else ""


# Arguments by names that they no longer have.
RENAMED = {
  "longest": ("max_positions", "max_distance", "max_length"),
  "furthest": ("max_distance", "max_offset", "max_shift"),
}


def renamed(name: str, choices: Iterable[str]) -> str:
  """Returns `" furthest is called max_distance."` for an argument's old name, or ""."""
  now = [new for new in RENAMED.get(name, ()) if new in choices]
  return f" {name} is called {now[0]}." if now else ""


def outside(spec: str) -> set[str]:
  """Returns the modules that a spec names classes of, as in `module:Class`."""
  try:
    tree = ast.parse(_imports_as_attributes(spec.strip()), mode="eval")
  except SyntaxError:
    return set()
  paths = (ast.unparse(x) for x in ast.walk(tree) if isinstance(x, ast.Attribute))
  return {path.split(IMPORT)[0] for path in paths if IMPORT in path}


class Registry(Mapping[str, type]):
  """Maps names to classes of one base and builds objects of them from specs."""

  def __init__(
    self, kind: str, base: type, combine: Callable[[tuple], Any] | None = None
  ):
    """Makes an empty registry.

    kind      what messages call an object
    base      every class must inherit it, also those that are named as module:Class
    combine   makes one object of several; specs may then be added up
    """
    self.kind = kind
    self.base = base
    self._combine = combine
    self._classes: dict[str, type] = {}

  def __getitem__(self, name: str) -> type:
    return self._classes[name]

  def __iter__(self) -> Iterator[str]:
    return iter(sorted(self._classes))

  def __len__(self) -> int:
    return len(self._classes)

  def register(self, name: str) -> Callable[[type], type]:
    """Adds the decorated class under `name`."""

    def add(cls: type) -> type:
      if name in self._classes:
        raise SpecError(f"{self.kind} '{name}' is registered twice; rename one of them")
      self._classes[name] = self._inheriting(cls, name)
      return cls

    return add

  def name_of(self, thing: Any) -> str:
    """Returns the name under which an object's class is registered, or its own."""
    kind = type(thing)
    return next((n for n in self if self[n] is kind), kind.__name__)

  def build(self, spec: Any) -> Any:
    """Returns the object that `spec` describes; an object is returned unchanged."""
    if not isinstance(spec, str):
      return spec
    return self._object(self._parse(spec), spec)

  def _parse(self, spec: str) -> ast.expr:
    if len(spec) > LONGEST:
      raise SpecError(
        f"{self.kind} '{_short(spec)}' has {len(spec)} characters; write {LONGEST} or"
        " less"
      )
    try:
      node = ast.parse(_imports_as_attributes(spec.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
      raise SpecError(
        f"cannot read {self.kind} '{_short(spec)}': write name, name(argument=value)"
        " or module:Class(argument=value), with quotes around texts and other quotes"
        " around the whole flag, which a shell takes away"
      ) from error
    if _depth(node) > DEEPEST:
      raise SpecError(
        f"{self.kind} '{_short(spec)}' is nested more than {DEEPEST} levels deep; write"
        " a simpler one"
      )
    return node

  def _object(self, node: ast.expr, spec: str) -> Any:
    if self._combine and isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
      return self._combine(tuple(self._terms(node, spec)))
    return self._call(node, spec)

  def _terms(self, node: ast.expr, spec: str) -> Iterator[Any]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
      yield from self._terms(node.left, spec)
      yield from self._terms(node.right, spec)
    else:
      yield self._call(node, spec)

  def _call(self, node: ast.expr, spec: str) -> Any:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    cls = self._find(call.func, spec)
    if not all(arg.arg for arg in call.keywords):
      raise SpecError(f"{self.kind} '{spec}': ** is not read here; name each argument")
    self._check_quotes(cls, call, spec)
    args = [self._value(arg, spec) for arg in call.args]
    kwargs = {arg.arg: self._value(arg.value, spec) for arg in call.keywords if arg.arg}
    values = self._check(cls, args, kwargs, spec)
    try:
      made = cls(*args, **kwargs)
    except (TypeError, AttributeError):  # no class has to expect any type
      self._check_types(cls, values, spec)
      raise
    # After what the class says in its own words.
    self._check_types(cls, values, spec)
    self._check_sense(cls, values, spec)
    return made

  def _check_sense(self, cls: type, values: Mapping[str, Any], spec: str) -> None:
    """Raises SpecError with a number that an argument of that name cannot have.

    What a class of a user's own means by a name is not known here.
    """
    if cls.__module__.partition(".")[0] != __name__.partition(".")[0]:
      return
    for name, value in values.items():
      if words := allowed(name, value):
        raise SpecError(f"{self.kind} '{spec}': {name} is {value!r}; write {words}")

  def _check_quotes(self, cls: type, call: ast.Call, spec: str) -> None:
    """Raises SpecError with a text that lost its quotes, as shells take them away."""
    kinds, names = _types(cls), inspect.signature(cls).parameters
    given = [*zip(names, call.args, strict=False)]
    given += [(word.arg, word.value) for word in call.keywords if word.arg]
    for name, node in given:
      bare = isinstance(node, (ast.Name, ast.Attribute, ast.BinOp, ast.UnaryOp))
      if bare and (kinds.get(name) is str or kinds.get(name) == str | None):
        raise SpecError(
          f"{self.kind} '{spec}': {name} is a text and needs quotes, which a shell"
          f" takes away; write \"{name}='...'\" with other quotes around the whole flag"
        )

  def _value(self, node: ast.expr, spec: str) -> Any:
    added = isinstance(node, ast.BinOp) and not isinstance(node.left, ast.Constant)
    if added or isinstance(node, (ast.Call, ast.Name, ast.Attribute)):
      return self._object(node, spec)
    if isinstance(node, ast.Tuple):
      return tuple(self._value(item, spec) for item in node.elts)
    try:
      value = ast.literal_eval(node)
    except (ValueError, TypeError) as error:
      raise SpecError(
        f"in {self.kind} '{spec}': {ast.unparse(node)} is neither a literal nor a spec"
      ) from error
    if isinstance(value, float) and not math.isfinite(value):
      raise SpecError(f"in {self.kind} '{spec}': write numbers below 1.8e308")
    return value

  def _find(self, node: ast.expr, spec: str) -> type:
    path = ast.unparse(node)
    if IMPORT in path:
      module, _, name = path.partition(IMPORT)
      return self._load(module, name, spec)
    if path not in self._classes:
      raise SpecError(
        f"unknown {self.kind} '{path}'.{nearest(path, self)}"
        f" Choose from {', '.join(self)}, or name your own as module:Class."
      )
    return self._classes[path]

  def _load(self, module: str, name: str, spec: str) -> type:
    """Returns a class from outside; nothing of it is called before it is checked."""
    path, source = f"{module}:{name}", _source.get()
    if source and path not in _trusted:
      raise SpecError(
        f"{source} names the {self.kind} '{path}', which is not registered here, and"
        f" importing {module} would run it; if you know it, add --allow={path}"
      )
    try:
      loaded = importlib.import_module(module)
    except ImportError as error:
      raise SpecError(
        f"{self.kind} '{spec}': cannot import '{module}' ({error}); run from the"
        " folder that holds it or put that folder on PYTHONPATH"
      ) from error
    if not hasattr(loaded, name):
      near = nearest(name, vars(loaded))
      raise SpecError(f"{self.kind} '{spec}': '{module}' has no '{name}'.{near}")
    cls = self._inheriting(getattr(loaded, name), path)
    _trusted.add(path)
    return cls

  def _inheriting(self, cls: Any, name: str) -> type:
    """Returns the class; raises SpecError unless it is one of the registry's base."""
    if not (isinstance(cls, type) and issubclass(cls, self.base)):
      wants = f"{self.base.__module__}.{self.base.__qualname__}"
      raise SpecError(f"{self.kind} '{name}' must inherit {wants}; it does not")
    return cls

  def _check(self, cls: type, args: list, kwargs: dict, spec: str) -> Mapping[str, Any]:
    """Returns the arguments by name; raises SpecError where it has no such ones."""
    signature = inspect.signature(cls)
    unknown = [name for name in kwargs if name not in signature.parameters]
    if unknown:
      raise SpecError(
        f"{self.kind} '{spec}' has no argument '{unknown[0]}'."
        f"{renamed(unknown[0], signature.parameters)}"
        f"{nearest(unknown[0], signature.parameters)}"
        f" It takes {', '.join(signature.parameters) or 'none'}."
      )
    try:
      return signature.bind(*args, **kwargs).arguments
    except TypeError as error:
      raise SpecError(f"{self.kind} '{spec}': {error}") from error

  def _check_types(self, cls: type, values: Mapping[str, Any], spec: str) -> None:
    """Raises SpecError with the first argument of another type than the class names."""
    kinds = _types(cls)
    for name, value in values.items():
      if name in kinds and not _fits(value, kinds[name]):
        raise SpecError(
          f"{self.kind} '{spec}': {name} is {value!r}; write {_wanted(kinds[name])}"
        )


def _types(cls: type) -> dict[str, Any]:
  """Returns the types of the arguments that a class, maybe not of ours, names."""
  try:
    initializer = next(
      vars(c)["__init__"] for c in cls.__mro__ if "__init__" in vars(c)
    )
    return typing.get_type_hints(initializer)
  except (NameError, TypeError):
    return {}


def _fits(value: Any, kind: Any) -> bool:
  """Returns whether a value is of a type; of a type that is not known here, any is."""
  origin, inner = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, one) for one in inner)
  if origin is tuple:
    if not isinstance(value, tuple):
      return False
    kinds = inner[:1] * len(value) if Ellipsis in inner else inner
    return len(kinds) == len(value) and all(map(_fits, value, kinds))
  if kind in (int, float):  # True is 1 in Python, and nobody means it
    number = int if kind is int else (int, float)
    return isinstance(value, number) and not isinstance(value, bool)
  return kind is Any or not isinstance(kind, type) or isinstance(value, kind)


def _wanted(kind: Any) -> str:
  """Returns in words what a value of a type is."""
  origin, inner = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return " or ".join(map(_wanted, inner))
  if origin is tuple:
    if Ellipsis in inner:
      return f"a tuple, each of it {_wanted(inner[0])}"
    return f"a tuple of {', '.join(map(_wanted, inner))}"
  return WORDS.get(kind) or f"a {kind.__name__}, by its name"


IMPORT = ".__import__."
# Either a text in quotes, which stays as it is, or module:Class.
TEXT_OR_CLASS = re.compile(
  r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|(?<![\w.])([A-Za-z_][\w.]*):([A-Za-z_]\w*)""",
  re.DOTALL,
)
WORDS = {
  bool: "True or False",
  int: "a whole number",
  float: "a number",
  str: "a text in quotes",
  type(None): "None",
}


def _imports_as_attributes(spec: str) -> str:
  """Rewrites `module:Class` to `module.__import__.Class`, which Python can parse."""
  rewrite = lambda found: found[1] or f"{found[2]}{IMPORT}{found[3]}"
  return TEXT_OR_CLASS.sub(rewrite, spec)


def _short(spec: str) -> str:
  return spec if len(spec) <= 80 else f"{spec[:80]}..."


def _depth(node: ast.AST) -> int:
  """Returns how many levels a syntax tree has, without recursion."""
  level, depth = [node], 0
  while level:
    level = [below for each in level for below in ast.iter_child_nodes(each)]
    depth += 1
  return depth
