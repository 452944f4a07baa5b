"""A header of parallel text.

Reported: a .tsv file that says `de TAB en` on line 1 was trained en->de. Right: the
header decides, or one sentence.
"""

import pytest

from transformer_jax.data.files import DataError
from transformer_jax.data.readers import bitext

SPLITS = "train", "validation", "test"
ROWS = [(f"eins {n}", f"one {n}") for n in range(60)]


def read(path, *lines, pair="en-de", named=""):
  path.write_text("".join("\t".join(line) + "\n" for line in lines))
  return bitext.read(str(path), pair, SPLITS, named=named)


def sides(found):
  return [(x.source, x.target) for split in SPLITS for x in found[split]]


@pytest.mark.parametrize(
  "header", [("de", "en"), ("DE", "en-US"), ("German", "english"), ("target", "source")]
)
def test_the_header_decides(tmp_path, header):
  found, facts = read(tmp_path / "par_hdr_rev.tsv", header, *ROWS)
  assert sides(found) == [(en, de) for de, en in ROWS]
  (said,) = facts["notes"]
  assert f"line 1 is a header: en is '{header[1]}', de is '{header[0]}'" in said
  found, _ = read(tmp_path / "back.tsv", ("de", "en"), *ROWS, pair="de-en")
  assert sides(found) == ROWS


def test_documents_and_other_columns_have_names(tmp_path):
  rows = [(str(n), de, f"page {n}", en) for n, (de, en) in enumerate(ROWS)]
  header = "id", "de", "document", "en"
  found, facts = read(tmp_path / "a.tsv", header, *rows)
  assert sorted(sides(found)) == sorted((en, de) for de, en in ROWS)
  assert facts["split"] == "by document" and "not used: id" in facts["notes"][0]
  other, _ = read(tmp_path / "b.tsv", *rows, named="id,de,document,en")
  assert sides(other) == sides(found)


def test_a_header_of_other_languages_is_refused(tmp_path):
  with pytest.raises(DataError) as caught:
    read(tmp_path / "a.tsv", ("fr", "en"), *ROWS)
  said = str(caught.value)
  assert (
    "line 1 is a header (fr, en) with no 'de'; write pair='en-de' with lang" in said
  )
  found, facts = read(tmp_path / "a.tsv", ("fr", "en"), *ROWS, named="de,en")
  assert sides(found)[0] == ("en", "fr") and "notes" not in facts  # words, by columns=
  with pytest.raises(DataError, match="may be a header or an example"):
    read(tmp_path / "a.tsv", ("Deutsch", "Englisch"), *ROWS)


def test_ordinary_pairs_are_no_header(tmp_path):
  # "no" is a code, of Norwegian; nobody calls two columns by one name.
  found, facts = read(tmp_path / "a.tsv", ("no", "no"), *ROWS, pair="en-es")
  assert sides(found)[0] == ("no", "no") and "notes" not in facts
