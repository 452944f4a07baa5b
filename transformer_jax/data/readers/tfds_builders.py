"""Builders of prepared TensorFlow Datasets, found by name, checked before they run."""

import importlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from transformer_jax import untrusted
from transformer_jax.data.files import DataError
from transformer_jax.data.sources.base import named
from transformer_jax.spec import nearest

# Builders in these packages are registered only when the package is imported.
OLD_STYLE = ("tensorflow_datasets.text", "tensorflow_datasets.translate")
CLASS = ("pythonClassName", "python_class_name", "type")  # in features.json
NAME = r"(\w+:)?\w[\w-]*(/[\w.+@=-]+)*(:[\d.*]+)?"  # glue/mrpc:2.0.0
KNOWN = ("licence", "packages")  # facts that `prepare` records of package data


def origin(built: Any) -> dict[str, Any]:
  """Returns the version of prepared data, and its licence and packages if known."""
  facts = {"version": built.info.full_name}
  return facts | {k: v for k, v in (built.info.metadata or {}).items() if k in KNOWN}


def opened(
  name: str, data_dir: str | None, features: tuple[str, ...], wanted: str
) -> Any:
  """Returns the builder of prepared data. Raises DataError unless it has `features`."""
  built = builder(name, data_dir)
  missing = [feature for feature in features if feature not in built.info.features]
  if missing:
    raise DataError(
      f"tfds:{name} has no feature '{missing[0]}' but"
      f" {', '.join(sorted(built.info.features))}; name {wanted}"
    )
  if not is_prepared(built):
    raise DataError(
      f"tfds:{name} is not prepared in {built.data_dir}; prepare it once:"
      f" {prepare_command(name, data_dir)}"
    )
  return built


def builder(name: str, data_dir: str | None, file_format: str | None = None) -> Any:
  """Finds a TFDS builder by name. Raises DataError with the nearest name."""
  import tensorflow_datasets as tfds

  _check_name(name)
  _check_features(pathlib.Path(data_dir or tfds.core.constants.DATA_DIR), name)
  options = {"data_dir": data_dir} if data_dir else {}
  options |= {"file_format": file_format} if file_format else {}
  for package in ("tensorflow_datasets", *OLD_STYLE):
    importlib.import_module(package)
    try:
      return tfds.builder(name, **options)
    except tfds.core.DatasetNotFoundError:
      continue
    except (ValueError, AssertionError, ImportError) as error:
      why = str(error).strip().partition("\n")[0]
      raise DataError(f"TFDS cannot build '{name}' ({why}); check the name") from error
  if named(name):
    raise DataError(
      f"tfds:{name} is not prepared in {data_dir or tfds.core.constants.DATA_DIR};"
      f" prepare it once: {prepare_command(name, data_dir)}"
    )
  near = nearest(name, tfds.core.registered.list_imported_builders())
  raise DataError(
    f"TFDS knows no data set '{name}' and finds none prepared under that name in"
    f" {data_dir or 'its data_dir'}.{near} Check the name, or write text(data_dir=...)"
  )


def _check_name(name: str) -> None:
  """Raises DataError for an invalid data set name; names are also folder names."""
  if not re.fullmatch(NAME, name) or ".." in name:
    raise DataError(
      f"{name!r:.80} is no name of a data set; write one such as tiny_shakespeare,"
      " glue/mrpc or libreoffice_help/de-en"
    )


def _check_features(root: pathlib.Path, name: str) -> None:
  """Raises DataError if prepared data names Python classes from outside TFDS.

  TFDS imports their modules, and importing a module runs it.
  """
  folder = root.expanduser() / re.sub(r":[^/]*$", "", name)
  for path in sorted(folder.glob("**/features.json")):
    try:
      said = untrusted.parsed(untrusted.content(path, untrusted.JSON_BYTES))
      named = sorted(_classes(said))
    except (OSError, ValueError) as error:
      raise DataError(f"'{path}' is damaged ({error}); copy it again") from error
    foreign = [cls for cls in named if not cls.startswith("tensorflow_datasets.")]
    if foreign:
      raise DataError(
        f"'{path}' names the class {foreign[0]!r:.80}, which is not TFDS's own, and"
        " reading the data would run its module; prepare the data yourself"
      )


def _classes(said: Any) -> Iterator[str]:
  """Yields the Python classes that features are made of, with the dots of a module."""
  if isinstance(said, list):
    said = dict(enumerate(said))
  for key, value in said.items() if isinstance(said, dict) else ():
    if key in CLASS and isinstance(value, str):
      yield from [value] * ("." in value)
    elif key == "json" and isinstance(value, str):  # of older releases
      yield from _classes(untrusted.parsed(value))
    else:
      yield from _classes(value)


def prepare_command(name: str, data_dir: str | None) -> str:
  """Returns the command that prepares a data set for `read`."""
  where = f" --data_dir={data_dir}" if data_dir else ""
  return f"python -m transformer_jax.data.prepare {name}{where}"


def is_prepared(built: Any) -> bool:
  """Returns whether the data is prepared, without the warning of TFDS's check."""
  return (built.data_path / "dataset_info.json").exists()
