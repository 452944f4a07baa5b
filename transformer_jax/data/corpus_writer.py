"""Writer of prepared corpora, in memory that does not depend on their size."""

import json
import pathlib
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import xxhash

from transformer_jax.data import corpora, document_tokens, overlap, stores
from transformer_jax.data.corpora import BLOCK, Corpus
from transformer_jax.data.documents import LazyDocument
from transformer_jax.data.files import SPLITS, DataError
from transformer_jax.data.tokenizers import Tokenizer, tokenizers

FILE_BLOCKS = 1 << 15  # blocks of a file: 2^28 tokens
REPORT = 1 << 13  # blocks between lines of progress: 2^26 tokens
LEARNED = 1 << 28  # characters of the training split that a tokenizer learns from
SCORED = 1 << 22  # most tokens of a scored split: it is held in memory
UNCOMPRESSED = "group_size:1,uncompressed"


def write(
  folder: str | pathlib.Path,
  documents: Sequence[LazyDocument],
  facts: dict[str, Any],
  tokenizer: str = "",
  scored: int = SCORED,
  say: Callable[[str], object] = str,
) -> Corpus:
  """Writes documents as a corpus, and returns it; an interrupted one leaves nothing.

  facts      recorded with it: source, rule of the splits
  tokenizer  spec of a tokenizer, trained on the training split; "": bytes
  scored     most tokens of each scored split
  say        called with lines of progress

  Raises DataError where something is in the folder's place, and where it cannot be
  written.
  """
  target = pathlib.Path(folder).expanduser()
  if target.exists():
    raise DataError(f"'{target}' is there already; name another folder, or delete it")
  learned = _learned(tokenizer, documents) if tokenizer else None
  new = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.new")
  try:
    new.mkdir(parents=True)
    _write(new, documents, facts | {"tokenizer": tokenizer}, learned, scored, say)
    new.rename(target)
  except (OSError, RuntimeError) as error:  # ArrayRecord's, of a full disk
    reason = getattr(error, "strerror", None) or str(error).partition(";")[0]
    raise DataError(
      f"cannot write the corpus '{target}': {reason}; nothing of it is left, make room"
      " or name another folder"
    ) from error
  finally:
    shutil.rmtree(new, ignore_errors=True)
  opened = corpora.opened(str(target))
  assert opened is not None, "it was written"
  return opened[0][0]


def _learned(spec: str, documents: Sequence[LazyDocument]) -> Tokenizer:
  """Returns a tokenizer trained on the first LEARNED characters of the split."""

  def lines() -> Iterator[str]:
    left = LEARNED
    for document in documents:
      for line in document.newlines() if document.split == "train" else ():
        if left <= 0:
          return
        left -= len(line) + 1
        yield line

  return tokenizers.build(spec).train(lines())


def _write(
  folder: pathlib.Path,
  documents: Sequence[LazyDocument],
  facts: dict[str, Any],
  tokenizer: Tokenizer | None,
  scored: int,
  say: Callable[[str], object],
) -> None:
  """Writes all files of a corpus into a folder."""
  dtype = np.dtype(np.uint8) if tokenizer is None else _dtype(tokenizer.vocabulary)
  if tokenizer:
    tokenizer.save(folder / "tokenizer")
  listing = {
    **facts,
    "format": corpora.FORMAT,
    "unit": "tokens" if tokenizer else "bytes",
    "block": BLOCK,
    "dtype": dtype.name,
  }
  splits: dict[str, Any] = {}
  for split in SPLITS:
    own = [document for document in documents if document.split == split]
    with SplitWriter(folder, split, dtype, say) as writer:
      most = None if split == "train" else scored
      for document in own:
        writer.add(_tokens(document, tokenizer), most)
    splits[split] = writer.facts()
    if split != "train":
      np.save(folder / f"{split}.documents.npy", np.array(writer.sizes, np.int64))
  if not splits["train"]["tokens"]:
    raise DataError("the training split is empty; give more text")
  listing["splits"] = splits
  _save_repeated(Corpus(folder, listing))
  listing["arrays"] = {
    path.name: xxhash.xxh3_128_hexdigest(path.read_bytes())
    for path in sorted(folder.glob("*.npy"))
  }
  digests = [splits[split].pop("xxh3") for split in SPLITS]
  digests += listing["arrays"].values()
  listing["fingerprint"] = xxhash.xxh3_128_hexdigest("".join(digests).encode())
  listing["checksum"] = corpora.checksum(listing)
  (folder / corpora.FILE).write_text(json.dumps(listing, indent=1), encoding="utf-8")


def _dtype(vocabulary: int) -> np.dtype:
  return np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.int32)


def _tokens(
  document: LazyDocument, tokenizer: Tokenizer | None
) -> Iterator[np.ndarray]:
  if tokenizer is None:
    return (np.frombuffer(piece.encode(), np.uint8) for piece in document.pieces())
  return document_tokens.pieces(tokenizer, document.lines())


def _save_repeated(corpus: Corpus) -> None:
  """Writes which places of the scored splits stand in the training split."""
  scored = {split: stores.whole(corpus.store(split)) for split in SPLITS[1:]}
  # In one pass. Tokens at which the two meet are cut off from either.
  joined_N = np.concatenate([*scored.values()])
  place_N = np.zeros(len(joined_N), bool)
  place_P = overlap.repeated_places(corpus.train_pieces(), joined_N)
  place_N[: len(place_P)] = place_P
  for split, token_N in scored.items():
    own_N, place_N = place_N[: len(token_N)], place_N[len(token_N) :]
    own_N[max(0, len(own_N) - overlap.GRAM + 1) :] = False
    np.save(corpus.folder / f"{split}.repeated.npy", np.packbits(own_N))


class SplitWriter:
  """ArrayRecord files of one split.

  sizes   tokens of each document, where their number is limited

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   with SplitWriter(pathlib.Path(folder), "test", np.dtype(np.uint8)) as writer:
  ...     writer.add([np.arange(4), np.arange(3)], most=6)
  ...   facts = writer.facts()
  >>> writer.sizes, facts["tokens"], [file["name"] for file in facts["files"]]
  ([6], 6, ['test-00000.records'])
  """

  def __init__(
    self,
    folder: pathlib.Path,
    split: str,
    dtype: np.dtype,
    say: Callable[[str], object] = str,
  ):
    self._say = say
    self.sizes: list[int] = []
    self._folder, self._split, self._dtype = folder, split, dtype
    self._rest, self._digest = np.zeros(0, dtype), xxhash.xxh3_128()
    self._blocks, self._names = 0, list[str]()
    self._writer: Any = None
    self._tokens = self._documents = 0

  def __enter__(self) -> "SplitWriter":
    return self

  def __exit__(self, *error: object) -> None:
    if len(self._rest):
      self._put(self._rest)
    if self._writer:
      self._writer.close()

  def add(self, pieces: Iterable[np.ndarray], most: int | None = None) -> None:
    """Adds a document; a split of `most` tokens takes no more."""
    before = self._tokens
    for piece_N in pieces:
      room = None if most is None else most - self._tokens
      self._extend(piece_N[:room])
      if most is not None and self._tokens >= most:
        break
    if self._tokens > before:
      self._documents += 1
      if most is not None:  # a training split may have a great many
        self.sizes.append(self._tokens - before)

  def facts(self) -> dict[str, Any]:
    """Returns the counts, files and hash of the split."""
    files = [
      {"name": name, "bytes": (self._folder / name).stat().st_size}
      for name in self._names
    ]
    facts = {"tokens": self._tokens, "documents": self._documents, "files": files}
    return facts | {"xxh3": self._digest.hexdigest()}

  def _extend(self, piece_N: np.ndarray) -> None:
    self._tokens += len(piece_N)
    joined_N = np.concatenate([self._rest, piece_N.astype(self._dtype)])
    whole = len(joined_N) // BLOCK * BLOCK
    for start in range(0, whole, BLOCK):
      self._put(joined_N[start : start + BLOCK])
    self._rest = joined_N[whole:]

  def _put(self, block_N: np.ndarray) -> None:
    content = block_N.astype(self._dtype.newbyteorder("<")).tobytes()
    self._digest.update(content)
    if self._blocks % FILE_BLOCKS == 0:
      self._open()
    if self._blocks % REPORT == REPORT - 1:
      self._say(f"{self._split}: {self._tokens:,} tokens")
    self._writer.write(content)
    self._blocks += 1

  def _open(self) -> None:
    from array_record.python import array_record_module

    if self._writer:
      self._writer.close()
    self._names.append(f"{self._split}-{len(self._names):05d}.records")
    path = str(self._folder / self._names[-1])
    self._writer = array_record_module.ArrayRecordWriter(path, UNCOMPRESSED)
