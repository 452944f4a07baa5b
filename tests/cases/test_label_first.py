"""Columns in another order.

Reported: with the label in the first column the advice was "holds no example; give more
text". Right: "are its columns exchanged?", and what to write.
"""

import pytest

from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError

ROWS = [(f"the film {n} and item {7 * n}", ("good", "bad")[n % 2]) for n in range(300)]


def load(path, rows, fields=""):
  path.write_text("".join("\t".join(row) + "\n" for row in rows))
  task = tasks.build(f"classification({str(path)!r}, tokenizer='byte'{fields})")
  return task.load()[1]


def test_exchanged_columns_are_asked_about_and_named(tmp_path):
  exchanged = [(label, text) for text, label in ROWS]
  with pytest.raises(DataError) as caught:
    load(tmp_path / "label_first.tsv", exchanged)
  said = str(caught.value)
  assert "has 300 different labels and 2 different texts: are its columns exch" in said
  assert "Write columns='label,text' if the label comes first" in said
  facts = load(tmp_path / "label_first.tsv", exchanged, ", columns='label,text'")
  plain = load(tmp_path / "plain.tsv", ROWS)
  assert facts["labels"] == 2 and facts["fingerprint"] == plain["fingerprint"]


def test_exchanged_columns_of_pairs(tmp_path):
  rows = [(label, text, f"second {text}") for text, label in ROWS]
  with pytest.raises(DataError, match="columns='label,text,second' if the label"):
    load(tmp_path / "a.tsv", rows, ", second='second'")
  facts = load(
    tmp_path / "a.tsv", rows, ", second='second', columns='label,text,second'"
  )
  assert facts["labels"] == 2


def test_exchanged_words_and_tags(tmp_path):
  path = tmp_path / "tags.tsv"
  rows = [(f"word{n}", ("noun", "verb")[n % 2]) for n in range(300)]
  path.write_text("".join(f"{tag}\t{word}\n\n" for word, tag in rows))
  fields = f"{str(path)!r}, tokenizer='byte'"
  with pytest.raises(DataError, match="300 different tags and 2 different words"):
    tasks.build(f"tagging({fields})").load()
  task = tasks.build(f"tagging({fields}, columns='tags,words')")
  assert task.load()[1]["labels"] == 2
