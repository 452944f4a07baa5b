"""The task `signals`: patches in, classes out; Japanese vowels; bad files."""

import zipfile

import jax
import numpy as np
import pytest

from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.sources.japanese_vowels import FILE, JapaneseVowels

SIZES = (3, 7, 4, 9, 5, 1)
RNG = np.random.default_rng(0)
VALUES = [RNG.normal(loc=n % 2, size=(size, 2)) for n, size in enumerate(SIZES)]


def csv_of(values=VALUES):
  rows = [
    f"{n},{'no' if n % 2 else 'yes'},{x},{y}"
    for n, value_TC in enumerate(values)
    for x, y in value_TC
  ]
  return "\n".join(["example,label,loud,high", *rows]) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("signals")
  for name in ("train", "test", "validation"):
    (folder / f"{name}.csv").write_text(csv_of())
  return folder


def task_of(folder, **options):
  options = {"size": 2, "channels": 2, "classes": 2} | options
  listed = ", ".join(f"{name}={value!r}" for name, value in options.items())
  return tasks.build(f"signals({str(folder)!r}, {listed})")


def test_signals_are_those_of_the_file_in_patches(folder):
  task = task_of(folder)
  arrays, facts = task.load()
  assert facts["signals"] == {"train": 6, "test": 6} and facts["labels"] == 2
  every_TC = np.concatenate(VALUES)
  standard = [(x - every_TC.mean(0)) / every_TC.std(0) for x in VALUES]
  score = jax.jit(lambda n: task.score(arrays, jax.random.key(0), 10, n, 4))
  for length in (2, 4):
    batch = score(length)
    assert batch.input_BL.shape == (6, 8, 2) and batch.weight_BL.shape == (6, 5)
    left = [*range(6)]
    for row, x_TC in enumerate(np.asarray(batch.input_BL)):
      wanted = np.zeros((6, 8, 2))
      for n, x in enumerate(standard):
        size = min(len(x), 2 * length)
        wanted[n, :size] = x[:size]
      n = int(np.abs(wanted - x_TC).sum((1, 2)).argmin())
      left.remove(n)
      np.testing.assert_allclose(x_TC, wanted[n], atol=1e-5)
      patches = -(-min(SIZES[n], 2 * length) // 2)
      real_L = np.asarray(batch.at.real_BL)[row]
      assert real_L.tolist() == [n <= patches for n in range(5)]
      assert batch.target_BL[row, 0] == (0 if n % 2 else 1)  # no, yes
    assert not left and np.asarray(batch.weight_BL).tolist() == [[1, 0, 0, 0, 0]] * 6


def test_a_training_batch_draws_all_signals(folder):
  task = task_of(folder)
  arrays, _ = task.load()
  batch = task.batch(arrays, jax.random.key(0), 64, 4)
  assert set(np.asarray(batch.at.real_BL).sum(1).tolist()) == {2, 3, 4, 5}
  assert set(np.asarray(batch.target_BL)[:, 0].tolist()) == {0, 1}


BAD = {
  "empty": ("", "holds no line of numbers"),
  "text": ("example,label,loud,high\n0,yes,1,2\n0,yes,x,2\n", "line 3 has no number"),
  "NaN": ("example,label,loud,high\n0,yes,1,NaN\n", "line 2 has no number"),
  "channels": ("example,label,loud\n0,yes,1\n", "write signals(channels=1)"),
  "label": ("example,kind,loud,high\n0,yes,1,2\n", "signals(channels=3)"),
  "two labels": (csv_of() + "5,yes,0,0\n", "example 5 has the labels 'no' and 'yes'"),
  "apart": (csv_of() + "0,yes,0,0\n", "lines of one example apart"),
  "one class": (csv_of(VALUES[:1]), "has 1 labels"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_said_in_one_line(folder, tmp_path, name):
  text, says = BAD[name]
  (tmp_path / "train.csv").write_text(text)
  (tmp_path / "test.csv").write_text(csv_of())
  with pytest.raises(DataError) as caught:
    task_of(tmp_path).load()
  assert says in str(caught.value) and "\n" not in str(caught.value)


def test_bad_arguments(folder, tmp_path):
  with pytest.raises(DataError, match="cannot read .*train.csv"):
    task_of(tmp_path).load()
  with pytest.raises(DataError, match="prepare japanese_vowels"):
    task_of("japanese_vowels", data_dir=str(tmp_path)).load()
  with pytest.raises(DataError, match="classes is 1"):
    task_of(folder, classes=1)
  (tmp_path / "train.csv").write_text(csv_of())
  (tmp_path / "test.csv").write_text(csv_of().replace("no", "perhaps"))
  with pytest.raises(DataError, match="has the label 'perhaps', which"):
    task_of(tmp_path).load()


def test_vowels_are_read_from_a_wheel(tmp_path):
  """Aeon's format: channels apart by colons, moments by commas, the label last."""
  lines = [f"{n},{n}.5:{-n},-1:{n % 3}" for n in range(20)] + ["1,NaN:2,NaN:0"]
  wheel = tmp_path / "aeon.whl"
  with zipfile.ZipFile(wheel, "w") as archive:
    for split in ("TRAIN", "TEST"):
      archive.writestr(FILE.format(split), "\n".join(["#", "@data", *lines]))
  tables = JapaneseVowels().tables([wheel])
  count = lambda name: len({x.split(",")[0] for x in tables[name].splitlines()[1:]})
  assert {name: count(name) for name in tables} == {
    "train.csv": 18, "validation.csv": 3, "test.csv": 21,
  }  # fmt: skip
  assert tables["test.csv"].splitlines()[:3] == [
    "example,label,c0,c1", "0,0,0,0", "0,0,0.5,-1",
  ]  # fmt: skip
  assert tables["test.csv"].splitlines()[-1] == "20,0,1,2"
  wheel.write_bytes(b"PK not a zip")
  with pytest.raises(DataError, match="is no whole package"):
    JapaneseVowels().tables([wheel])
