"""Classes outside the registries that a file may name: only those the user named."""

import contextlib
import contextvars
import re
from collections.abc import Iterable, Iterator

from transformer_jax.spec.errors import SpecError

# Importing a module runs it, so a file of somebody else may name no module. These two
# say whose specs are being built, and which classes the user named himself.
_source: contextvars.ContextVar[str] = contextvars.ContextVar("source", default="")
_trusted: set[str] = set()


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


def check_trust(path: str, module: str, kind: str) -> None:
  """Raises SpecError where a file of somebody else names a class of a module.

  path     the class, as `module:Class`
  module   its module, which an import would run
  kind     the registry's word for its objects
  """
  source = _source.get()
  if source and path not in _trusted:
    raise SpecError(
      f"{source} names the {kind} '{path}', which is not registered here, and"
      f" importing {module} would run it; if you know it, add --allow={path}"
    )


def trust_loaded(path: str) -> None:
  """Lets files of others name a class that the user's own spec has loaded."""
  _trusted.add(path)
