"""Tables of numbers, written as CSV files from the packages that carry them."""

import json
import os
import pathlib
from typing import Any

from transformer_jax.data.files import DataError
from transformer_jax.data.sources.base import TableSource

ABOUT = "about.json"  # licence and packages; written last, when all tables are there


def folder_of(name: str, data_dir: str | None) -> pathlib.Path:
  """Returns the folder of prepared tables."""
  import tensorflow_datasets as library

  root = pathlib.Path(data_dir or library.core.constants.DATA_DIR).expanduser()
  return root / name / "tables"


def prepared(name: str, data_dir: str | None) -> tuple[pathlib.Path, dict[str, Any]]:
  """Returns the folder of prepared tables, and facts. Raises DataError without it."""
  folder = folder_of(name, data_dir)
  try:
    return folder, json.loads((folder / ABOUT).read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    where = f" --data_dir={data_dir}" if data_dir else ""
    raise DataError(
      f"'{name}' is not prepared in {folder}; prepare it once: python -m"
      f" transformer_jax.data.prepare {name}{where}"
    ) from error
  except ValueError as error:
    raise DataError(f"'{folder / ABOUT}' is damaged; prepare {name} again") from error


def build(name: str, source: TableSource, data_dir: str | None) -> str:
  """Fetches and writes missing tables; returns their folder. Raises DataError."""
  folder = folder_of(name, data_dir)
  if (folder / ABOUT).exists():
    return str(folder)
  fetcher = source.fetcher()
  paths = fetcher.fetch(folder.parents[1] / "downloads" / name)
  folder.mkdir(parents=True, exist_ok=True)
  for file, text in source.tables(paths).items():
    _write(folder / file, text)
  about = {"licence": source.licence, "packages": fetcher.facts(paths)}
  _write(folder / ABOUT, json.dumps(about, indent=1))
  return str(folder)


def _write(path: pathlib.Path, text: str) -> None:
  partial = path.with_name(f"{path.name}.partial")
  partial.write_text(text, encoding="utf-8")
  os.replace(partial, path)
