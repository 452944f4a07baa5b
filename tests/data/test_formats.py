"""Formats that people bring: CSV, CoNLL, CoNLL-U, gzip, as strict as others."""

import gzip
import json

import jax
import numpy as np
import pytest
from test_bitext import PAIRS, sides
from test_labels import BYTE, ROWS, SENTENCES, build, examples, refusal, write_tsv

from transformer_jax.data import files
from transformer_jax.data.base import tasks
from transformer_jax.data.readers import bitext

SPLITS = "train", "validation", "test"


def packed(path):
  """Packs a file and removes it."""
  with gzip.open(f"{path}.gz", "wb") as file:
    file.write(path.read_bytes())
  path.unlink()
  return path.with_name(path.name + ".gz")


def quoted(fields):
  return ",".join('"{}"'.format(x.replace('"', '""')) for x in fields) + "\n"


def test_csv_has_commas_quotes_and_newlines_inside_fields(tmp_path):
  rows = [(f'say "{text}",\nagain', label, name) for text, label, name in ROWS]
  path = tmp_path / "all.csv"
  path.write_text("text,label,document\n" + "".join(map(quoted, rows)))
  lines = [{"text": a, "label": b, "document": c} for a, b, c in rows]
  other = tmp_path / "all.jsonl"
  other.write_text("".join(json.dumps(line) + "\n" for line in lines))
  found = [build("classification", x, "classes=3").load() for x in (path, other)]
  jax.tree.map(np.testing.assert_array_equal, found[0][0], found[1][0])
  assert found[0][1]["fingerprint"] == found[1][1]["fingerprint"]


@pytest.mark.parametrize(
  "content, says",
  [
    ('a,x\n"b"c,y\n', "line 2 is not CSV"),
    ('a,x\n"two\nlines",y\n"open,z\n', "line 4 is not CSV"),
    ("a;x\n", "line 1 has 1 of the 2 or 3 fields it needs: text,label, and document"),
    ('a,x\n"two\nlines",\n', "line 2 has an empty label"),
    ("text,label\na\n", "line 2 has 1 of the 2 fields that the file has columns"),
  ],
)
def test_wrong_csv_is_refused_with_its_line(tmp_path, content, says):
  path = tmp_path / "all.csv"
  path.write_text(content)
  assert says in refusal(build("classification", path).load)


def test_parallel_csv_is_read_as_tsv(tmp_path):
  (tmp_path / "a.tsv").write_text("".join(f"{en}\t{de}\n" for en, de in PAIRS))
  (tmp_path / "a.csv").write_text("de,en\n" + "".join(quoted(x[::-1]) for x in PAIRS))
  found = [bitext.read(str(tmp_path / f"a{n}"), "en-de", SPLITS)
           for n in (".tsv", ".csv")]  # fmt: skip
  assert all(sides(found[0][0][x]) == sides(found[1][0][x]) for x in SPLITS)


def test_packed_files_are_the_same_data(tmp_path):
  path = write_tsv(tmp_path / "all.tsv", ROWS)
  expected, facts = examples(build("classification", path, "classes=3"))
  found, other = examples(build("classification", packed(path), "classes=3"))
  assert found == expected and other["fingerprint"] == facts["fingerprint"]
  folder = tmp_path / "parts"
  folder.mkdir()
  for name, part in (("train", ROWS[:80]), ("test", ROWS[80:])):
    packed(write_tsv(folder / f"{name}.tsv", part))
  _, facts = examples(build("classification", folder, "classes=3"))
  assert facts["examples"] == {"train": 80, "test": 40}
  pages = tmp_path / "pages"
  for n in range(60):
    (pages / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
    (pages / "ab"[n % 2] / f"{n}.txt").write_text(f"page {n}")
  expected, _ = examples(build("classification", pages))
  for each in sorted(pages.glob("*/*.txt"))[::3]:
    packed(each)
  assert examples(build("classification", pages))[0] == expected


def test_packed_texts_and_pairs_are_the_same_data(tmp_path):
  text = tmp_path / "text"
  text.mkdir()
  for n in range(40):
    (text / f"{n}.txt").write_text(f"text of the file {n} " * 5)
  whole = files.read(str(text))
  for each in sorted(text.iterdir())[::3]:
    packed(each)
  assert files.read(str(text)) == whole
  (text / "0.txt").write_text("again")
  assert "'0.txt' and '0.txt.gz' are both there" in refusal(
    lambda: files.read(str(text))
  )
  for side, language in enumerate(("en", "de")):
    for name in ("train", "test"):
      path = tmp_path / f"{name}.{language}"
      path.write_text("".join(f"{pair[side]}\n" for pair in PAIRS))
      if name == "train" or language == "de":
        packed(path)
  for source in (tmp_path, tmp_path / "train"):
    found, _ = bitext.read(str(source), "en-de", ("train", "test"))
    assert sides(found["train"]) == PAIRS[: len(found["train"])]


def test_a_damaged_gzip_file_is_named(tmp_path):
  whole = packed(write_tsv(tmp_path / "all.tsv", ROWS))
  content = whole.read_bytes()
  torn = content[:60] + bytes([content[60] ^ 255]) + content[61:]
  for wrong in (content[:50], b"no gzip", torn):
    whole.write_bytes(wrong)
    said = refusal(build("classification", whole).load)
    assert "all.tsv.gz' is damaged" in said
  whole.write_bytes(gzip.compress(b"good\tx\nb\xff\ty\n"))
  assert "is not UTF-8 at byte 8" in refusal(build("classification", whole).load)


def slashes(folder):
  path = folder / "brown.txt"
  path.write_text("\n".join(" ".join(f"{w}/{t}" for w, t in x) for x in SENTENCES))
  return path


def conll(path, *before, between="\t"):
  """Writes the sentences as word, part of speech, chunk, tag."""
  lines = [between.join(x) for x in before]
  for sentence in SENTENCES:
    lines += [between.join((word, "XY", "O", tag)) for word, tag in sentence] + [""]
  path.write_text("\n".join(lines))
  return path


@pytest.mark.parametrize("between", ["\t", " "])
def test_conll_has_headers_and_named_columns(tmp_path, between):
  expected, plain = examples(build("tagging", slashes(tmp_path)))
  header = "word", "pos", "chunk", "ner"
  path = conll(tmp_path / "all.conll", between=between)
  for lines, fields, said in (
    ((), (), []),
    ((), ("columns='words,pos,chunk,tags'",), []),
    ((header,), (), [f"'{path}' line 1 is a header: word, pos, chunk, ner"]),
    ((header,), ("columns='words,pos,chunk,tags'",), ["is a header"]),
  ):
    conll(path, *lines, between=between)
    found, facts = examples(build("tagging", path, *fields))
    assert found == expected and facts["fingerprint"] == plain["fingerprint"]
    assert [x in y for x, y in zip(said, facts.get("notes", []), strict=True)] == [
      True
    ] * len(said)
  task = build("tagging", path, "columns='words,tags,chunk,other'")
  assert "has 1 labels (XY" in refusal(task.load)


def test_documents_of_conll_are_never_split_and_their_marks_are_no_words(tmp_path):
  blocks = []
  for n in range(60):
    words = "".join(f"word{n}x{k} NN O {('PER', 'O')[k % 2]}\n" for k in range(4))
    blocks.append(f"-DOCSTART- -X- -X- O\n\n{words}\n{words}\n")
  path = tmp_path / "eng.conll"
  path.write_text("".join(blocks))
  format = build("tagging", path).format
  found = format.file(path, print)
  assert len(found) == 120 and {x.labels for x in found} == {("PER", "O") * 2}
  assert [x.document for x in found[:3]] == ["eng.conll document 1"] * 2 + [
    "eng.conll document 2"
  ]
  assert sum(build("tagging", path).load()[1]["examples"].values()) < 120


CONLLU = """# newdoc id = a
# text = Vámonos al mar
1-2	Vámonos	_	_	_	_	_	_	_	_
1	Vamos	ir	VERB	V1	_	0	root	_	_
2	nos	nos	PRON	P1	_	1	obj	_	_
3	New York	mar	PROPN	N1	_	1	obl	_	_
3.1	va	ir	VERB	_	_	_	_	_	_

# newdoc
1	Sí	sí	INTJ	I1	_	0	root	_	_
"""


def test_conllu_has_words_but_no_ranges_and_empty_nodes(tmp_path):
  path = tmp_path / "es.conllu"
  path.write_text(CONLLU)
  first, second = build("tagging", path).format.file(path, print)
  assert first.parts == ("Vamos", "nos", "New York") and second.parts == ("Sí",)
  assert first.labels == ("VERB", "PRON", "PROPN") and second.labels == ("INTJ",)
  assert [first.document, second.document] == [
    f"es.conllu document {n}" for n in (1, 2)
  ]
  first, _ = build("tagging", packed(path), "tags='xpos'").format.file(
    tmp_path / "es.conllu.gz", print
  )
  assert first.labels == ("V1", "P1", "N1")


@pytest.mark.parametrize(
  "name, content, says",
  [
    ("a.conll", "The DT O\njury NN\n", "line 2 has 2 columns; write word TAB tag, as"),
    ("a.conll", "The\tDT\nNew York\n", "line 2 has a word without a tag"),
    ("a.conll", "Wort ner\nIch O\nbin O\n", "line 1 (Wort ner) may be a header"),
    ("a.conllu", "1\tThe\tthe\tDET\n", "line 1 has 4 of the 10 columns of CoNLL-U"),
  ],
)
def test_wrong_columns_of_words_are_refused(tmp_path, name, content, says):
  (tmp_path / "a.txt").write_text("The/at jury/nn\n")
  task = tasks.build(
    f"tagging({str(tmp_path / 'a.txt')!r}, {BYTE}, columns='words,tags')"
  )
  assert "names columns of .tsv, .conll, .conllu files" in refusal(task.load)
  (tmp_path / name).write_text(content)
  assert says in refusal(build("tagging", tmp_path / name).load)
