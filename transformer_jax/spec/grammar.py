"""Syntax of specs: Python expressions, in which `module:Class` names a class."""

import ast
import re

from transformer_jax.spec.errors import SpecError

LONGEST, DEEPEST = 20_000, 60  # characters of a spec, and levels of its syntax tree
IMPORT = ".__import__."
# Either a quoted text, left unchanged, or module:Class.
TEXT_OR_CLASS = re.compile(
  r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|(?<![\w.])([A-Za-z_][\w.]*):([A-Za-z_]\w*)""",
  re.DOTALL,
)


def parse(spec: str, kind: str) -> ast.expr:
  """Returns the syntax tree of a spec; raises SpecError where it is malformed.

  kind   name of the registry's objects in messages
  """
  if len(spec) > LONGEST:
    raise SpecError(
      f"{kind} '{_short(spec)}' has {len(spec)} characters; write {LONGEST} or less"
    )
  try:
    node = ast.parse(imports_as_attributes(spec.strip()), mode="eval").body
  except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
    raise SpecError(
      f"cannot read {kind} '{_short(spec)}': write name, name(argument=value)"
      " or module:Class(argument=value), with quotes around texts and other quotes"
      " around the whole flag, which a shell takes away"
    ) from error
  if _depth(node) > DEEPEST:
    raise SpecError(
      f"{kind} '{_short(spec)}' is nested more than {DEEPEST} levels deep; write"
      " a simpler one"
    )
  return node


def outside(spec: str) -> set[str]:
  """Returns the modules of all `module:Class` in a spec."""
  try:
    tree = ast.parse(imports_as_attributes(spec.strip()), mode="eval")
  except SyntaxError:
    return set()
  paths = (ast.unparse(x) for x in ast.walk(tree) if isinstance(x, ast.Attribute))
  return {path.split(IMPORT)[0] for path in paths if IMPORT in path}


def imports_as_attributes(spec: str) -> str:
  """Returns a spec with `module.__import__.Class`, valid Python, for `module:Class`."""

  def rewrite(match: re.Match) -> str:
    return match[1] or f"{match[2]}{IMPORT}{match[3]}"

  return TEXT_OR_CLASS.sub(rewrite, spec)


def _short(spec: str) -> str:
  return spec if len(spec) <= 80 else f"{spec[:80]}..."


def _depth(node: ast.AST) -> int:
  """Returns the depth of a syntax tree, without recursion."""
  level, depth = [node], 0
  while level:
    level = [below for each in level for below in ast.iter_child_nodes(each)]
    depth += 1
  return depth
