"""Cache of tokenized text on disk, shared by processes.

An entry is a folder named by a hash of the inputs of tokenization. It is written under
a temporary name and renamed, so processes never read a partial one. Every file is
verified by its XXH3 checksum on reading: a damaged entry is computed again.
"""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Callable

import numpy as np
import xxhash

from transformer_jax.data import tokenizers
from transformer_jax.data.files import DataError
from transformer_jax.data.tokenizers import Tokenizer

VARIABLE = "TRANSFORMER_JAX_CACHE"  # a folder; empty: nothing is cached
DAYS = 30  # after the last read, an entry is removed
LIST = "entry.json"  # the splits, and the checksum of each other file
FACTS = "trained_on.json"
SECONDS_A_DAY = 86_400


@dataclasses.dataclass(frozen=True)
class Tokenized:
  """The tokens of splits.

  token_N   int32 by split, all documents one after another
  size_D    int64 by split, number of tokens of each document

  >>> from transformer_jax.data.tokenizers import tokenizers
  >>> byte = tokenizers.build("byte").train()
  >>> token_N, size_D = np.array(byte.encode("abc")), np.array([2, 1])
  >>> found = Tokenized(byte, {"train": token_N}, {"train": size_D})
  >>> [byte.decode(x) for x in np.split(found.token_N["train"], [2])]
  ['ab', 'c']
  """

  tokenizer: Tokenizer
  token_N: dict[str, np.ndarray]
  size_D: dict[str, np.ndarray]


def folder() -> pathlib.Path | None:
  """Returns the folder of entries, by XDG's rules unless the environment names one.

  None: nothing is cached, also for users without a home, as in some containers.
  """
  base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  name = os.environ.get(VARIABLE, f"{base}/transformer_jax/tokens")
  path = os.path.expanduser(name)
  return pathlib.Path(path) if path and not path.startswith("~") else None


def kept(key: str, make: Callable[[], Tokenized]) -> Tokenized:
  """Returns the entry of a key, mapped into memory; calls `make` if it is missing.

  If the entry cannot be written, the result of `make` is returned.
  """
  where = folder()
  if where is None:
    return make()
  found = _read(where / key)
  if found is None:
    made = make()
    try:
      _write(where, key, made)
    except OSError:
      return made
    found = _read(where / key) or made
  return found


def key_of(*parts: object) -> str:
  """Returns the name of an entry: a hash of the inputs of tokenization."""
  return xxhash.xxh3_128(json.dumps(parts).encode()).hexdigest()


def _read(entry: pathlib.Path) -> Tokenized | None:
  """Returns an entry with valid checksums, or None."""
  try:
    listing = json.loads((entry / LIST).read_text(encoding="utf-8"))
    if any(_checksum(entry / name) != x for name, x in listing["files"].items()):
      return None
    mapped = functools.partial(np.load, mmap_mode="r", allow_pickle=False)
    facts = json.loads((entry / FACTS).read_text(encoding="utf-8"))
    found = tokenizers.load(entry / "tokenizer")
    tokenizer = dataclasses.replace(found, trained_on=facts)
    token_N = {
      split: np.asarray(mapped(entry / f"{split}.npy")) for split in listing["splits"]
    }
    size_D = {
      split: np.asarray(mapped(entry / f"{split}_sizes.npy"))
      for split in listing["splits"]
    }
    os.utime(entry / LIST)
  except (OSError, ValueError, LookupError, TypeError, AttributeError, DataError):
    return None
  return Tokenized(tokenizer, token_N, size_D)


def _write(where: pathlib.Path, key: str, made: Tokenized) -> None:
  """Writes an entry under a temporary name, and renames it."""
  where.mkdir(parents=True, exist_ok=True)
  _tidy(where)
  new = where / f"{key}.{uuid.uuid4().hex}.new"
  try:
    made.tokenizer.save(new / "tokenizer")
    for split in made.token_N:
      np.save(new / f"{split}.npy", made.token_N[split], allow_pickle=False)
      np.save(new / f"{split}_sizes.npy", made.size_D[split], allow_pickle=False)
    facts = json.dumps(made.tokenizer.trained_on)
    (new / FACTS).write_text(facts, encoding="utf-8")
    paths = sorted(path for path in new.rglob("*") if path.is_file())
    listing = {
      "splits": [*made.token_N],
      "files": {path.relative_to(new).as_posix(): _checksum(path) for path in paths},
    }
    (new / LIST).write_text(json.dumps(listing, indent=1), encoding="utf-8")
    _into_place(new, where / key)
  finally:
    shutil.rmtree(new, ignore_errors=True)


def _into_place(new: pathlib.Path, entry: pathlib.Path) -> None:
  """Renames a folder; replaces a damaged entry and leaves an intact one."""
  if entry.exists():
    if _read(entry):
      return
    old = new.with_suffix(".old")
    entry.rename(old)  # processes that have mapped it keep it
    shutil.rmtree(old, ignore_errors=True)
  new.rename(entry)


def _tidy(where: pathlib.Path) -> None:
  """Removes entries unread for DAYS, and leftovers of killed processes."""
  for entry in where.iterdir():
    listed = entry / LIST
    name = entry.name.partition(".")[0]
    ours = len(name) == 32 and {*name} <= {*"0123456789abcdef"} and entry.is_dir()
    newest = listed if listed.exists() else entry
    if ours and time.time() - newest.stat().st_mtime > DAYS * SECONDS_A_DAY:
      shutil.rmtree(entry, ignore_errors=True)


def _checksum(path: pathlib.Path) -> str:
  digest = xxhash.xxh3_128()
  with path.open("rb") as file:
    while piece := file.read(1 << 20):
      digest.update(piece)
  return digest.hexdigest()
