"""TFDS data without TensorFlow: prepared, read in both formats, never fetched."""

import hashlib
import importlib
import json
import pathlib
import struct
import types

import jax
import numpy as np
import pytest
from test_prepare import mocked  # noqa: F401, a fixture

from transformer_jax.data import prepare
from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.readers import tfds
from transformer_jax.data.tasks.language.text import Text
from transformer_jax.data.tokenizers import EOS

LINES = {
  "train": [f"Zeile {n} größer als {n * n}\nund weiter " * 5 for n in range(20)],
  "test": [f"test {n} " * 40 for n in range(3)],
}


@pytest.fixture(scope="module")
def library():
  return importlib.import_module("tensorflow_datasets")


@pytest.fixture(scope="module")
def tales(library):
  """Registers the data set tiny_tales."""

  class TinyTales(library.core.GeneratorBasedBuilder):
    """Shows a builder that needs no download."""

    VERSION = library.core.Version("1.0.0")

    def _info(self):
      text = library.features.FeaturesDict({"text": library.features.Text()})
      return library.core.DatasetInfo(builder=self, features=text, description="Tales.")

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(split) for split in LINES}

    def _generate_examples(self, split):
      for number, line in enumerate(LINES[split]):
        yield number, {"text": line}

  return TinyTales


@pytest.fixture(scope="module")
def data_dir(tales, tmp_path_factory):
  folder = str(tmp_path_factory.mktemp("tfds"))
  prepare.prepare("tiny_tales", folder)
  return folder


def refusal(action):
  with pytest.raises(DataError) as caught:
    action()
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_prepared_text_is_read_whole(data_dir):
  task = Text(source="tfds:tiny_tales", data_dir=data_dir, window=64, scored=16)
  arrays, facts = task.load()
  records = arrays["train_N"].tobytes().decode("utf-8")
  for line in LINES["train"]:
    assert line in records
  assert len(records) == sum(map(len, LINES["train"])) + 19  # joined by newlines
  assert facts["version"] == "tiny_tales/1.0.0" and facts["windows"] > 10
  assert facts["bytes"]["train"] == arrays["train_N"].size
  json.dumps(facts)


def test_limit_stops_reading(data_dir):
  task = Text(source="tfds:tiny_tales", data_dir=data_dir, window=64, limit=500)
  assert task.load()[1]["bytes"] == {"train": 500, "test": 500}


def test_preparing_again_does_nothing(data_dir):
  files = lambda: {p: p.stat().st_mtime_ns for p in pathlib.Path(data_dir).rglob("*")}
  before = files()
  assert prepare.prepare("tiny_tales", data_dir) == f"{data_dir}/tiny_tales/1.0.0"
  assert files() == before


def test_a_split_that_is_not_there_is_named(data_dir):
  task = Text(source="tfds:tiny_tales", data_dir=data_dir, split="validation")
  assert "has no split 'validation', only train, test" in refusal(task.load)


def example(text):
  """Writes tf.train.Example {text: bytes_list} by hand: fields are tag, size, bytes."""

  def field(number, content):
    size, digits = len(content), b""
    while size > 127:
      digits, size = digits + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + digits + bytes([size]) + content

  entry = field(1, b"text") + field(2, field(1, field(1, text.encode())))
  return field(1, field(1, entry))


def framed(record):
  return struct.pack("<Q", len(record)) + b"crc1" + record + b"crc2"


@pytest.fixture
def tfrecord_dir(data_dir, tmp_path):
  """The same data as TFRecord, in one file per split, as TensorFlow would leave it."""
  old = pathlib.Path(data_dir, "tiny_tales", "1.0.0")
  new = tmp_path / "tiny_tales" / "1.0.0"
  new.mkdir(parents=True)
  (new / "features.json").write_text((old / "features.json").read_text())
  info = (old / "dataset_info.json").read_text()
  info = info.replace("array_record", "tfrecord")
  (new / "dataset_info.json").write_text(info)
  for split, lines in LINES.items():
    records = b"".join(framed(example(line)) for line in lines)
    (new / f"tiny_tales-{split}.tfrecord-00000-of-00001").write_bytes(records)
  return tmp_path


def test_tfrecord_is_the_same_text(data_dir, tfrecord_dir):
  texts = []
  for folder in (data_dir, tfrecord_dir):
    task = Text(source="tfds:tiny_tales", data_dir=str(folder), window=64)
    texts.append(task.load()[0]["train_N"])
  # array_record is shuffled when it is written.
  assert texts[0].size == texts[1].size
  np.testing.assert_array_equal(np.sort(texts[0]), np.sort(texts[1]))
  assert texts[1].tobytes().decode("utf-8") == "\n".join(LINES["train"])


def test_a_torn_tfrecord_names_the_file_and_the_byte(tfrecord_dir):
  path = next(tfrecord_dir.rglob("*-train.tfrecord*"))
  whole = path.read_bytes()
  first = len(framed(example(LINES["train"][0])))
  task = Text(source="tfds:tiny_tales", data_dir=str(tfrecord_dir), window=64)
  for size in (first + 5, first + 40):  # inside the head, inside the record
    path.write_bytes(whole[:size])
    says = refusal(task.load)
    assert str(path) in says and f"inside the record at byte {first}" in says


def test_other_formats_are_refused(tfrecord_dir):
  info = next(tfrecord_dir.rglob("dataset_info.json"))
  info.write_text(info.read_text().replace("tfrecord", "riegeli"))
  task = Text(source="tfds:tiny_tales", data_dir=str(tfrecord_dir), window=64)
  assert "prepared as riegeli" in refusal(task.load)


@pytest.mark.parametrize("name", ["tiny_shakespeare", "lm1b", "wiki40b/en"])
def test_unprepared_data_names_the_command(library, tmp_path, name):
  says = refusal(Text(source=f"tfds:{name}", data_dir=str(tmp_path)).load)
  command = f"python -m transformer_jax.data.prepare {name} --data_dir={tmp_path}"
  assert "not prepared" in says and says.endswith(command)


@pytest.mark.parametrize(
  ("name", "says"),
  [
    ("tiny_shakespear", "Did you mean 'tiny_shakespeare'"),
    ("mnist", "no feature 'text' but image, label"),
    ("lm1b:9.9.9", "cannot build 'lm1b:9.9.9'"),
  ],
)
def test_a_name_without_text_is_refused(library, tmp_path, name, says):
  assert says in refusal(Text(source=f"tfds:{name}", data_dir=str(tmp_path)).load)


def test_tiny_shakespeare_is_prepared_without_tensorflow(
  library, tmp_path, monkeypatch
):
  """Takes TFDS's own builder; the download is a file put in place by hand."""
  play = "Thou shalt be tested.\n" * 500
  manual = tmp_path / "downloads" / "manual"
  manual.mkdir(parents=True)
  (manual / "input.txt").write_text(play)
  infos = library.builder("tiny_shakespeare", data_dir=str(tmp_path)).url_infos
  url, info = next(iter(infos.items()))
  checksum = hashlib.sha256(play.encode()).hexdigest()
  fake = type(info)(library.core.units.Size(len(play)), checksum, "input.txt")
  monkeypatch.setitem(infos, url, fake)
  prepare.prepare("tiny_shakespeare", str(tmp_path))
  task = Text(source="tfds:tiny_shakespeare", data_dir=str(tmp_path))
  arrays, facts = task.load()
  assert arrays["train_N"].tobytes().decode() == play[: len(play) * 9 // 10]
  assert facts["version"] == "tiny_shakespeare/1.0.0"


def test_a_server_out_of_reach_is_said_at_once(library, tmp_path, monkeypatch):
  def refuse(request, timeout):
    raise OSError("no route to host")

  monkeypatch.setattr("urllib.request.urlopen", refuse)
  says = refusal(lambda: prepare.prepare("lm1b", str(tmp_path)))
  assert "cannot reach www.statmt.org to prepare 'lm1b' (no route to host)" in says
  assert f"put it at {tmp_path}/downloads/manual/1-billion" in says


def test_a_builder_that_needs_more_says_what(tales, tmp_path, monkeypatch):
  def need(self, split):
    importlib.import_module("apache_beam_is_not_here")

  monkeypatch.setattr(tales, "_generate_examples", need)
  says = refusal(lambda: prepare.prepare("tiny_tales", str(tmp_path)))
  assert "needs the package 'apache_beam_is_not_here'" in says


def test_the_command_fails_in_one_line(library, tmp_path, monkeypatch):
  for flag, value in (("DATA_DIR", str(tmp_path)), ("CORPUS", None), ("TOKENIZER", "")):
    monkeypatch.setattr(prepare, flag, types.SimpleNamespace(value=value))
  monkeypatch.setattr(prepare.logging, "set_verbosity", lambda level: None)
  with pytest.raises(SystemExit) as ended:
    prepare.main(["prepare", "tiny_shakespear"])
  says = str(ended.value)
  assert says.startswith("prepare: TFDS knows no data set 'tiny_shakespear'")
  assert "\n" not in says


@pytest.mark.slow
def test_the_command_fails_in_one_line_of_its_process(commands, library, tmp_path):
  wrong = commands.run(
    "transformer_jax.data.prepare", "tiny_shakespear", f"--data_dir={tmp_path}"
  )
  assert wrong.returncode == 1
  assert wrong.stderr.startswith("prepare: TFDS knows no data set 'tiny_shakespear'")
  assert wrong.stderr.count("\n") == 1


def test_tensorflow_is_never_imported(commands, data_dir):
  """A fresh process reads text and then says what it imported."""
  code = f"""
import sys
from transformer_jax.data.tasks.language.text import Text
from transformer_jax.data.tokenizers import EOS
assert "tensorflow_datasets" not in sys.modules
Text(source="tfds:tiny_tales", data_dir={data_dir!r}, window=64).load()
print(*sorted({{"tensorflow", "tensorflow_datasets", "torch"}} & set(sys.modules)))
"""
  told = commands.run(code=code)
  assert told.stdout.split() == ["tensorflow_datasets"], told.stderr


@pytest.mark.parametrize("name", ["tokens", "prefix_tokens", "masked"])
def test_lm1b_is_read_and_cut_into_batches(mocked, name):  # noqa: F811
  task = tasks.build(f"{name}('tfds:lm1b', tokenizer='byte', window=32, scored=8)")
  arrays, facts = task.load()
  assert facts["split"] == "by TFDS" and facts["version"].startswith("lm1b/")
  there = importlib.import_module("tensorflow_datasets").builder("lm1b")
  there = there.as_data_source(split="train")
  text = "\n".join(there[n]["text"] for n in range(30))
  assert arrays["train_N"][-1] == EOS
  # The first five tokens are special, the others bytes.
  assert bytes((arrays["train_N"][:-1] - 5).tolist()).decode() == text
  batch = jax.jit(lambda arrays: task.batch(arrays, jax.random.key(0), 4, 16))(arrays)
  assert batch.input_BL.shape == batch.target_BL.shape == (4, 16)
  again = task.load()[0]["train_N"]
  np.testing.assert_array_equal(arrays["train_N"], again)


def test_a_name_with_other_features_says_which_it_has(mocked):  # noqa: F811
  says = refusal(Text(source="tfds:glue/sst2").load)
  assert "has no feature 'text' but idx, label, sentence" in says


def test_the_command_is_named_with_its_folder():
  assert tfds.prepare_command("lm1b", None).endswith("prepare lm1b")
  assert tfds.prepare_command("lm1b", "d").endswith("prepare lm1b --data_dir=d")
