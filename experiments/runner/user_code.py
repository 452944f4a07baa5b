"""User code: source files of classes that specs name as `module:Class`."""

import ast
import functools
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.runner import inputs
from experiments.runner.provenance import PROJECT
from experiments.setup.identity import FREE, SCORED
from experiments.setup.registries import registries, specs
from experiments.setup.validate import flatten
from transformer_jax.spec import outside
from transformer_jax.training.json_files import replace_file, warn

FOLDER = "own_code"  # of a run, with copies of the files
INSTALLED = ("site-packages", "dist-packages")  # folders of packages, wherever they are


def read(config: Mapping, scored: bool = True) -> dict[str, bytes]:
  """Returns {name: content} of the modules that a config names, and their imports.

  scored   also those that training does not read: of measures, of evaluate.penalty and
           of train.metrics

  Modules of the project, of Python and of installed packages are omitted, unless the
  config names them; contents are those of this process's first call.
  """
  flat = flatten(config)
  keys = (key for key in registries() if scored or not _beside_training(key))
  every = (spec for key in keys for spec in specs(flat[key]))
  modules = sorted({module for spec in every for module in outside(spec)})
  code: dict[str, bytes] = {}
  todo = [(module, True) for module in modules]
  done: set[str] = set()
  while todo:
    module, named = todo.pop()
    if module in done:
      continue
    done.add(module)
    path = _file(module)
    if path is None or not _outside(path, named):
      continue
    code[_name(module, path)] = content = _content(path)
    todo += [(other, False) for other in _imports(content, module, path)]
  return dict(sorted(code.items()))


def _beside_training(key: str) -> bool:
  """Returns whether what a key names changes nothing that is trained."""
  return key.startswith(SCORED) or key in FREE


def fingerprints(code: Mapping[str, bytes]) -> dict[str, str]:
  """Returns {name: SHA-256} of files."""
  return {name: hashlib.sha256(code[name]).hexdigest() for name in code}


def facts(config: Mapping) -> dict[str, Any]:
  """Returns the fingerprints of all files, and the names of those that only score."""
  code, trained = fingerprints(read(config)), read(config, scored=False)
  only = [name for name in code if name not in trained]
  return {"own_code": code} | ({"scoring_code": only} if only else {})


def check(folder: Path, config: Mapping) -> None:
  """Compares the files that training reads with a checkpoint's; saves all of them.

  Raises ChangedError where they differ.
  """
  code, trained = read(config), read(config, scored=False)
  inputs.check(
    folder,
    fingerprints(trained),
    inputs.CODE,
    copies=FOLDER,
    free={*code} - {*trained},
  )
  save(folder, code)


def compare(folder: Path, config: Mapping) -> None:
  """Warns of files that changed since a run was trained; not of those that only score.

  folder   of the run, with the copies of `save`
  """
  then = inputs.fingerprints(folder, inputs.CODE)
  now = fingerprints(read(config))
  then = now if then is None else then
  only = facts(config).get("scoring_code", ())
  names = [x for x in {**now, **then} if then.get(x) != now.get(x) and x not in only]
  if names:
    warn(
      f"{folder} was trained by other code of {', '.join(names)}, and its parameters"
      f" are used by that of now; the files of then are in {folder / FOLDER}"
    )


def save(folder: Path, code: Mapping[str, bytes]) -> None:
  """Copies the files to a run's folder, so that it can be repeated after an edit."""
  for name, content in code.items():
    replace_file(folder / FOLDER / name, content)


@functools.cache  # an imported module stays as it was when its file changes
def _content(path: Path) -> bytes:
  return path.read_bytes()


def _file(module: str) -> Path | None:
  """Returns the file that a module is imported from, None where there is none."""
  parent = module.rpartition(".")[0]
  if not {module, parent} & {*sys.modules, ""}:
    return None  # finding it would import its package
  try:
    spec = getattr(sys.modules.get(module), "__spec__", None)
    spec = spec or importlib.util.find_spec(module)
  except (ImportError, ValueError):
    return None
  return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _outside(path: Path, named: bool) -> bool:
  """Returns whether a file belongs neither to the project, Python nor a package."""
  folders = [*PROJECT]
  if not named:
    if {*INSTALLED} & {*path.parts}:
      return False  # of the user, or of the system below a virtual environment
    paths = sysconfig.get_paths()
    names = "stdlib", "platstdlib", "purelib", "platlib"
    folders += [Path(paths[name]) for name in names]
  return not any(path.is_relative_to(folder) for folder in folders)


def _name(module: str, path: Path) -> str:
  package = path.stem == "__init__"
  return module.replace(".", "/") + (f"/{path.name}" if package else path.suffix)


def _imports(content: bytes, module: str, path: Path) -> Iterator[str]:
  """Yields the modules that a source file imports, and the packages it is in."""
  parts = module.split(".")
  yield from (".".join(parts[:n]) for n in range(1, len(parts)))
  if path.suffix != ".py":
    return
  package = parts if path.stem == "__init__" else parts[:-1]
  try:
    tree = ast.parse(content)
  except (SyntaxError, ValueError):
    return  # a file that is never imported may be of another Python
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      above = package[: len(package) - node.level + 1] if node.level else []
      base = ".".join([*above, *filter(None, [node.module])])
      yield base
      yield from (f"{base}.{alias.name}" for alias in node.names)
