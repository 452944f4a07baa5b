"""Builder of a TFDS data set in ArrayRecord format, without TensorFlow."""

import collections
import pathlib
from typing import Any

import numpy as np

from transformer_jax.data.files import SPLITS, DataError
from transformer_jax.data.sources.base import Source, split_of

VERSION = "1.0.0"  # of the built data; versions of packages are in metadata.json


def build(name: str, source: Source, data_dir: str | None) -> str:
  """Fetches and builds missing data; returns the folder. Raises DataError."""
  import tensorflow_datasets as library

  root = pathlib.Path(data_dir or library.core.constants.DATA_DIR).expanduser()
  folder = root / name / VERSION
  if (folder / "dataset_info.json").exists():
    return str(folder)
  fetcher = source.fetcher()
  paths = fetcher.fetch(root / "downloads" / name.partition("/")[0])
  by_split = collections.defaultdict(list)
  for example in source.examples(paths):
    by_split[split_of(example["document"])].append(example)
  empty = [split for split in SPLITS if not by_split[split]]
  if empty:
    raise DataError(
      f"'{name}': nothing in {', '.join(path.name for path in paths)} is in its"
      f" {empty[0]} split; delete those files in {paths[0].parent} and run this again"
    )
  metadata = {"licence": source.licence, "packages": fetcher.facts(paths)}
  with library.core.registered.skip_registration():  # not needed to read the folder
    builder = _builder(library, source, name, by_split, metadata)
  builder(data_dir=str(root), file_format="array_record").download_and_prepare()
  return str(folder)


def _builder(
  library: Any, source: Source, name: str, by_split: dict[str, list], metadata: dict
) -> type:
  """Returns the TFDS builder class for examples in memory.

  library    the module tensorflow_datasets
  source     features, licence and description of the data
  name       of the data set, with its config after a slash
  by_split   examples of each split
  metadata   licence and packages, for metadata.json
  """
  base, _, config = name.partition("/")
  configs = [library.core.BuilderConfig(name=config)] if config else []
  about = {"description": source.description, "homepage": source.homepage}

  class Built(library.core.GeneratorBasedBuilder):
    """Builder of examples in memory."""

    VERSION = library.core.Version(VERSION)
    BUILDER_CONFIGS = configs

    def _info(self):
      kinds = source.features().items()
      return library.core.DatasetInfo(
        builder=self,
        features=library.features.FeaturesDict(
          {key: _feature(library, kind) for key, kind in kinds}
        ),
        license=source.licence,
        metadata=library.core.MetadataDict(metadata),
        **about,
      )

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(by_split[split]) for split in SPLITS}

    def _generate_examples(self, examples):
      yield from enumerate(examples)

  Built.name = base
  return Built


def _feature(library: Any, kind: Any) -> Any:
  if isinstance(kind, list):
    return library.features.Sequence(_feature(library, kind[0]))
  return library.features.Text() if kind is str else library.features.Scalar(np.int64)
