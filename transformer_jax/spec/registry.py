"""Registries of classes by name, which build objects from specs."""

import ast
import dataclasses
import importlib
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from transformer_jax.argument_ranges import allowed
from transformer_jax.spec.argument_types import fits, types_of, wanted, with_words
from transformer_jax.spec.errors import SpecError, nearest, renamed
from transformer_jax.spec.grammar import IMPORT, parse
from transformer_jax.spec.trusted import check_trust, trust_loaded


class Registry(Mapping[str, type]):
  """Maps names to classes of one base and builds objects of them from specs.

  >>> class Norm: ...
  >>> norms = Registry("norm", Norm)
  >>> class Layer(Norm):
  ...   def __init__(self, epsilon: float = 1e-5):
  ...     self.epsilon = epsilon
  >>> _ = norms.register("layer")(Layer)
  >>> norms.build("layer(epsilon=0.1)").epsilon, list(norms)
  (0.1, ['layer'])
  """

  def __init__(
    self, kind: str, base: type, combine: Callable[[tuple], Any] | None = None
  ):
    """Makes an empty registry.

    kind      name of an object in messages
    base      base class of all classes, also of those named as module:Class
    combine   from several objects to one; specs may then be added up
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
    """Returns the registered name of an object's class, else the class's name."""
    kind = type(thing)
    return next((n for n in self if self[n] is kind), kind.__name__)

  def label(self, thing: Any, without: Collection[str] = ()) -> str:
    """Returns an object's name with its fields that differ from their defaults.

    The name of a class outside of the registry is written as those in it are.

    without   fields that are left out

    >>> import transformer_jax as tj
    >>> tj.attentions.label(tj.attentions.build("window(4)"))
    'window(width=4)'
    """
    name = self.name_of(thing)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    fields = dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ()
    given = [(x.name, getattr(thing, x.name), x.default) for x in fields]
    words = [
      f"{field}={value!r}"
      for field, value, default in given
      if value != default and field not in without
    ]
    return f"{name}({', '.join(words)})" if words else name

  def build(self, spec: Any) -> Any:
    """Returns the object that `spec` describes; an object is returned unchanged."""
    if not isinstance(spec, str):
      return spec
    return self._object(parse(spec, self.kind), spec)

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
    call = with_words(cls, call)
    named = {word.arg: word.value for word in call.keywords if word.arg is not None}
    if len(named) < len(call.keywords):
      raise SpecError(f"{self.kind} '{spec}': ** is not read here; name each argument")
    self._check_quotes(cls, call, spec)
    args = [self._value(arg, spec) for arg in call.args]
    kwargs = {name: self._value(value, spec) for name, value in named.items()}
    values = self._check(cls, args, kwargs, spec)
    try:
      made = cls(*args, **kwargs)
    except (TypeError, AttributeError):  # no class has to expect any type
      self._check_types(cls, values, spec)
      raise
    # After the errors of the class, which are more specific.
    self._check_types(cls, values, spec)
    self._check_sense(cls, values, spec)
    return made

  def _check_sense(self, cls: type, values: Mapping[str, Any], spec: str) -> None:
    """Raises SpecError where a number is out of the range of its argument's name.

    Classes of users are not checked: their names may mean something else.
    """
    if cls.__module__.partition(".")[0] != __name__.partition(".")[0]:
      return
    for name, value in values.items():
      if words := allowed(name, value):
        raise SpecError(f"{self.kind} '{spec}': {name} is {value!r}; write {words}")

  def _check_quotes(self, cls: type, call: ast.Call, spec: str) -> None:
    """Raises SpecError where a text has no quotes, which shells remove."""
    kinds, names = types_of(cls), inspect.signature(cls).parameters
    given = [*zip(names, call.args, strict=False)]
    given += [(word.arg, word.value) for word in call.keywords if word.arg is not None]
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
    """Returns a class of another module, checked before it is called."""
    path = f"{module}:{name}"
    check_trust(path, module, self.kind)
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
    trust_loaded(path)
    return cls

  def _inheriting(self, cls: Any, name: str) -> type:
    """Returns the class; raises SpecError unless it inherits the registry's base."""
    if not (isinstance(cls, type) and issubclass(cls, self.base)):
      wants = f"{self.base.__module__}.{self.base.__qualname__}"
      raise SpecError(f"{self.kind} '{name}' must inherit {wants}; it does not")
    return cls

  def _check(self, cls: type, args: list, kwargs: dict, spec: str) -> Mapping[str, Any]:
    """Returns the arguments by name; raises SpecError where the class rejects them."""
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
    """Raises SpecError with the first argument that has not its annotated type."""
    kinds = types_of(cls)
    for name, value in values.items():
      if name in kinds and not fits(value, kinds[name]):
        raise SpecError(
          f"{self.kind} '{spec}': {name} is {value!r}; write {wanted(kinds[name])}"
        )
