"""Classification and tagging: rows of each format, checked by loops over the files."""

import importlib
import json

import jax
import numpy as np
import pytest

from transformer_jax.data import prepare
from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError, split_of
from transformer_jax.data.readers import tfds
from transformer_jax.data.tokenizers import BOS, EOS, PAD, load
from transformer_jax.numpy_interpreter import evaluate

KEY = jax.random.key(0)
BYTE = "tokenizer='byte'"
FIRST = 5  # the token of the byte 0
GENRES = ("news", "poem", "law")


def texts(count=120):
  """Returns (text, label, document); texts of 1 to 40 letters, all different."""
  rng, rows = np.random.default_rng(0), []
  for n in range(count):
    letters = "".join(map(chr, rng.integers(97, 123, 1 + n % 40)))
    rows.append((f"{letters} {n}", GENRES[n % 3], f"book{n // 2}"))
  return rows


ROWS = texts()
SENTENCES = [
  [(f"word{n}x{k}" if k % 2 else f"it's/{n}", ("nn", "nn-tl", "at")[k % 3])
   for k in range(1 + n % 7)]
  for n in range(90)
]  # fmt: skip


def build(name, path, *fields):
  return tasks.build(f"{name}({', '.join((repr(str(path)), BYTE, *fields))})")


def training(task, rows, length):
  arrays, _ = task.load()
  return evaluate(lambda key: task.batch(arrays, key, rows, length), KEY)


def scoring(task, rows, lengths, bucket):
  arrays, _ = task.load()
  program = jax.jit(lambda length: task.score(arrays, KEY, rows, length, bucket))
  batches = [jax.device_get(program(length)) for length in lengths]
  assert program._cache_size() == 1
  return batches


def bytes_of(text):
  return [FIRST + value for value in text.encode()]


def refusal(action):
  with pytest.raises(DataError) as caught:
    action()
  assert "\n" not in str(caught.value)
  return str(caught.value)


def write_tsv(path, rows):
  path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
  return path


@pytest.fixture
def tsv(tmp_path):
  return write_tsv(tmp_path / "all.tsv", ROWS)


def rows_of(batch):
  """Yields (tokens without padding, [(place, class) that counts], positions)."""
  for row in range(len(batch.input_BL)):
    real = np.flatnonzero(batch.at.order_BL[row] >= 0)
    assert real.tolist() == [*range(real[0], batch.input_BL.shape[1])]  # at the right
    assert (batch.input_BL[row, : real[0]] == PAD).all()
    counted = np.flatnonzero(batch.weight_BL[row])
    assert {*batch.weight_BL[row].tolist()} <= {0.0, 1.0}
    labels = [(int(n - real[0]), int(batch.target_BL[row, n])) for n in counted]
    yield batch.input_BL[row, real].tolist(), labels, batch.at.pos_BL[row, real]


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_text_is_framed_cut_and_has_one_label(tsv, kind):
  task = build("classification", tsv, f"kind='{kind}'", "classes=3")
  assert task.kind == kind and task.classes == 3
  known = {}
  for text, label, document in ROWS:
    if split_of(document) == "train":
      known[tuple([BOS, *bytes_of(text)[:18], EOS])] = sorted(GENRES).index(label)
  seen = set()
  for tokens, labels, positions in rows_of(training(task, 64, 20)):
    place = 0 if kind == "encoder" else len(tokens) - 1
    assert labels == [(place, known[tuple(tokens)])]
    np.testing.assert_array_equal(positions, np.arange(len(tokens)))
    seen.add(tuple(tokens))
  assert len(seen) > 25 and {len(x) for x in seen} >= {6, 20}


def test_longer_lengths_read_more_of_the_same_texts(tsv):
  task = build("classification", tsv, "classes=3")
  wanted = {text: label for text, label, name in ROWS if split_of(name) == "test"}
  count = len(wanted)
  batches = scoring(task, count, (8, 64), 64)
  read = []
  for length, batch in zip((8, 64), batches, strict=True):
    found = [*rows_of(batch)]
    assert all(tokens[0] == BOS and tokens[-1] == EOS for tokens, _, _ in found)
    read.append([bytes(t - FIRST for t in x[1:-1]).decode() for x, _, _ in found])
    labels = [sorted(GENRES)[label] for _, ((_, label),), _ in found]
    assert max(len(x) for x, _, _ in found) <= length
  assert sorted(read[1]) == sorted(wanted)
  assert labels == [wanted[text] for text in read[1]]
  assert read[0] == [text[:6] for text in read[1]]
  # There are fewer examples than rows: each still comes once.
  (more,) = scoring(task, count + 3, (64,), 64)
  np.testing.assert_array_equal(more.input_BL, batches[1].input_BL)


def examples(task):
  """Returns the (parts, labels) of both splits, and facts."""
  arrays, facts = task.load()
  found = {}
  for name in ("train", "scored"):
    data, rows = arrays[name], []
    for start, size in zip(data["start_E"], data["size_E"], strict=True):
      tokens = data["token_N"][start : start + size].tolist()
      rows.append((bytes(t - FIRST for t in tokens), data["label_N"][start]))
    found[name] = sorted(rows)
  return found, facts


def test_all_formats_say_the_same(tsv, tmp_path):
  expected, facts = examples(build("classification", tsv, "classes=3"))
  assert facts["split"] == "by document or text" and facts["labels"] == 3
  json.dumps(facts)
  lines = [{"text": a, "label": b, "document": c} for a, b, c in ROWS]
  path = tmp_path / "all.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  assert examples(build("classification", path, "classes=3"))[0] == expected
  named = [{"say": x["text"], "kind": x["label"], "document": x["document"]}
           for x in lines]  # fmt: skip
  path.write_text("".join(json.dumps(line) + "\n" for line in named))
  task = build("classification", path, "classes=3", "text='say'", "label='kind'")
  assert examples(task)[0] == expected
  folder = tmp_path / "splits"
  folder.mkdir()
  for split, stem in (("train", "train"), ("validation", "dev"), ("test", "test")):
    rows = [(a, b) for a, b, c in ROWS if split_of(c) == split]
    write_tsv(folder / f"{stem}.tsv", [("text", "label"), *rows])
  found, facts = examples(build("classification", folder, "classes=3"))
  assert found == expected and facts["split"] == "by file name"
  found, _ = examples(build("classification", folder, "classes=3", "limit=4"))
  assert [len(found[name]) for name in ("train", "scored")] == [4, 4]


def test_folders_are_labels_and_pieces_stay_together(tmp_path):
  for n in range(60):
    folder = tmp_path / GENRES[n % 3]
    folder.mkdir(exist_ok=True)
    lines = "".join(f"{n} line {k}\n\n" for k in range(5))
    (folder / f"{n}.txt").write_text(lines)
  found, facts = examples(build("classification", tmp_path, "classes=3", "lines=2"))
  pieces = {}
  for n in range(60):
    name = split_of(f"{GENRES[n % 3]}/{n}.txt")
    lines = [f"{n} line {k}" for k in range(5)]
    for k in (0, 2, 4):
      piece = "\n".join(lines[k : k + 2]).encode()
      pieces.setdefault(name, []).append((piece, sorted(GENRES).index(GENRES[n % 3])))
  assert found == {"train": sorted(pieces["train"]), "scored": sorted(pieces["test"])}
  assert facts["examples"] == {n: len(pieces[n]) for n in ("train", "test")}


def test_the_most_common_label_and_new_ones_are_said(tmp_path):
  folder = tmp_path
  write_tsv(folder / "train.tsv", [("a", "x"), ("b", "y"), ("c", "x"), ("", "y")])
  write_tsv(folder / "test.tsv", [("d", "x"), ("e", "z"), ("f", "x"), ("g", "y")])
  task = build("classification", folder)
  _, facts = task.load()
  assert facts["guess"] == {"label": "x", "accuracy": 0.5, "lookup": 0.5}
  assert facts["unseen"] == ["z"] and facts["labels"] == 3
  assert facts["left_out"]["train"]["empty"] == 1
  assert "line 4" in facts["left_out"]["train"]["first empty"]
  task.keep(folder / "run", task.load().fitted)
  assert json.loads((folder / "run" / "labels.json").read_text()) == ["x", "y", "z"]
  assert load(folder / "run" / "tokenizer").fingerprint == facts["vocabulary"]
  task.keep(folder / "run", task.load().fitted)
  write_tsv(folder / "test.tsv", [("d", "x"), ("e", "w")])
  other = build("classification", folder, "classes=5")
  assert "has other labels" in refusal(
    lambda: other.keep(folder / "run", other.load().fitted)
  )


def tagged_files(folder):
  """Writes the sentences in all formats."""
  slashes = [" ".join(f"{w}/{t}" for w, t in row) for row in SENTENCES]
  (folder / "brown.txt").write_text("\n\n".join(slashes) + "\n")
  columns = ["".join(f"{w}\t_\t{t}\n" for w, t in row) for row in SENTENCES]
  (folder / "all.conll").write_text("\n".join(columns))
  pairs = [[*zip(*row, strict=True)] for row in SENTENCES]
  lines = [json.dumps({"words": w, "tags": t}) for w, t in pairs]
  (folder / "all.jsonl").write_text("\n".join(lines))
  return "brown.txt", "all.conll", "all.jsonl"


def test_a_word_has_its_tag_at_its_first_token(tmp_path):
  names = tagged_files(tmp_path)
  found = [examples(build("tagging", tmp_path / name))[0] for name in names]
  assert found[0] == found[1] == found[2]
  task = build("tagging", tmp_path / "brown.txt")
  known = {}
  for row in SENTENCES:
    tokens, labels = [BOS], []
    for word, tag in row:
      labels.append((len(tokens), ["at", "nn", "nn-tl"].index(tag)))
      tokens += bytes_of(word)
    cut = [*tokens[:15], EOS]
    known[tuple(cut)] = [(place, tag) for place, tag in labels if place < len(cut) - 1]
  batch = training(task, 80, 16)
  for tokens, labels, _ in rows_of(batch):
    assert labels == known[tuple(tokens)]
  assert batch.weight_BL.sum() > 100
  for batch in scoring(task, 4, (6, 16), 16):
    assert (batch.weight_BL.sum(axis=1) > 0).all()


def test_the_most_common_tag_of_each_word_is_a_floor(tmp_path):
  said = "run/nn run/vb run/vb the/at\n\na/vb b/vb\n"
  (tmp_path / "train.tsv").write_text(said.replace(" ", "\n").replace("/", "\t"))
  # Guesses: vb (known), at (known), vb (new); then vb.
  (tmp_path / "test.tsv").write_text("run\tnn\nthe\tat\nnew\tvb\n\nrun\tvb\n")
  _, facts = build("tagging", tmp_path).load()
  assert facts["guess"]["label"] == "vb"
  assert facts["guess"]["accuracy"] == round((1 / 3 + 1) / 2, 4)
  assert facts["guess"]["lookup"] == round((2 / 3 + 1) / 2, 4)


def test_coarse_tags_are_what_a_pattern_finds(tmp_path):
  (tmp_path / "a").write_text("The/at City/nn-tl 's/bez$ ./.\n" * 60)
  (tmp_path / "b").write_text("He/ppss+bem sat/vbd\n" * 60)
  (tmp_path / "c").write_text("It/ppss was/fw-be\n" * 60)
  folder = tmp_path / "run"
  task = build("tagging", tmp_path, "coarse='[a-z]+'", "split='validation'")
  try:
    task.keep(folder, task.load().fitted)
  except DataError:  # three files may leave a split empty, which has a test of its own
    (tmp_path / "d").mkdir()
    for n in range(30):
      (tmp_path / "d" / f"{n}").write_text((tmp_path / "abc"[n % 3]).read_text())
    task.keep(folder, task.load().fitted)
  labels = json.loads((folder / "labels.json").read_text())
  assert labels == [".", "at", "bez", "fw", "nn", "ppss", "vbd"]


BAD_TEXTS = {
  "all.tsv": [
    ("good\tx\nno label\n", "line 2 has 1 of the 2 or 3 fields"),
    ("good\tx\nempty\t \n", "line 2 has an empty label"),
    (b"good\tx\nb\xff\ty\n", "line 2"),
    ("", "holds no example"),
  ],
  "all.jsonl": [
    ('{"text": "a", "label": "x"}\n{"text": "b"}', "line 2 has no text 'label'"),
    ('{"text": "a", "label": "x"}\n{"text"', "line 2 is not JSON"),
    ('{"text": "a", "label": "x"}\n[1]', "line 2 is no object"),
    ('{"text": 1.5, "label": "x"}', "line 1 has no text 'text'"),
  ],
  "all.xml": [
    ("<a/>", "is no file of examples; name one that ends in .tsv or .csv or .jsonl")
  ],
}
BAD_WORDS = {
  "all.txt": [
    ("The/at jury/nn\nsaid\n", "line 2 has 'said', which is no word with a tag"),
    ("The/at\n/nn", "line 2 has '/nn'"),
  ],
  "all.conll": [("The\tat\n\njury\n", "line 3 has a word without a tag")],
  "all.jsonl": [
    ('{"words": ["a"], "tags": []}', "line 1 has 1 words and 0 tags"),
    ('{"words": ["a"], "tags": [""]}', "line 1 has an empty label"),
    ('{"words": "a", "tags": ["b"]}', "line 1 has no list 'words'"),
    ('{"words": [["a"]], "tags": ["b"]}', "line 1 has no text 'words'"),
  ],
}


@pytest.mark.parametrize(
  "task, name, content, message",
  [
    (task, name, content, message)
    for task, bad in (("classification", BAD_TEXTS), ("tagging", BAD_WORDS))
    for name, cases in bad.items()
    for content, message in cases
  ],
)
def test_bad_files_are_said_with_their_line(tmp_path, task, name, content, message):
  path = tmp_path / name
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  said = refusal(build(task, path).load)
  assert message in said and name in said


@pytest.mark.parametrize(
  "fields, message",
  [
    (("split='train'",), "split 'train' cannot be scored"),
    (("classes=1",), "classes is 1; it must be at least 2"),
    (("limit=0",), "limit is 0"),
    (("kind='both'",), "kind is 'both'"),
    (("lines=-1",), "lines is -1"),
  ],
)
def test_bad_arguments_are_refused(tsv, fields, message):
  assert message in refusal(lambda: build("classification", tsv, *fields))


def test_what_does_not_fit_is_refused(tsv, tmp_path):
  task = build("classification", tsv, "classes=2")
  assert "has 3 labels (law, news, poem" in refusal(task.load)
  assert "classification(classes=3)" in refusal(task.load)
  assert "write train.length=3 or more" in refusal(lambda: task.tokens(2))
  assert "is no pattern" in refusal(lambda: build("tagging", tsv, "coarse='('"))
  missing = build("classification", tmp_path / "none.tsv")
  assert "there is no file or folder" in refusal(missing.load)
  (tmp_path / "empty").mkdir()
  assert "one folder for each label" in refusal(
    build("classification", tmp_path / "empty").load
  )
  write_tsv(tmp_path / "empty" / "train.tsv", ROWS)
  write_tsv(tmp_path / "empty" / "dev.tsv", ROWS)
  message = refusal(build("classification", tmp_path / "empty").load)
  assert "holds no test file; add test.tsv" in message


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """Prepares texts with classes and words with tags, as TFDS builders."""
  library = importlib.import_module("tensorflow_datasets")
  features = library.features

  class TinyLabels(library.core.GeneratorBasedBuilder):
    """Has classes with names, and one that is not told."""

    VERSION = library.core.Version("1.0.0")

    def _info(self):
      lists = {name: features.Sequence(features.Text()) for name in ("words", "tags")}
      kinds = {"sentence": features.Text(), "ends": features.Sequence(np.int64)}
      kinds["label"] = features.ClassLabel(names=GENRES)
      every = features.FeaturesDict(kinds | lists)
      return library.core.DatasetInfo(builder=self, features=every, description="Few.")

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split):
      for n in range(6):
        words, tags = zip(*SENTENCES[5], *SENTENCES[6], strict=True)
        label = -1 if split == "test" and n == 4 else n % 3
        yield n, {
          "sentence": f"größer {split} {n}", "label": label, "words": words,
          "tags": tags, "ends": [6, 13],
        }  # fmt: skip

  folder = str(tmp_path_factory.mktemp("labels"))
  prepare.prepare("tiny_labels", folder)
  return folder


def test_tfds_data_is_read_by_the_names_of_its_features(data_dir):
  where = f"data_dir={data_dir!r}", "limit=4"
  task = build("classification", "tfds:tiny_labels", "text='sentence'", *where)
  assert "has no label; score another split" in refusal(task.load)
  task = build("tagging", "tfds:tiny_labels", f"data_dir={data_dir!r}")
  found, facts = examples(task)
  assert facts["examples"] == {"train": 12, "test": 12}  # cut into sentences
  sentence = "".join(word for word, _ in SENTENCES[6]).encode()
  assert sentence in [text for text, _ in found["train"]]
  assert facts["version"] == "tiny_labels/1.0.0"
  task = build("classification", "tfds:tiny_labels", f"data_dir={data_dir!r}")
  assert "has no feature 'text'" in refusal(task.load)
  task = build("tagging", "tfds:tiny_labels", f"data_dir={data_dir!r}", "tags='label'")
  assert "record 0" in refusal(task.load)


def test_classes_of_tfds_have_their_names(data_dir):
  format = build("classification", "tfds:tiny_labels", "text='sentence'").format
  (example,) = format.record({"sentence": "größer", "label": "poem"}, "here")
  assert example.parts == ("größer",) and example.labels == ("poem",)
  records, _ = tfds.read_records(
    "tiny_labels", format.features, format.wanted, ("train",), data_dir
  )
  found = {x["sentence"]: x["label"] for x in records["train"]}
  assert found == {f"größer train {n}": GENRES[n % 3] for n in range(6)}
