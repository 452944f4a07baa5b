"""Classification of texts and of pairs of texts.

Devlin et al., 2019, section 4. https://arxiv.org/abs/1810.04805
"""

import dataclasses
import itertools
import json
import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import jax.numpy as jnp

from transformer_jax.data import files
from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.readers import labelled_text, table_columns
from transformer_jax.data.readers.bitext import TFDS
from transformer_jax.data.readers.labelled_text import Example, ExampleFormat
from transformer_jax.data.readers.table_columns import Columns, Say
from transformer_jax.data.tasks.labelled.base import Labelled
from transformer_jax.data.tasks.labelled.sentence_pairs import NONE

KINDS = ("encoder", "decoder")
MANY = 20  # examples; in fewer, a label that occurs once is no sign of a header
# Header names of a text, of the first and second text of a pair, and of a label.
WORDS = {
  role: frozenset(words.split())
  for role, words in {
    "text": "text sentence question review comment content utterance tweet message"
    " body",
    "pair": "text1 sentence1 question1 premise",
    "second": "second text2 sentence2 question2 hypothesis",
    "label": "label labels class category sentiment target tag polarity intent",
  }.items()
}


@tasks.register("classification")
@dataclasses.dataclass(frozen=True)
class Classification(Labelled):
  r"""Text classification: an encoder predicts at the start, a decoder at the end.

  A .tsv file has a text, a tab and a label on each line, and maybe a tab and the
  document, and a .csv file the same with commas; a header says where the columns are.
  Lines of a .jsonl file are {"text": "...", "label": "..."}; in a folder of folders
  each holds .txt files of one label. Any file may be packed, as .tsv.gz. GLUE is read
  by its names at TFDS: "'tfds:glue/sst2', text='sentence', split='validation'" and
  "'tfds:glue/mrpc', text='sentence1', second='sentence2', split='validation'", since
  its tests have no labels (Wang et al., 2019, https://arxiv.org/abs/1804.07461).

  text, label  their names in headers, .jsonl files and TFDS data
  second       the name of a second text there; it follows the first in a .tsv file too;
               '': examples are single texts
  columns      the names of all columns of a .tsv or .csv file in their order, as in
               'id,label,text'; '': a header names them, or they are text, second, label
  lines        lines per piece into which texts are cut; 0: whole texts
  kind         kind of model: encoder or decoder

  The other arguments are those of `Labelled` in base.py.

  >>> import tempfile
  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   for split in "train", "test":
  ...     path = pathlib.Path(folder, f"{split}.tsv")
  ...     _ = path.write_text("good film\tpositive\nbad film\tnegative\n")
  ...   task = tasks.build(f"classification({folder!r}, 'word(size=8)', classes=2)")
  ...   data = task.load()
  >>> data.fitted.labels, data.fitted.tokenizer.pieces[5:]
  (['negative', 'positive'], ('▁film', '▁bad', '▁good'))
  >>> chosen_B = jnp.array([0, 1])
  >>> batch = evaluate(lambda: task.rows(data[0], "train", chosen_B, 4, 4))
  >>> batch.input_BL.tolist()
  [[1, 7, 5, 2], [1, 6, 5, 2]]
  >>> batch.target_BL[:, 0].tolist(), batch.weight_BL[0].tolist()
  ([1, 0], [1.0, 0.0, 0.0, 0.0])
  """

  text: str = "text"
  label: str = "label"
  second: str = ""
  columns: str = ""
  lines: int = 0
  kind: str = "encoder"

  whole: ClassVar[bool] = True

  def __post_init__(self):
    super().__post_init__()
    if self.kind not in KINDS:
      raise DataError(
        f"classification: kind is {self.kind!r}; write encoder or decoder"
      )
    if self.lines < 0:
      raise DataError(f"classification: lines is {self.lines}; write 0 or more")
    if self.lines and self.second:
      raise DataError(
        f"classification: lines={self.lines} would cut the texts of a pair into pieces;"
        " write lines=0"
      )
    table_columns.named(self.columns, self.format.features)
    if self.source.startswith(TFDS):
      table_columns.check_used(self.columns, self.source)

  @property
  def format(self):
    return TextFormat(self.text, self.label, self.second, self.columns, self.lines)

  @property
  def pairs(self):
    return bool(self.second)

  def asked(self, line, where):
    texts, names = line.split("\t") if self.second else [line], self.format.names
    if len(texts) != len(names):
      raise DataError(
        f"{where} has {len(texts)} of the 2 texts of a pair; write"
        f" {' TAB '.join(names)}"
      )
    text, *second = (x.strip() for x in texts)
    return Example((text,), (), where, second=tuple(second))

  def answered(self, example, found):
    return "" if found[0] is None else f"{found[0][0]}\t{found[0][1]:.4f}"

  def targets(self, label_N, places):
    where_B1 = 0 if self.kind == "encoder" else places.size_B1 + 1
    return jnp.where(places.place_BL == where_B1, label_N[places.first_B1], NONE)


@dataclasses.dataclass(frozen=True)
class TextFormat(ExampleFormat):
  """File formats of labelled texts and pairs of texts.

  >>> import tempfile
  >>> pairs = TextFormat("premise", "label", "hypothesis", columns="", lines=0)
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   path = pathlib.Path(folder, "train.jsonl")
  ...   _ = path.write_text('{"premise": "a", "hypothesis": "b", "label": "no"}')
  ...   example = pairs.file(path, say=print)[0]
  >>> example.texts, example.labels
  (('a', 'b'), ('no',))
  """

  text: str
  label: str
  second: str
  columns: str
  lines: int

  wanted: ClassVar[str] = (
    "a data set of texts with labels, or its features: text='...', label='...', and"
    " second='...' if there are pairs"
  )

  @property
  def names(self) -> tuple[str, ...]:
    """Feature names of the one or two texts."""
    return (self.text, self.second) if self.second else (self.text,)

  @property
  def features(self):
    return *self.names, self.label

  @property
  def readers(self):
    return {".tsv": self._table, ".csv": self._table, ".jsonl": self._jsonl}

  def record(self, record: dict[str, Any], where: str) -> Iterator[Example]:
    if record[self.label] == NONE:
      raise DataError(f"{where} has no label; score another split with split='...'")
    document, texts = str(record.get("document", "")), [record[x] for x in self.names]
    return self._pieces(texts, str(record[self.label]), where, document)

  def file(self, path: pathlib.Path, say: Say) -> list[Example]:
    table_columns.check_used(self.columns, str(path))
    found = super().file(path, say)
    if not self.columns:
      self._check_exchanged(path, found)
      self._mention_first(found, say)
    return found

  def folder(self, path: pathlib.Path, say: Say) -> Iterator[Example]:
    table_columns.check_used(self.columns, str(path))
    patterns = ("*/*.txt", f"*/*.txt{files.GZIP}")
    paths = sorted(each for pattern in patterns for each in path.glob(pattern))
    if self.second or not paths:
      raise DataError(
        f"folder '{path}' holds no train.tsv, train.csv or train.jsonl and, unless"
        " there are pairs, no folders with .txt files, one folder for each label; put"
        " some there"
      )
    for each in paths:
      name = each.relative_to(path).as_posix().removesuffix(files.GZIP)
      text = "\n".join(files.lines(each))
      yield from self._pieces([text], each.parent.name, f"'{each}'", name)

  @property
  def _columns(self) -> Columns:
    """Columns of a table; header synonyms serve default feature names only."""
    words = {"text": WORDS["pair" if self.second else "text"], "label": WORDS["label"]}
    words = {name: words[name] for name in {*words} & {*self.features}}
    if self.second:
      words[self.second] = WORDS["second"] if self.second == "second" else frozenset()
    hint = "text='...', label='...' and, for pairs, second='...'"
    named = table_columns.named(self.columns, self.features)
    return Columns(
      self.features, words, named, hint, frozenset().union(*WORDS.values())
    )

  def _table(self, path: pathlib.Path, say: Say) -> Iterator[Example]:
    for row in self._columns.read(path, say):
      if row.fields:
        *texts, label = row.fields
        where = f"'{path}' line {row.number}"
        yield from self._pieces(texts, label, where, row.document)

  def _check_exchanged(self, path: pathlib.Path, found: list[Example]) -> None:
    """Raises DataError if there are more distinct labels than distinct texts."""
    fields = zip(*(example.texts for example in found), strict=True)
    texts = min(({*column} for column in fields), key=len, default=set())
    labels = {label for example in found for label in example.labels}
    if len(labels) > len(texts):
      back = ",".join((self.features[-1], *self.names))
      raise DataError(
        f"'{path}' has {len(labels)} different labels and {len(texts)} different texts:"
        f" are its columns exchanged? Write columns='{back}' if the label comes first,"
        f" or columns='{','.join(self.features)}' if all is right"
      )

  def _mention_first(self, found: list[Example], say: Say) -> None:
    """Warns of a possible header: only the first line's label occurs just once."""
    counts = Counter(label for example in found for label in example.labels)
    once = [label for label, count in counts.items() if count == 1]
    if len(found) > MANY and once == [*found[0].labels]:
      say(
        f"{found[0].where} has the label '{once[0]}', which no other line has: if it is"
        " a header, write columns='...' and take the line out"
      )

  def _jsonl(self, path: pathlib.Path, say: Say) -> Iterator[Example]:
    for number, said in json_lines(path):
      where = f"'{path}' line {number}"
      *texts, label = (labelled_text.text(said.get(x), x, where) for x in self.features)
      yield from self._pieces(texts, label, where, str(said.get("document", "")))

  def _pieces(
    self, texts: list[str], label: str, where: str, document: str
  ) -> Iterator[Example]:
    """Yields one example, or its pieces of `self.lines` lines.

    texts      the text, or the two texts of a pair
    label      of the example and of each piece
    where      file and line, for messages
    document   its group in splits; "": pieces are grouped by `where`
    """
    labels, (text, *others) = (labelled_text.label(label, where),), texts
    if not self.lines:
      second = tuple(x.strip() for x in others)
      yield Example((text.strip(),), labels, where, document, second)
      return
    lines = (line for line in text.split("\n") if line.strip())
    pieces = iter(lambda: "\n".join(itertools.islice(lines, self.lines)), "")
    for n, piece in enumerate(pieces, 1):
      yield Example((piece,), labels, f"{where} piece {n}", document or where)


def json_lines(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields the number and the JSON object of each line that is not empty."""
  for number, line in enumerate(files.lines(path), 1):
    where = f"'{path}' line {number}"
    try:
      said = json.loads(line) if line.strip() else None
    except ValueError as error:
      raise DataError(f"{where} is not JSON ({error}); correct it") from error
    if said is not None and not isinstance(said, dict):
      raise DataError(f'{where} is no object; write {{"name": value, ...}}')
    if said is not None:
      yield number, said
