"""Translation: an encoder reads one language, a decoder writes the other.

Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
"""

import dataclasses
import functools
import pathlib
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data import languages
from transformer_jax.data.base import (
  MANY,
  Batch,
  GenerationSet,
  Task,
  TaskData,
  check_fitted,
  check_sizes,
  check_split,
  note,
  shape,
  tasks,
)
from transformer_jax.data.encoded import encoded
from transformer_jax.data.files import DataError
from transformer_jax.data.readers import bitext, table_columns
from transformer_jax.data.readers.bitext import TextPair
from transformer_jax.data.tasks.language.pair_rows import (
  arrays_of,
  fit_shares,
  fitting,
  lay_out,
  packed,
)
from transformer_jax.data.tokenizers import Tokenizer, tokenizers
from transformer_jax.positions import coords

ENOUGH = 1_000_000  # the most texts for training a vocabulary

FEW = 1024  # pairs of data of unknown size


@tasks.register("translation")
@dataclasses.dataclass(frozen=True)
class Translation(Task):
  r"""Translation: predicts the next token. The length is the most tokens of a side.

  The encoder reads the source and an end token; the decoder reads a start token and the
  target, and predicts the target and an end token. One vocabulary serves both sides.

  source     'tfds:NAME', a .tsv, .csv or .jsonl file, the path before .en and .de, or a
             folder with such files train, validation and test; any may be gzipped, as
             train.en.gz
  pair       'en-de' translates from en to de
  columns    the names of all columns of a .tsv or .csv file in their order, as in
             'id,de,en'; '': a header names them, or they are the source, the target
             and, if there is a third, the document
  tokenizer  byte, char(size=512), word(size=16000) or subword(size=8000), trained on
             both sides of the training text; or existing ones, unchanged:
             huggingface('FOLDER/tokenizer.json'), kept('runs/.../ID')
  max_length    pairs with a side of more tokens are left out, and counted
  packed     the most pairs in a row of a training batch, one after another; pairs are
             drawn one by one and those with no room left in their row are dropped, so
             long ones are drawn a little less often
  split      the scored split: 'test' or 'validation'
  limit      the most pairs of each split; None: all
  data_dir   folder of prepared TFDS data; None: TFDS's default
  bleu_tokenizer
             sacreBLEU tokenizer: 13a, zh, char, ja-mecab, ...;
             '': by the target language, or by its script

  >>> import tempfile
  >>> import transformer_jax as tj
  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   for split in "train", "test":
  ...     path = pathlib.Path(folder, f"{split}.tsv")
  ...     _ = path.write_text("ein Hund\ta dog\n")
  ...   spec = f"translation({folder!r}, 'de-en', 'word(size=12)')"
  ...   task = tj.tasks.build(spec)
  ...   data = task.load()
  >>> batch = evaluate(lambda: task.batch(data[0], jax.random.key(0), 1, length=3))
  >>> pieces = [*data.fitted.pieces]
  >>> [pieces[n] for n in batch.source_BL[0]], [pieces[n] for n in batch.input_BL[0]]
  (['▁ein', '▁Hund', '</s>'], ['<s>', '▁a', '▁dog'])
  """

  source: str
  pair: str = "en-de"
  tokenizer: str = "subword(size=8000)"
  max_length: int = 128
  packed: int = 1
  split: str = "test"
  limit: int | None = None
  data_dir: str | None = None
  columns: str = ""
  bleu_tokenizer: str = ""

  kind: ClassVar[str] = "encoder_decoder"
  measures: ClassVar[tuple[str, ...]] = ("accuracy",)

  def __post_init__(self):
    table_columns.named(self.columns, bitext.sides_of(self.pair))
    tokenizers.build(self.tokenizer)
    if self.bleu_tokenizer:
      languages.check_bleu_tokenizer(self.bleu_tokenizer)
    name = tasks.name_of(self)  # of a subclass: its own
    check_split(name, self.split)
    check_sizes(name, max_length=self.max_length, packed=self.packed, limit=self.limit)

  @property
  def vocabulary(self) -> int:
    return tokenizers.build(self.tokenizer).vocabulary

  def tokens(self, length: int) -> int:
    return length

  def read(self) -> tuple[dict[str, list[TextPair]], dict[str, Any]]:
    """Returns the pairs of the train and the scored split, and facts."""
    splits = ("train", self.split)
    return bitext.read(
      self.source, self.pair, splits, self.data_dir, self.limit, self.columns
    )

  def learned(self, pairs: list[TextPair]) -> Tokenizer:
    """Returns the tokenizer, trained on both sides of the training pairs."""
    texts = [text for pair in pairs for text in (pair.source, pair.target)]
    some = tuple(texts[:: -(-len(texts) // ENOUGH)])
    learned = _learned(self.tokenizer, some)
    if len(some) == len(texts) or not learned.trained_on:
      return learned
    counts = {"texts": len(some), "of_texts": len(texts)}
    return dataclasses.replace(learned, trained_on=learned.trained_on | counts)

  def load(self) -> TaskData:
    """Returns the tokens of the train and the scored split, facts, and the tokenizer.

    Pairs are sorted by length, the shortest first. Each split has token_N, start_P2
    and size_P2 (first indices in token_N of the two sides of a pair, and their numbers
    of tokens) and ends_2, the start and the end token. Raises DataError, in one line,
    for unusable data.
    """
    pairs, facts = self.read()
    texts = {
      split: [text for pair in some for text in (pair.source, pair.target)]
      for split, some in pairs.items()
    }
    learn = functools.partial(self.learned, pairs["train"])
    found = encoded(self.tokenizer, texts, learn, ["translation", ENOUGH])
    tokenizer = found.tokenizer
    facts |= tokenizer.facts
    note(facts, *tokenizer.notes)
    arrays, ends_2 = {}, np.array([tokenizer.start, tokenizer.end], np.int32)
    for name, split in (("train", "train"), ("scored", self.split)):
      some_P = self._short(found.size_D[split], split)
      kept = [pairs[split][n] for n in some_P]
      facts["left_out"][split] |= bitext.left_out(pairs[split], kept, "too long")
      facts["pairs"][split] = len(kept)
      arrays[name] = arrays_of(found, split, some_P) | {"ends_2": ends_2}
    facts["tokens"] = int(arrays["train"]["size_P2"].sum())
    facts["fit"] = fit_shares(arrays["train"], self.max_length)
    return TaskData(arrays, facts, tokenizer)

  def abstract(self) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    # Few pairs: a step searches those that fit, two operations for each, which the
    # costs of a run with its data count too.
    split = {"start_P2": shape(FEW, 2), "size_P2": shape(FEW, 2)}
    split |= {"token_N": shape(MANY), "ends_2": shape(2)}
    return {"train": split, "scored": split}

  def check(self, arrays: Any, length: int) -> None:
    """Raises DataError unless a training pair fits into `length`."""
    least = int(np.max(arrays["train"]["size_P2"], axis=1).min()) + 1
    if least > length:
      raise DataError(
        f"translation: no training pair of '{self.source}' fits into {length} tokens;"
        f" the shortest needs {least}: write train.length={least} or more"
      )

  def keep(self, folder: pathlib.Path, fitted: Tokenizer) -> None:
    """Saves the vocabulary with a run. Raises DataError if another is there."""
    check_fitted(self, fitted, Tokenizer)
    fitted.save(folder / "tokenizer")

  def generation_set(self, fitted: Tokenizer) -> GenerationSet:
    """Returns all pairs of the scored split, long ones included."""
    check_fitted(self, fitted, Tokenizer)
    return _generation_set(self, fitted)

  def available(self, arrays: Any) -> int:
    """Returns the number of pairs of the scored split."""
    return len(arrays["scored"]["size_P2"])

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns pairs whose sides fit into `length`, padded on the right.

    arrays       `TaskData.arrays` of `load`
    key          chooses the pairs, with replacement
    batch_size   rows, each of up to `packed` pairs
    length       tokens of a row, L
    progress     unused: share of training that is done
    """
    data = arrays["train"]
    if coords.is_concrete(data["size_P2"]):
      self.check(arrays, length)
    fit = jnp.maximum(fitting(data, length), 1)
    chosen_BT = jax.random.randint(key, (batch_size, self.packed), 0, fit)
    start_BT2 = packed(jnp.asarray(data["size_P2"])[chosen_BT] + 1, length)
    batch = lay_out(data, chosen_BT, start_BT2, length)
    if self.packed > 1:
      return batch
    # Padding is on the right of the target, so all rows share their coordinates.
    return dataclasses.replace(batch, at=coords.consecutive(1, length))

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns pairs whose sides fit into `length`, aligned right in `bucket` tokens.

    Each pair comes once. With fewer pairs than rows, the other rows have weight zero.

    arrays       `TaskData.arrays` of `load`
    key          chooses the pairs, without replacement
    batch_size   the most rows
    length       int32 scalar, the most tokens of a side
    bucket       tokens of a row, L
    """
    data = arrays["scored"]
    P = data["size_P2"].shape[0]
    fit = fitting(data, length)
    drawn_P = jax.random.uniform(key, (P,))
    order_P = jnp.argsort(jnp.where(jnp.arange(P) < fit, drawn_P, 2.0))
    row_B = jnp.arange(min(batch_size, P))
    chosen_B1 = order_P[row_B % jnp.maximum(fit, 1)][:, None]
    start_B12 = bucket - jnp.asarray(data["size_P2"])[chosen_B1] - 1
    batch = lay_out(data, chosen_B1, start_B12, bucket)
    weight_BL = jnp.where((row_B < fit)[:, None], batch.weight_BL, 0.0)
    return dataclasses.replace(batch, weight_BL=weight_BL)

  def _short(self, size_D: np.ndarray, split: str) -> np.ndarray:
    """Returns the indices of pairs without a side of more than `max_length` tokens.

    size_D   int64, number of tokens of each side of each pair
    """
    some_P = np.flatnonzero(size_D.reshape(-1, 2).max(axis=1) <= self.max_length)
    if not some_P.size:
      raise DataError(
        f"every pair of the {split} split of '{self.source}' has a side of more than"
        f" {self.max_length} tokens; write {tasks.name_of(self)}(max_length=...)"
      )
    return some_P


@functools.lru_cache(maxsize=2)  # runs of a sweep share a task and its tokenizer
def _generation_set(task: Translation, tokenizer: Tokenizer) -> GenerationSet:
  pairs, _ = task.read()
  examples = [(pair.source, pair.target) for pair in pairs["train"]]
  scored = pairs[task.split]
  sources, references = ([getattr(x, n) for x in scored] for n in ("source", "target"))
  _, language = bitext.sides_of(task.pair)
  usual = functools.partial(languages.bleu_tokenizer, language, references)
  return GenerationSet(
    sources, references, examples, tokenizer, task.bleu_tokenizer or usual()
  )


@functools.lru_cache(maxsize=4)
def _learned(spec: str, texts: tuple[str, ...]) -> Tokenizer:
  return tokenizers.build(spec).train(texts)
