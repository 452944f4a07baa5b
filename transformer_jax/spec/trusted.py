"""Trust in classes outside of the registries: files may use those the user allows."""

import contextlib
import contextvars
import re
from collections.abc import Iterable, Iterator

from transformer_jax.spec.errors import SpecError

# Importing a module runs it, so specs of an untrusted file may import none. `_source`
# is the file whose specs are being built, `_trusted` has the classes the user allowed.
_source: contextvars.ContextVar[str] = contextvars.ContextVar("source", default="")
_trusted: set[str] = set()


def trust(classes: Iterable[str]) -> None:
  """Allows untrusted files to use these classes, each given as `module:Class`."""
  for name in classes:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
      raise SpecError(f"--allow={name}: write module:Class, as in my_file:MyEncoding")
    _trusted.add(name)


@contextlib.contextmanager
def registered_only(source: str) -> Iterator[None]:
  """Refuses classes outside of the registries, unless the user allows them.

  source   the untrusted file whose specs are built meanwhile, for messages
  """
  token = _source.set(source)
  try:
    yield
  finally:
    _source.reset(token)


def check_trust(path: str, module: str, kind: str) -> None:
  """Raises SpecError where an untrusted file uses a class that is not allowed.

  path     the class, as `module:Class`
  module   its module, which an import would run
  kind     name of the registry's objects in messages
  """
  source = _source.get()
  if source and path not in _trusted:
    raise SpecError(
      f"{source} names the {kind} '{path}', which is not registered here, and"
      f" importing {module} would run it; if you know it, add --allow={path}"
    )


def trust_loaded(path: str) -> None:
  """Allows untrusted files to use a class that the user's spec has loaded."""
  _trusted.add(path)
