"""A header of a .tsv file.

Reported: `sentence TAB label` on line 1 became an example and a third class. Right: a
known header is used or left out, and said.
"""

import pytest

from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError

FIELDS = "tokenizer='byte', classes=4"
ROWS = [(f"the film {n} and item {7 * n}", ("good", "bad")[n % 2]) for n in range(300)]


def build(path, fields=""):
  return tasks.build(f"classification({str(path)!r}, {FIELDS}{fields})")


def write(path, *lines, between="\t"):
  path.write_text("".join(between.join(line) + "\n" for line in lines))
  return path


def refusal(action):
  with pytest.raises(DataError) as caught:
    action()
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_a_known_header_is_no_example(tmp_path):
  _, plain = build(write(tmp_path / "plain.tsv", *ROWS)).load()
  path = write(tmp_path / "header1.tsv", ("sentence", "label"), *ROWS)
  _, facts = build(path).load()
  assert facts["labels"] == 2 and facts["fingerprint"] == plain["fingerprint"]
  (said,) = facts["notes"]
  assert said == f"'{path}' line 1 is a header: text is 'sentence', label is 'label'"
  assert "notes" not in plain


def test_a_header_says_where_the_columns_are(tmp_path):
  _, plain = build(write(tmp_path / "plain.tsv", *ROWS)).load()
  rows = [(str(n), label, text) for n, (text, label) in enumerate(ROWS)]
  path = write(tmp_path / "a.tsv", ("ID", "Class", "Review"), *rows)
  _, facts = build(path).load()
  assert facts["fingerprint"] == plain["fingerprint"]
  assert "text is 'Review', label is 'Class'; not used: ID" in facts["notes"][0]
  path = write(tmp_path / "b.tsv", ("stars", "year", "opinion"), *rows)
  said = refusal(build(path, ", text='opinion', label='stars'").load)
  assert "labels (0, 1, 10, 100, 102, ...)" in said  # the numbers of the lines
  _, facts = build(path, ", text='opinion', label='year'").load()
  assert facts["fingerprint"] == plain["fingerprint"]


def build_rows(path, header, fields=""):
  return build(write(path / "x.tsv", header, *ROWS), fields)


def test_a_header_that_leaves_something_open_is_refused(tmp_path):
  said = refusal(build_rows(tmp_path, ("sentence", "review")).load)
  assert "is a header (sentence, review) with 2 columns for 'text'" in said
  said = refusal(build_rows(tmp_path, ("index", "sentence")).load)
  assert "with no 'label'; write text='...', label='...'" in said
  said = refusal(build_rows(tmp_path, ("comment", "Stimmung")).load)
  assert "(comment, Stimmung) may be a header or an example" in said
  assert "if it is an example, columns='text,label'" in said


def test_columns_decides(tmp_path):
  task = build_rows(tmp_path, ("comment", "good"), ", columns='text,label'")
  _, facts = task.load()
  assert sum(facts["examples"].values()) and "notes" not in facts
  _, plain = build(write(tmp_path / "plain.tsv", *ROWS)).load()
  assert facts["fingerprint"] != plain["fingerprint"]  # one example more
  task = build_rows(tmp_path, ("sentence", "label"), ", columns='text,label'")
  _, facts = task.load()
  assert facts["fingerprint"] == plain["fingerprint"]
  assert "a header, left out; columns= names the columns" in facts["notes"][0]


def test_a_header_of_new_words_is_at_least_mentioned(tmp_path):
  _, facts = build_rows(tmp_path, ("Meinung", "Stimmung")).load()
  (said,) = facts["notes"]
  assert "line 1 has the label 'Stimmung', which no other line has" in said


def test_wrong_columns_are_refused(tmp_path):
  path = write(tmp_path / "a.tsv", *ROWS)
  said = refusal(lambda: build(path, ", columns='text,name'"))
  assert "columns='text,name' must name 'label' once" in said
  (tmp_path / "a.jsonl").write_text('{"text": "a", "label": "b"}\n')
  task = build(tmp_path / "a.jsonl", ", columns='text,label'")
  assert "names columns of .tsv and .csv files" in refusal(task.load)
  said = refusal(lambda: build("tfds:glue/sst2", ", columns='text,label'"))
  assert "names columns of .tsv and .csv files" in said
  task = build(path, ", columns='id,text,label'")
  assert "line 1 has 2 of the 3 fields that the file has columns" in refusal(task.load)
