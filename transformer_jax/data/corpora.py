"""Prepared corpora: tokens in ArrayRecord files that are read window by window.

corpus.json          sizes, tokenizer and fingerprint of what follows
train-00000.records  blocks of BLOCK tokens, little-endian
tokenizer/           the vocabulary; a corpus of bytes has none
test.documents.npy   tokens of each document of a scored split
test.repeated.npy    packed bits: whether 64 tokens from a place on stand in training
"""

import contextlib
import dataclasses
import functools
import glob
import io
import pathlib
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xxhash

from transformer_jax import untrusted
from transformer_jax.data import overlap, stores, tokenizers
from transformer_jax.data.files import DataError
from transformer_jax.data.stores import InMemory, InRecords
from transformer_jax.data.tokenizers import Tokenizer
from transformer_jax.data.windows import TokenStore

FILE = "corpus.json"
FORMAT = 1
BLOCK = 8192  # tokens of a record: a window of 1,024 reads one or two
LIKE_MIXED = re.compile(r"\s*(\d+(\.\d+)?|\.\d+)\s*\*")
MIXED = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s\*\s(.+?)\s*")


@dataclasses.dataclass(frozen=True)
class Corpus:
  """A prepared corpus, or one part of a mixture.

  folder    where it is
  listing   content of corpus.json

  >>> import tempfile
  >>> from transformer_jax.data import corpus_writer
  >>> from transformer_jax.data.files import SPLITS
  >>> from transformer_jax.data.documents import LazyDocument
  >>> words = [LazyDocument(x, x, lambda: iter(["two words"])) for x in SPLITS]
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   corpus = corpus_writer.write(f"{folder}/words", words, {"source": "words"})
  ...   bytes(corpus.store("train").read(np.array([4]), 5)[0])
  b'words'
  """

  folder: pathlib.Path
  listing: dict[str, Any]

  @property
  def unit(self) -> str:
    """Kind of its tokens: "bytes" or "tokens"."""
    return self.listing["unit"]

  @property
  def fingerprint(self) -> str:
    """The XXH3 hash of all its tokens."""
    return self.listing["fingerprint"]

  def store(self, split: str) -> TokenStore:
    """Returns the tokens of a split; raises DataError for files that are cut short."""
    files = self.listing["splits"][split]["files"]
    for file in files:
      self._check_size(file)
    tokens = self.listing["splits"][split]["tokens"]
    if not files:
      return InMemory(np.zeros(0, self.listing["dtype"]))
    paths = [self.folder / file["name"] for file in files]
    return InRecords(paths, tokens, self.listing["block"], self.listing["dtype"])

  def scored(self, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a scored split: tokens, and the tokens of each document."""
    return stores.whole(self.store(split)), self._array(f"{split}.documents.npy")

  def repeated(self, split: str, parts: "Sequence[Corpus]") -> np.ndarray:
    """Returns of each token whether it and the 63 after it stand in training.

    split   a scored one
    parts   of the mixture that this corpus belongs to, itself included: the training
            splits of all are looked up
    """
    tokens = self.listing["splits"][split]["tokens"]
    packed = self._array(f"{split}.repeated.npy")
    place_N = np.unpackbits(packed, count=tokens).astype(bool)
    for other in parts:
      if other is not self:
        place_N |= self._repeated_in(other, split)
    return place_N

  def _repeated_in(self, other: "Corpus", split: str) -> np.ndarray:
    """Returns the places that stand in another corpus; they are looked up once."""
    path = self.folder / f"{split}.repeated.{other.fingerprint}.npy"
    token_N = stores.whole(self.store(split))
    with contextlib.suppress(OSError, ValueError):
      found_N = np.load(path, allow_pickle=False)
      if found_N.dtype == bool and found_N.shape == token_N.shape:
        return found_N
    place_N = np.zeros(len(token_N), bool)
    place_P = overlap.repeated_places(other.train_pieces(), token_N)
    place_N[: len(place_P)] = place_P
    with contextlib.suppress(OSError):  # a folder that is read-only: not kept
      new = path.with_name(f".{uuid.uuid4().hex}.npy")
      np.save(new, place_N)
      new.replace(path)
    return place_N

  def train_pieces(self) -> Iterator[np.ndarray]:
    """Yields the training split in pieces, each with the 63 tokens before it."""
    store, piece = self.store("train"), overlap.CHUNK
    tokens = store.sizes[0]
    for start in range(0, tokens, piece):
      first = max(0, start - overlap.GRAM + 1)
      size = min(tokens, start + piece) - first
      yield store.read(np.array([first]), size)[0]

  @functools.cached_property
  def tokenizer(self) -> Tokenizer:
    """The tokenizer of a corpus of tokens."""
    return tokenizers.load(self.folder / "tokenizer")

  def _check_size(self, file: dict[str, Any]) -> None:
    path = self.folder / file["name"]
    try:
      size = untrusted.size(path)
    except OSError as error:
      raise self._damaged(f"{file['name']}: {error.strerror}") from error
    if size != file["bytes"]:
      raise self._damaged(f"{file['name']} has {size:,} bytes, not {file['bytes']:,}")

  def _array(self, name: str) -> np.ndarray:
    try:
      content = untrusted.content(self.folder / name)
    except OSError as error:
      raise self._damaged(f"{name}: {error.strerror}") from error
    if xxhash.xxh3_128_hexdigest(content) != self.listing["arrays"].get(name):
      raise self._damaged(f"{name} is not what was written")
    return np.load(io.BytesIO(content), allow_pickle=False)

  def _damaged(self, what: str) -> DataError:
    return DataError(
      f"the corpus '{self.folder}' is damaged ({what}); prepare it again, or copy it"
      " again"
    )


def opened(source: str) -> tuple[list[Corpus], tuple[float, ...]] | None:
  """Returns the corpora of a source and their weights, None for other sources.

  source   folder of a corpus, or a mixture: '0.7 * FOLDER + 0.3 * OTHER'. One corpus
           has no weights

  Raises DataError for damaged corpora, and for mixtures of other sources.
  """
  matches = [MIXED.fullmatch(part) for part in source.split(" + ")]
  if not all(matches):
    if any(map(LIKE_MIXED.match, source.split("+"))) and not glob.glob(source):
      raise DataError(
        f"'{source}': a mixture is written '0.7 * FOLDER + 0.3 * OTHER', with spaces"
        " around * and + and a weight for each part"
      )
    return ([_read(source)], ()) if _is_corpus(source) else None
  pairs = [(float(match[1]), match[2]) for match in matches if match]
  for weight, folder in pairs:
    if not _is_corpus(folder):
      raise DataError(
        f"'{folder}' of a mixture is no prepared corpus; make it one: python -m"
        f" transformer_jax.data.prepare '{folder}' --corpus=NEW"
      )
    if not weight:
      raise DataError(f"the weight of '{folder}' is 0: leave it out")
  return [_read(folder) for _, folder in pairs], tuple(weight for weight, _ in pairs)


def _is_corpus(source: str) -> bool:
  return (pathlib.Path(source).expanduser() / FILE).is_file()


def _read(source: str) -> Corpus:
  folder = pathlib.Path(source).expanduser()
  try:
    listing = untrusted.parsed(untrusted.content(folder / FILE))
    sealed = listing.pop("checksum")
    if sealed != checksum(listing) or listing["format"] != FORMAT:
      raise ValueError(f"changed, or not of format {FORMAT}")
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise DataError(
      f"'{folder / FILE}' is not what was written ({error}); prepare the corpus again"
    ) from error
  return Corpus(folder, listing)


def checksum(listing: dict[str, Any]) -> str:
  """Returns the checksum of a listing, without its own."""
  return xxhash.xxh3_128_hexdigest(repr(sorted(listing.items())).encode())


def check_alike(corpora: list[Corpus]) -> None:
  """Raises DataError where parts of a mixture have other tokens than the first."""
  first, *others = corpora
  for other in others:
    if other.unit != first.unit:
      raise DataError(
        f"'{other.folder}' is a corpus of {other.unit}, '{first.folder}' of"
        f" {first.unit}; prepare both alike"
      )
    if first.unit == "tokens":
      first.tokenizer.check(other.tokenizer, str(other.folder))
