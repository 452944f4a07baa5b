"""Images: files in, batches out, and a ViT that learns where bright pixels are."""

import gzip
import io
import struct
import tarfile
import types

import jax
import numpy as np
import pytest
from test_prepare import mocked  # noqa: F401, a fixture

from experiments.configs import base, vision
from experiments.runner.build import build
from experiments.runner.cost import sizes, tokens_per_step
from experiments.setup import runs
from experiments.setup.validate import ConfigError, resolve, validate
from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.readers import image_files
from transformer_jax.data.tasks.labelled.images import grid, resized
from transformer_jax.numpy_interpreter import evaluate

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
NAMES = {"train": 40, "t10k": 12}  # the files of MNIST, and how many images are in each


def packed(array):
  """Writes an idx file by hand: two zeros, 8 for bytes, the axes and their sizes."""
  head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
  return head + array.astype(np.uint8).tobytes()


def files(rows=6, columns=6):
  """Returns {name: (content, array)} of four files of small random images."""
  found = {}
  for name, count in NAMES.items():
    image = RNG.integers(0, 256, (count, rows, columns))
    label_N = RNG.integers(0, 4, count)
    for what, axes, array in (("images", 3, image), ("labels", 1, label_N)):
      found[f"{name}-{what}-idx{axes}-ubyte.gz"] = packed(array), array
  return found


@pytest.fixture
def folder(tmp_path):
  for name, (content, _) in files().items():
    (tmp_path / name).write_bytes(gzip.compress(content))
  return tmp_path


def refusal(action):
  with pytest.raises(DataError) as caught:
    action()
  assert "\n" not in str(caught.value)
  return str(caught.value)


def read(source, *splits):
  return image_files.read(str(source), splits or ("train", "test"), None, None)


def test_idx_files_are_the_images_that_were_written(tmp_path):
  there = files()
  for name, (content, _) in there.items():
    (tmp_path / name).write_bytes(gzip.compress(content))
  found, facts = read(tmp_path, "train", "validation", "test")
  images, labels = (
    there[f"train-{x}-ubyte.gz"][1] for x in ("images-idx3", "labels-idx1")
  )
  np.testing.assert_array_equal(found["train"].image[..., 0], images[:36])
  np.testing.assert_array_equal(found["validation"].image[..., 0], images[36:])
  np.testing.assert_array_equal(found["validation"].label, labels[36:])
  np.testing.assert_array_equal(
    found["test"].label, there["t10k-labels-idx1-ubyte.gz"][1]
  )
  assert facts["images"] == {"train": 36, "validation": 4, "test": 12}
  assert len(facts["fingerprint"]) == 64


def test_a_debian_package_is_read_without_unpacking(tmp_path):
  tar = io.BytesIO()
  with tarfile.open(fileobj=tar, mode="w:xz") as inner:
    for name, (content, _) in files().items():
      member = tarfile.TarInfo(f"./usr/share/dataset-fashion-mnist/{name}")
      zipped = gzip.compress(content)
      member.size = len(zipped)
      inner.addfile(member, io.BytesIO(zipped))
  data = tar.getvalue()
  head = b"data.tar.xz".ljust(48) + str(len(data)).encode().ljust(10) + b"`\n"
  (tmp_path / "images.deb").write_bytes(b"!<arch>\n" + head + data)
  found, _ = read(tmp_path / "images.deb")
  assert found["test"].image.shape == (12, 6, 6, 1)


BAD = {
  "magic": ("t10k-images-idx3-ubyte.gz", lambda x: b"\1" + x[1:], "is no idx file of"),
  "axes": (
    "t10k-images-idx3-ubyte.gz",
    lambda x: packed(np.zeros((12, 36))),
    "is no idx file of",
  ),
  "short": ("t10k-images-idx3-ubyte.gz", lambda x: x[:-1], "12 x 6 x 6 and holds 431"),
  "none": (
    "t10k-labels-idx1-ubyte.gz",
    None,
    "holds 0 files of labels that start with",
  ),
  "fewer": ("t10k-labels-idx1-ubyte.gz", lambda x: packed(np.zeros(3)), "and 3 labels"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_idx_file_is_said_in_one_line(folder, name):
  file, change, says = BAD[name]
  content = gzip.decompress((folder / file).read_bytes())
  (folder / file).unlink()
  if change:
    (folder / file).write_bytes(gzip.compress(change(content)))
  assert says in refusal(lambda: read(folder))


def test_a_torn_file_and_a_missing_one_are_said_in_one_line(folder):
  path = folder / "t10k-images-idx3-ubyte.gz"
  path.write_bytes(path.read_bytes()[:40])
  assert "is damaged" in refusal(lambda: read(folder))
  assert "is no folder of idx files" in refusal(lambda: read("nowhere"))
  assert "cannot read 'nowhere.csv'" in refusal(lambda: read("nowhere.csv"))


def test_digits_are_lines_of_pixels_and_a_label(tmp_path):
  pixel_NP, label_N = RNG.integers(0, 17, (30, 64)), RNG.integers(0, 10, 30)
  pixel_NP[0, 0] = 16
  rows = [
    ",".join(map(str, (*row, n))) for row, n in zip(pixel_NP, label_N, strict=True)
  ]
  (tmp_path / "digits.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
  found, facts = read(tmp_path / "digits.csv.gz", "train", "validation", "test")
  assert facts["images"] == {"train": 24, "validation": 3, "test": 3}
  whole = np.concatenate([found[x].image for x in ("train", "validation", "test")])
  np.testing.assert_allclose(
    whole[..., 0].reshape(30, 64), pixel_NP * 255 / 16, atol=0.5
  )
  np.testing.assert_array_equal(found["test"].label, label_N[27:])
  for text, says in (("1,2,3", "3 numbers on a line"), ("1,x", "no table of numbers")):
    (tmp_path / "bad.csv").write_text(text)
    assert says in refusal(lambda: read(tmp_path / "bad.csv"))


# A cast would make 0, 255 or another class of them.
NO_IMAGES = {
  "empty": ("", "holds no image"),
  "blank": ("\n\n", "holds no image"),
  "not a number": ("0,nan,2,16,7", "has nan among the numbers of image 3"),
  "infinite": ("0,inf,2,16,7", "has inf among the numbers of image 3"),
  "negative": ("0,-1,2,16,7", "has -1 among the numbers of image 3"),
  "half a label": ("0,1,2,16,1.5", "has 1.5 among the numbers of image 3"),
  "no label": ("0,1,2,16,nan", "has nan among the numbers of image 3"),
  "label without end": ("0,1,2,16,inf", "has inf among the numbers of image 3"),
  "another size": ("0,1,2,3,4,5,6,7,8,1", "number of columns changed from 5 to 10"),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_table_of_images_is_said_in_one_line(tmp_path, name):
  line, says = NO_IMAGES[name]
  good = "0,1,2,16,7\n" if line.strip() else ""
  (tmp_path / "bad.csv").write_text(good * 2 + line + "\n" + good * 20)
  assert says in refusal(lambda: read(tmp_path / "bad.csv"))


def test_digits_by_name_are_those_of_scikit_learn(tmp_path, monkeypatch):
  where = "importlib.util.find_spec"
  monkeypatch.setattr(where, lambda name: None)
  assert "pip install scikit-learn" in refusal(lambda: read("digits"))
  path = tmp_path / "datasets" / "data" / "digits.csv.gz"
  path.parent.mkdir(parents=True)
  path.write_bytes(gzip.compress(b"\n".join([b"0,1,2,16,7"] * 20)))
  spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
  monkeypatch.setattr(where, lambda name: spec)
  found, _ = read("digits")
  np.testing.assert_array_equal(found["test"].image[0, ..., 0], [[0, 16], [32, 255]])
  assert found["test"].label.tolist() == [7, 7]


@pytest.mark.parametrize(("name", "channels"), [("fashion_mnist", 1), ("cifar10", 3)])
def test_images_of_tfds_go_the_same_way(mocked, name, channels):  # noqa: F811
  task = tasks.build(f"images('tfds:{name}', channels={channels})")
  arrays, facts = task.load()
  assert arrays["train"]["image"].shape[-1] == channels
  assert facts["images"] == {"train": 30, "test": 30}
  batch = evaluate(lambda arrays: task.batch(arrays, KEY, 4, 7), arrays)
  assert batch.input_BL.shape == (4, channels, 28, 28)
  if channels > 1:
    assert f"write images(channels={channels})" in refusal(
      tasks.build(f"images('tfds:{name}')").load
    )


def test_a_batch_is_images_of_the_split_with_their_class_at_the_first_place(folder):
  task = tasks.build(f"images({str(folder)!r}, patch=2, classes=4)")
  arrays, _ = task.load()
  batch = evaluate(lambda key: task.batch(arrays, key, 8, 3), KEY)
  assert batch.input_BL.shape == (8, 1, 6, 6) and batch.tokens == 8 * 10
  images = arrays["train"]["image"][..., 0] / 127.5 - 1
  for row in range(8):
    near_N = np.abs(images - batch.input_BL[row, 0]).max((1, 2))
    assert near_N.min() < 1e-5
    assert batch.target_BL[row, 0] == arrays["train"]["label_N"][near_N.argmin()]
  np.testing.assert_array_equal(batch.weight_BL, np.eye(1, 10).repeat(8, 0))


def test_every_image_is_scored_once_at_every_size(folder):
  task = tasks.build(f"images({str(folder)!r}, patch=2, classes=4)")
  arrays, _ = task.load()
  score = jax.jit(lambda length: task.score(arrays, KEY, 12, length, 6))
  small, large = score(3), score(6)
  assert score._cache_size() == 1
  np.testing.assert_array_equal(small.target_BL, large.target_BL)
  assert sorted(small.target_BL[:, 0]) == sorted(arrays["scored"]["label_N"])
  corner = np.asarray(small.input_BL)
  # The same images as in training stand in the corner of a larger grid.
  np.testing.assert_array_equal(corner[:, :, 6:], 0)
  np.testing.assert_array_equal(corner[..., 6:], 0)
  smooth = np.asarray(large.input_BL)
  # Between two pixels, twice as many pixels are three quarters of the one.
  want = 0.75 * corner[:, :, 1:5, 1:5] + 0.25 * corner[:, :, 0:4, 1:5]
  want = 0.75 * want + 0.25 * (
    0.75 * corner[:, :, 1:5, 0:4] + 0.25 * corner[:, :, 0:4, 0:4]
  )
  np.testing.assert_allclose(smooth[:, :, 2:10:2, 2:10:2], want, atol=1e-5)


def test_places_are_those_of_a_grid_in_the_corner_of_a_larger_one():
  at = grid(2, 3)
  rows, columns, order = [-1], [-1], [0]
  for row in range(3):
    for column in range(3):
      inside = row < 2 and column < 2
      rows.append(row if inside else -1)
      columns.append(column if inside else -1)
      order.append(1 + 2 * row + column if inside else -1)
  np.testing.assert_array_equal(at.data["row_BL"], [rows])
  np.testing.assert_array_equal(at.data["column_BL"], [columns])
  np.testing.assert_array_equal(at.order_BL, [order])
  np.testing.assert_array_equal(at.segment_BL, [[int(n >= 0) for n in order]])


def test_an_image_of_its_own_size_stays_as_it_is():
  image = RNG.integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
  got = evaluate(lambda image, side: resized(image, side, 5), image, np.int32(5))
  np.testing.assert_allclose(got, np.moveaxis(image, -1, 1) / 127.5 - 1, atol=1e-5)


STEPS = 80
SMALL = {"model.width": 16, "model.layers": 1, "model.heads": 2, "train.length": 4}
SMALL |= {
  "model.feedforward": 32,
  "train.steps": STEPS,
  "train.checkpoint_every": STEPS,
}
SMALL |= {"train.steps_per_dispatch": STEPS, "seeds": (0,), "evaluate.examples": 40}
SMALL |= {
  "evaluate.batch_size": 20,
  "train.schedule": "constant",
  "train.batch_size": 32,
}
SMALL |= {"train.optimizer": "adamw(lr=1e-2)", "model.dropout": 0.0}


@pytest.fixture
def corners(tmp_path):
  """Images that are bright in one quarter, which is their class."""
  rng = np.random.default_rng(1)
  label_N = rng.integers(0, 4, 200)
  image = rng.integers(0, 60, (200, 8, 8))
  for n, label in enumerate(label_N):
    row, column = divmod(int(label), 2)
    image[n, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 150
  for name, own in (("train", slice(0, 160)), ("t10k", slice(160, 200))):
    (tmp_path / f"{name}-images.idx3-ubyte").write_bytes(packed(image[own]))
    (tmp_path / f"{name}-labels.idx1-ubyte").write_bytes(packed(label_N[own]))
  return tmp_path


def small(corners, **changes):
  task = f"images({str(corners)!r}, patch=2, classes=4)"
  config = resolve(vision.get_config(), SMALL | {"task": task} | changes)
  validate(config)
  return build(config)


@pytest.mark.parametrize(
  "position",
  [
    x if x == "axial_rope" else pytest.param(x, marks=pytest.mark.slow)
    for x in vision.ENCODINGS
  ],
)
def test_a_vit_learns_where_it_is_bright_if_it_knows_where_patches_are(
  corners, position
):
  experiment = small(corners, **{"model.position": position})
  trainer = experiment.trainer
  arrays, _ = experiment.task.load()
  params = jax.jit(lambda: trainer.steps(arrays, trainer.init(0), STEPS)[0].params)()
  stacked = jax.tree.map(lambda x: x[None], params)
  scores = experiment.evaluator.run(stacked, arrays, (4, 8))
  value = {s["length"]: s["value"] for s in scores if s["part"] == "mean"}
  if position == "none":
    assert value[4] < 0.6  # of four classes: all images are as bright
    return
  assert value[4] > 0.9
  assert (value[8] is None) == (position == "learned")  # its table ends


def test_sizes_and_tokens_are_counted(corners):
  experiment = small(corners)
  arrays, _ = experiment.task.load()
  assert tokens_per_step(experiment.trainer, arrays) == 32 * 17
  D, F, V = 16, 32, 4
  layer = 4 * (D * D + D) + 2 * D * F + F + D + 4 * D
  want = (4 * D + D) + D + layer + 2 * D + (D * V + V)
  assert (
    sizes(small(corners, **{"model.position": "none"}).trainer.shapes.params)[0] == want
  )


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"model.embedding": "tokens"}, "these are images: write patches"),
    ({"model.embedding": "patches(size=3)"}, "write the same size of a patch in both"),
    ({"model.embedding": "patches(size=2, channels=3)"}, "write channels=1"),
    ({"task": "copy", "model.kind": "decoder"}, "this is text: write tokens"),
    ({"model.kind": "decoder"}, "write --config.model.kind=encoder"),
  ],
)
def test_a_model_that_cannot_read_images_is_refused(corners, changes, says):
  with pytest.raises(ConfigError, match=says):
    small(corners, **changes)


def test_a_recurrent_model_reads_no_images(corners):
  with pytest.raises(ValueError, match="a recurrent model has no embedding"):
    config = resolve(base.get_config(), {"model.family": "recurrent"})
    config.task = f"images({str(corners)!r}, patch=2, classes=4)"
    config.model.update(kind="encoder", embedding="patches(size=2)", position="none")
    config.train.length = 3
    build(config)


@pytest.mark.parametrize("which", ["sweep", "fashion"])
def test_every_run_of_the_plans_is_valid(which):
  made = getattr(vision, which)()
  todo = runs.expand(made, vision.get_config(), {})
  assert runs.baseline(made, todo) == "none" and len(todo) == len(vision.ENCODINGS)
  for each in todo:
    validate(each.config)
    build(each.config)


def test_wrong_numbers_are_refused():
  for field, says in (
    ("classes=0", "at least 1"),
    ("split='train'", "cannot be scored"),
  ):
    with pytest.raises(DataError, match=says):
      tasks.build(f"images('digits', {field})")


def test_labels_beyond_the_classes_are_refused(folder):
  says = refusal(tasks.build(f"images({str(folder)!r}, classes=3)").load)
  assert "write images(classes=4)" in says
