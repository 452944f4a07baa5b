"""Reader of parallel text: aligned source and target lines. No JAX here."""

import collections
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from transformer_jax.data import files, languages
from transformer_jax.data.base import note
from transformer_jax.data.files import SPLITS, DataError
from transformer_jax.data.readers import table_columns, tfds
from transformer_jax.data.readers.table_columns import Columns, Say

TFDS = "tfds:"
# Common file names of each split.
STEMS = {
  "train": ("train",),
  "validation": ("validation", "valid", "dev", "val"),
  "test": ("test",),
}
PARTS = (0.9, 0.95)  # boundaries of the splits of lines without documents


@dataclasses.dataclass(frozen=True)
class TextPair:
  r"""Source text and its translation.

  where      the file and the line, for messages
  document   its document, or ""; all pairs of a document are in one split

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   for split in SPLITS:
  ...     path = pathlib.Path(folder, f"{split}.tsv")
  ...     _ = path.write_text("de\ten\nein Hund\ta dog\n")
  ...   pairs, facts = read(folder, "de-en", splits=("train",))
  >>> [(pair.source, pair.target) for pair in pairs["train"]]
  [('ein Hund', 'a dog')]
  """

  source: str
  target: str
  where: str
  document: str = ""


def read(
  source: str,
  pair: str,
  splits: tuple[str, ...],
  data_dir: str | None = None,
  limit: int | None = None,
  named: str = "",
) -> tuple[dict[str, list[TextPair]], dict[str, Any]]:
  """Returns the usable pairs of each split, and facts to record.

  source    'tfds:NAME'; a .tsv, .csv or .jsonl file; the path before .en and .de; or a
            folder with such files train, validation and test; any may end in .gz
  pair      'en-de': the first language is the source
  splits    names of the splits to return
  data_dir  folder of prepared TFDS data; None: TFDS's default
  limit     the most pairs of each split; None: all
  named     the names of all columns of a .tsv or .csv file, as in 'id,de,en'; '': a
            header names them, or they are the source and the target

  Pairs with an empty side are left out and counted. Raises DataError for any other
  fault.
  """
  sides = sides_of(pair)
  pair_format = PairFormat(sides, table_columns.named(named, sides))
  if source.startswith(TFDS):
    table_columns.check_used(named, source)
    name = source.removeprefix(TFDS)
    rows, facts = tfds.read_pairs(name, sides, splits, data_dir, limit)
    found = {split: [TextPair(*row) for row in rows[split]] for split in rows}
  else:
    notes: list[str] = []
    path = pathlib.Path(source).expanduser()
    found, facts = _files(path, pair_format, splits, notes.append)
    note(facts, *notes)
    found = {split: found[split][:limit] for split in splits}
  kept = {split: [x for x in found[split] if x.source and x.target] for split in splits}
  for split in splits:
    if not kept[split]:
      raise DataError(f"the {split} split of '{source}' holds no pair; give more text")
  facts["fingerprint"] = fingerprint(x for split in splits for x in kept[split])
  facts["pairs"] = {split: len(kept[split]) for split in splits}
  facts["left_out"] = {s: left_out(found[s], kept[s], "empty") for s in splits}
  return kept, {"source": source, "pair": pair, **facts}


class Located(Protocol):
  """Protocol of examples and pairs: `where` names their file and line.

  >>> pairs = [TextPair("ja", "yes", "line 1"), TextPair("", "no", "line 2")]
  >>> left_out(pairs, pairs[:1], "empty")
  {'empty': 1, 'first empty': 'line 2'}
  """

  @property
  def where(self) -> str: ...


def left_out(
  before: Sequence[Located], after: Sequence[Located], why: str
) -> dict[str, Any]:
  """Returns the number of examples left out, and the place of the first one."""
  remaining = {example.where for example in after}
  gone = [example.where for example in before if example.where not in remaining]
  return {why: len(gone), **({f"first {why}": gone[0]} if gone else {})}


def sides_of(pair: str) -> tuple[str, str]:
  """Returns ('en', 'de') of 'en-de'. Raises DataError."""
  source, dash, target = pair.partition("-")
  if not (source and dash and target) or source == target:
    raise DataError(f"pair='{pair}' names no two languages; write it as in 'en-de'")
  return source, target


def fingerprint(pairs: Iterable[TextPair]) -> str:
  """Returns the SHA-256 of all pairs, in order."""
  digest = hashlib.sha256()
  for pair in pairs:
    digest.update(f"{pair.source}\0{pair.target}\0".encode())
  return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class PairFormat:
  """File format of sentence pairs.

  sides  the languages, the source first
  named  the user's names of all columns of a table; (): not given

  >>> sorted(PairFormat(("de", "en"), ()).columns.words["de"])  # of a header
  ['de', 'source', 'src']
  """

  sides: tuple[str, str]
  named: tuple[str, ...]

  @property
  def columns(self) -> Columns:
    """The columns of a table; a header has codes or names of languages."""
    spell, usual = languages.code, ({"source", "src"}, {"target", "tgt", "trg"})
    pairs = zip(self.sides, usual, strict=True)
    words = {side: frozenset(more | {spell(side)}) for side, more in pairs}
    hint = f"pair='{'-'.join(self.sides)}' with languages"
    return Columns(self.sides, words, self.named, hint, languages.CODES, spell)


def _files(
  path: pathlib.Path, pair_format: PairFormat, splits: tuple[str, ...], say: Say
) -> tuple[dict[str, list[TextPair]], dict[str, Any]]:
  if not path.is_dir():
    return _cut(_one(path, pair_format, say))
  sides = pair_format.sides
  found = {split: _find(path, STEMS[split], sides) for split in SPLITS}
  if found["train"] is None:
    first, second = sides
    raise DataError(
      f"folder '{path}' holds no training text; put train.{first} and train.{second},"
      " train.tsv, train.csv or train.jsonl there"
    )
  if found["validation"] is None and found["test"] is None:
    return _cut(_one(found["train"], pair_format, say))
  paths = {split: file for split in splits if (file := found[split]) is not None}
  missing = [split for split in splits if split not in paths]
  if missing:
    raise DataError(
      f"folder '{path}' holds no {missing[0]} text; add {missing[0]}.{sides[0]} and"
      f" {missing[0]}.{sides[1]}, or score the split that is there with split='...'"
    )
  pairs = {split: _one(paths[split], pair_format, say) for split in splits}
  return pairs, {"split": "by file name"}


def _find(
  folder: pathlib.Path, stems: tuple[str, ...], sides: tuple[str, str]
) -> pathlib.Path | None:
  """Returns the path of a split's file, or the path before .en and .de, or None."""
  for stem in stems:
    names = [stem + suffix + end for suffix in READERS for end in ("", files.GZIP)]
    one = next((folder / name for name in names if (folder / name).exists()), None)
    if one or any(map(_there, _sides(folder / stem, sides))):
      return one or folder / stem
  return None


def _one(path: pathlib.Path, pair_format: PairFormat, say: Say) -> list[TextPair]:
  """Reads one file of pairs, or two files, one for each side.

  say   callback for a note on the first line, if it was a header
  """
  if pair_format.named:
    table_columns.check_used(",".join(pair_format.named), str(path))
  reader = READERS.get(files.suffix(path), _two)
  return list(reader(path, pair_format, say))


def _sides(path: pathlib.Path, sides: tuple[str, str]) -> list[pathlib.Path]:
  """Returns the two files of a path before .en and .de."""
  return [path.with_name(f"{path.name}.{side}") for side in sides]


def _there(path: pathlib.Path) -> pathlib.Path | None:
  """Returns the path of the file, plain or gzipped, or None."""
  packed = path.with_name(path.name + files.GZIP)
  return next((each for each in (path, packed) if each.exists()), None)


def _two(path: pathlib.Path, pair_format: PairFormat, say: Say) -> Iterator[TextPair]:
  paths = _sides(path, pair_format.sides)
  existing = [each for each in map(_there, paths) if each is not None]
  there = [_there(each) is not None for each in paths]
  if not any(there):
    raise DataError(
      f"there is no parallel text '{path}' in {pathlib.Path.cwd()}: no folder, no .tsv,"
      f" .csv or .jsonl file, no '{paths[0]}' with '{paths[1]}'; check the path"
    )
  if not all(there):
    raise DataError(
      f"'{paths[there.index(True)]}' has no other side: there is no"
      f" '{paths[there.index(False)]}'; add it, or check"
      f" pair='{'-'.join(pair_format.sides)}'"
    )
  texts = [files.lines(each) for each in existing]
  first, second = map(len, texts)
  if first != second:
    raise DataError(
      f"'{paths[0]}' has {first} lines and '{paths[1]}' has {second}: from some line on"
      " sides do not belong together; line them up again"
    )
  for number, (source, target) in enumerate(zip(*texts, strict=True), 1):
    yield TextPair(source.strip(), target.strip(), f"{path.name} line {number}")


def _table(path: pathlib.Path, pair_format: PairFormat, say: Say) -> Iterator[TextPair]:
  for row in pair_format.columns.read(path, say):
    source, target = (field.strip() for field in row.fields or ("", ""))
    where = f"{path.name} line {row.number}"
    yield TextPair(source, target, where, row.document.strip())


def _jsonl(path: pathlib.Path, pair_format: PairFormat, say: Say) -> Iterator[TextPair]:
  sides = pair_format.sides
  for number, line in enumerate(files.lines(path), 1):
    where = f"'{path}' line {number}"
    try:
      record = json.loads(line) if line.strip() else dict.fromkeys(sides, "")
    except ValueError as error:
      raise DataError(f"{where} is not JSON ({error}); correct it") from error
    texts = record.get("translation", record) if isinstance(record, dict) else {}
    missing = [x for x in sides if not isinstance(texts.get(x), str)]
    if missing:
      raise DataError(
        f"{where} has no text '{missing[0]}'; write"
        f' {{"{sides[0]}": "...", "{sides[1]}": "..."}} on every line'
      )
    source, target = (" ".join(texts[x].split()) for x in sides)
    document = str(record.get("document", ""))
    yield TextPair(source, target, f"{path.name} line {number}", document)


READERS = {".tsv": _table, ".csv": _table, ".jsonl": _jsonl}


def _cut(pairs: list[TextPair]) -> tuple[dict[str, list[TextPair]], dict[str, Any]]:
  """Splits by document; without documents into the first 90%, then 5% and 5%."""
  if pairs and all(pair.document for pair in pairs if pair.source or pair.target):
    by_name = collections.defaultdict(list)
    for pair in pairs:
      by_name[files.split_of(pair.document)].append(pair)
    if all(by_name[split] for split in SPLITS):
      return by_name, {"split": "by document"}
  places = [0, *(int(part * len(pairs)) for part in PARTS), len(pairs)]
  pieces = zip(SPLITS, places, places[1:], strict=False)
  return {name: pairs[a:b] for name, a, b in pieces}, {"split": "by place in the file"}
