"""One name, one thing: no file, class or type alias of one name twice in the code."""

import ast
import collections
import functools
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(
  path
  for room in ("transformer_jax", "experiments")
  for path in (ROOT / room).rglob("*.py")
)
# Each room may have its own entry point and its own base of a registry.
EVERYWHERE = {"__init__.py", "__main__.py", "base.py"}
# Still twice. Shorten these lists; nothing is added to them.
FILES_TWICE: set[str] = {
  "families.py",
  "text.py",
  "transformer.py",
  "translation.py",
}
CLASSES_TWICE: set[str] = set()


@functools.cache
def parsed(path):
  """Returns a file's tree; two tests read it."""
  return ast.parse(path.read_text(encoding="utf-8"))


def repeated(names):
  """Returns names with more than one path, {name: [path, ...]}."""
  paths = collections.defaultdict(list)
  for name, path in names:
    paths[name].append(str(path.relative_to(ROOT)))
  return {name: where for name, where in paths.items() if len(where) > 1}


def check(twice, allowed):
  new = {name: paths for name, paths in twice.items() if name not in allowed}
  assert not new, f"give each a name of its own: {new}"


def test_no_file_name_stands_twice():
  twice = repeated((path.name, path) for path in FILES if path.name not in EVERYWHERE)
  check(twice, FILES_TWICE)


def test_no_class_name_stands_twice():
  classes = [
    (node.name, path)
    for path in FILES
    for node in ast.walk(parsed(path))
    if isinstance(node, ast.ClassDef)
  ]
  assert len(classes) > 300
  check(repeated(classes), CLASSES_TWICE)


def definitions():
  """Yields (name, path, what it stands for) of each class and each type alias."""
  for path in FILES:
    tree = parsed(path)
    for node in ast.walk(tree):
      if isinstance(node, ast.ClassDef):
        yield node.name, path, f"class in {path.name}"
    for node in tree.body:
      names = getattr(node, "targets", ())
      if len(names) == 1 and isinstance(names[0], ast.Name):
        name = names[0].id
        if (
          name[0].isupper() and not name.isupper()
        ):  # neither a variable nor a constant
          yield name, path, ast.unparse(node.value)


def test_no_type_alias_means_two_things():
  meanings = collections.defaultdict(set)
  for name, _, meaning in definitions():
    meanings[name].add(meaning)
  assert meanings["Arrays"] == {"dict[str, jax.Array]"}
  check({name: each for name, each in meanings.items() if len(each) > 1}, set())
