"""Checkpoints: whatever the disk or the process suffers, an intact one comes back."""

import dataclasses
import json
import logging
import os
import resource
import shutil
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from transformer_jax import hosts
from transformer_jax.training import checkpoint, checkpoint_note, checksum
from transformer_jax.training.checkpoint import CheckpointError, Keeper
from transformer_jax.training.json_files import (
  FileError,
  check_same_config,
  read_json,
  write_json,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tiny:
  """A state with every kind of leaf that training has: two seeds, typed keys."""

  step: jax.Array
  params: dict
  key: jax.Array


def tiny(step, width=64):
  random = np.random.default_rng(step)
  params = {
    "weight_SDF": jnp.asarray(random.normal(size=(2, width, 32)), jnp.float32),
    "gain_SD": jnp.asarray(random.normal(size=(2, width)), jnp.bfloat16),
    "mask": jnp.asarray([True, False, True]),
  }
  steps = jnp.full((2,), step, jnp.int32)
  return Tiny(steps, params, jax.random.split(jax.random.key(step), 2))


def shapes(state):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)


def bits(leaf):
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  return np.asarray(leaf).tobytes()


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype and bits(x) == bits(y)


@pytest.fixture
def said():
  return []


@pytest.fixture
def saved(tmp_path):
  """A folder with the intact steps 10 and 20."""
  folder = tmp_path / "checkpoints"
  with Keeper(folder) as keeper:
    for step in (10, 20):
      keeper.save(step, tiny(step), {"note": f"at {step}"})
  return folder


def largest(folder):
  files = [path for path in folder.rglob("d/*") if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def flip_a_bit(file):
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)


def test_restores_the_newest_bit_for_bit(saved, said):
  with Keeper(saved, say=said.append) as keeper:
    state, meta = keeper.restore(shapes(tiny(0)))
  assert_equal(state, tiny(20))
  assert meta == {"note": "at 20", "step": 20}
  assert said == []


def test_nothing_to_restore(tmp_path, said):
  with Keeper(tmp_path / "new", say=said.append) as keeper:
    assert keeper.restore(shapes(tiny(0))) is None
  assert said == []


def test_keeps_the_newest_and_leaves_a_saved_step_alone(saved, said):
  with Keeper(saved, say=said.append) as keeper:
    keeper.save(20, tiny(99), {})
    keeper.save(30, tiny(30), {})
  assert said == []
  with Keeper(saved) as keeper:
    assert keeper.steps() == [20, 30]
    shutil.rmtree(saved / "30")
    state, _ = keeper.restore(shapes(tiny(0)))
  assert_equal(state, tiny(20))


def test_the_state_may_be_donated_while_it_is_saved(tmp_path):
  forward = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  state = {"a": jnp.zeros((256, 256)), "b": jnp.arange(5)}
  with Keeper(tmp_path) as keeper:
    keeper.save(1, state, {})
    for _ in range(3):
      state = forward(state)
    restored, _ = keeper.restore(shapes(state))
  assert float(restored["a"].sum()) == 0.0


DAMAGE = {
  "truncated data": lambda d: os.truncate(largest(d), largest(d).stat().st_size // 2),
  "empty data": lambda d: os.truncate(largest(d), 0),
  "missing data": lambda d: largest(d).unlink(),
  "a flipped bit": lambda d: flip_a_bit(largest(d)),
  "a flipped bit in the note": lambda d: (d / "meta" / "metadata").write_text(
    (d / "meta" / "metadata").read_text().replace("at 20", "at 21")
  ),
  "no manifest": lambda d: [f.unlink() for f in d.rglob("manifest.ocdbt")],
  "no state": lambda d: shutil.rmtree(d / "state"),
  "an empty folder": lambda d: (shutil.rmtree(d), d.mkdir()),
  "a file in its place": lambda d: (shutil.rmtree(d), d.write_text("no folder")),
  "a note that is a list": lambda d: (d / "meta" / "metadata").write_text("[]"),
  "an empty note": lambda d: os.truncate(d / "meta" / "metadata", 0),
  "a folder for a note": lambda d: (
    (d / "meta" / "metadata").unlink(),
    (d / "meta" / "metadata").mkdir(),
  ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_step_is_kept_and_the_one_before_used(saved, said, kind):
  DAMAGE[kind](saved / "20")
  with Keeper(saved, say=said.append) as keeper:
    state, meta = keeper.restore(shapes(tiny(0)))
    assert_equal(state, tiny(10))
    assert meta["step"] == 10
    assert len(said) == 1 and "\n" not in said[0]
    assert f"{saved}/20 is damaged" in said[0] and "20.damaged" in said[0]
    assert (saved / "20.damaged").exists()
    keeper.save(20, tiny(20), {})  # the step can be saved again
  with Keeper(saved, say=said.append) as keeper:
    assert_equal(keeper.restore(shapes(tiny(0)))[0], tiny(20))
  assert len(said) == 1


def test_only_damaged_steps_start_from_the_beginning(saved, said):
  for step in ("10", "20"):
    flip_a_bit(largest(saved / step))
  with Keeper(saved, say=said.append) as keeper:
    assert keeper.restore(shapes(tiny(0))) is None
  assert "no intact checkpoint" in said[-1]
  assert {path.name for path in saved.iterdir()} == {"10.damaged", "20.damaged"}


def other(name, change):
  state = shapes(tiny(0))
  return dataclasses.replace(state, params=state.params | {name: change})


@pytest.mark.parametrize(
  ("abstract", "expected"),
  [
    (
      other("weight_SDF", jax.ShapeDtypeStruct((2, 64, 32), jnp.bfloat16)),
      r"params.weight_SDF: there float32\[2, 64, 32\], now bfloat16\[2, 64, 32\]",
    ),
    (
      other("gain_SD", jax.ShapeDtypeStruct((2, 65), jnp.bfloat16)),
      r"params.gain_SD: there bfloat16\[2, 64\], now bfloat16\[2, 65\]",
    ),
    (
      other("bias_SD", jax.ShapeDtypeStruct((2, 64), jnp.float32)),
      r"params.bias_SD: there \(absent\), now float32\[2, 64\]",
    ),
  ],
  ids=["dtype", "shape", "missing"],
)
def test_another_model_is_refused_and_nothing_set_aside(saved, abstract, expected):
  with Keeper(saved) as keeper, pytest.raises(CheckpointError, match=expected):
    keeper.restore(abstract)
  assert {path.name for path in saved.iterdir()} == {"10", "20"}


def test_trouble_that_is_not_damage_sets_nothing_aside(saved, monkeypatch):
  def too_large(*_):
    raise MemoryError("out of memory")

  monkeypatch.setattr(Keeper, "_read", too_large)
  with Keeper(saved) as keeper, pytest.raises(MemoryError):
    keeper.restore(shapes(tiny(0)))
  assert {path.name for path in saved.iterdir()} == {"10", "20"}


def placed(mesh, specs, tree):
  where = lambda x, spec: jax.ShapeDtypeStruct(
    x.shape, x.dtype, sharding=NamedSharding(mesh, spec)
  )
  return jax.tree.map(where, tree, specs)


def make_mesh(shape, names):
  return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names))


def test_restores_on_another_mesh(tmp_path, said):
  at_save = Tiny(
    P(), {"weight_SDF": P(None, "x", "y"), "gain_SD": P(), "mask": P()}, P()
  )
  by_seed = Tiny(
    P("seed"), {"weight_SDF": P("seed", "d"), "gain_SD": P("seed"), "mask": P()}, P()
  )
  here = placed(make_mesh((4, 2), ("x", "y")), at_save, tiny(7))
  there = placed(make_mesh((2, 2), ("seed", "d")), by_seed, tiny(7))
  state = jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), tiny(7), here)
  with Keeper(tmp_path, say=said.append) as keeper:
    keeper.save(7, state, {})
    restored, _ = keeper.restore(there)
  assert_equal(restored, tiny(7))
  for got, asked in zip(jax.tree.leaves(restored), jax.tree.leaves(there), strict=True):
    assert got.sharding.is_equivalent_to(asked.sharding, got.ndim)
    assert len(got.sharding.device_set) == 4
  assert said == []


def test_fingerprints_are_equal_on_every_sharding_and_see_every_change():
  weight = jax.random.normal(jax.random.key(0), (16, 24))
  mesh = make_mesh((4, 2), ("x", "y"))
  split = jax.device_put(weight, NamedSharding(mesh, P("x", "y")))
  prints = lambda x: checksum.fingerprints({"x": x})["x"]
  assert prints(weight) == prints(split)
  swapped = weight.at[jnp.array([3, 5])].set(weight[jnp.array([5, 3])])
  assert prints(swapped) != prints(weight)
  for dtype in (jnp.bool_, jnp.int8, jnp.bfloat16, jnp.float16, jnp.uint32):
    array = jnp.arange(6).astype(dtype)
    assert prints(array) != prints(array.at[2].set(array[0]))


def test_an_even_number_of_sign_flips_is_noticed():
  weight = jax.random.normal(jax.random.key(0), (8, 8))
  prints = lambda x: checksum.fingerprints({"x": x})["x"]
  assert prints(-weight) != prints(weight)
  assert prints(weight.at[0, :2].multiply(-1)) != prints(weight)
  # The sums of older checkpoints are blind to the last; the whole turned matrix too.
  assert checksum._sums(-weight).tolist() == checksum._sums(weight).tolist()


# What the older code returned for these arrays: -1 to 1 as `linspace` rounded them.
LINE = [3212836864, 3206125978, 3192704206, 1045220559, 1058642330, 1065353216]
OLD = {"a": [4190948561, 2445844739], "b": [3, 2027808453]}


def test_checkpoints_with_older_fingerprints_are_verified_by_those(
  tmp_path, said, monkeypatch
):
  line = jnp.asarray(np.array(LINE, np.uint32).view(np.float32))
  state = {"a": line, "b": jnp.asarray([True, True, False, True])}
  monkeypatch.setattr(checkpoint_note, "fingerprints", lambda leaves: OLD)
  with Keeper(tmp_path) as keeper:
    keeper.save(10, state, {})
    keeper.save(20, {**state, "b": ~state["b"]}, {})
  with Keeper(tmp_path, say=said.append) as keeper:
    restored, meta = keeper.restore(shapes(state))
  assert_equal(restored, state)
  assert meta["step"] == 10 and len(said) == 1 and "bits of b differ" in said[0]


def test_other_versions_are_said(saved, said, monkeypatch):
  then = checkpoint.versions()
  monkeypatch.setattr(checkpoint, "versions", lambda: then | {"jax": "0.0.1"})
  with Keeper(saved, say=said.append) as keeper:
    assert keeper.restore(shapes(tiny(0))) is not None
  assert len(said) == 1 and f"jax {then['jax']}, now 0.0.1" in said[0]


def test_a_file_in_the_place_of_the_folder_is_kept_aside(tmp_path, capsys):
  (tmp_path / "checkpoints").write_text("no folder")
  with Keeper(tmp_path / "checkpoints") as keeper:
    keeper.save(10, tiny(10), {})
  assert (tmp_path / "checkpoints.damaged").read_text() == "no folder"
  assert (
    "checkpoints is no folder; kept as checkpoints.damaged" in capsys.readouterr()[1]
  )


def test_a_folder_removed_while_it_trains_is_made_again(saved, said):
  with Keeper(saved, say=said.append) as keeper:
    shutil.rmtree(saved)
    keeper.save(30, tiny(30), {})
    keeper.wait()
    keeper.save(40, tiny(40), {})
  assert keeper.steps()[-1] == 40
  with Keeper(saved) as keeper:
    assert_equal(keeper.restore(shapes(tiny(0)))[0], tiny(40))


class FullDisk:
  """Refuses files larger than 64 KiB, which is how a full disk looks to a writer."""

  def __enter__(self):
    self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, self.before[1]))

  def __exit__(self, *exception):
    resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def poll_until(keeper, said, count):
  deadline = time.monotonic() + 30
  while len(said) < count:
    assert time.monotonic() < deadline, "the failed save was not noticed"
    keeper.poll()
    time.sleep(0.01)


def test_a_failed_save_is_noticed_and_training_goes_on(saved, said, capfd, caplog):
  large = tiny(30, width=8192)
  keeper = Keeper(saved, say=said.append)
  with FullDisk():
    keeper.save(30, large, {})
    poll_until(keeper, said, 1)
  assert "step 30 could not be saved in" in said[0] and str(saved) in said[0]
  assert "MiB free" in said[0] and "\n" not in said[0]
  assert keeper.steps() == [10, 20]
  keeper.save(40, tiny(40), {})
  keeper.close()
  assert len(said) == 1
  assert keeper.steps() == [20, 40]
  assert not list(saved.glob("*tmp*"))
  assert capfd.readouterr().err == ""  # one line, and not Orbax's pages
  assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_close_raises_when_the_last_save_failed(saved, said):
  keeper = Keeper(saved, say=said.append)
  with FullDisk(), pytest.raises(CheckpointError, match="continues from step 20"):
    keeper.save(30, tiny(30, width=8192), {})
    keeper.close()
  with Keeper(saved) as keeper:
    assert_equal(keeper.restore(shapes(tiny(0)))[0], tiny(20))


def test_an_error_in_training_is_not_hidden_by_a_failed_save(saved, said):
  with (
    FullDisk(),
    pytest.raises(ZeroDivisionError),
    Keeper(saved, say=said.append) as k,
  ):
    k.save(30, tiny(30, width=8192), {})
    raise ZeroDivisionError


SAVES_FOR_EVER = """
import pathlib, sys, test_checkpoint
from transformer_jax.training.checkpoint import Keeper
keeper = Keeper(sys.argv[1])
for step in range(1, 10**6):
  keeper.save(step, test_checkpoint.tiny(step, width=1 << 15), {})
"""


def test_kill_9_while_saving(commands, tmp_path):
  path = os.pathsep.join([os.path.dirname(__file__), os.getcwd()])
  child, texts = commands.start(
    "", str(tmp_path), code=SAVES_FOR_EVER, environment={"PYTHONPATH": path}
  )
  try:
    deadline = time.monotonic() + 120
    while not (list(tmp_path.glob("[2-9]*tmp*")) and list(tmp_path.glob("[0-9]"))):
      assert time.monotonic() < deadline
      time.sleep(0.001)
  finally:
    os.kill(child, signal.SIGKILL)
    assert commands.wait((child, texts)).returncode == -signal.SIGKILL
  with Keeper(tmp_path) as keeper:
    state, meta = keeper.restore(shapes(tiny(0, width=1 << 15)))
    assert_equal(state, tiny(meta["step"], width=1 << 15))
    keeper.save(meta["step"] + 1, tiny(0), {})
  assert not list(tmp_path.glob("*tmp*"))


def test_same_config_is_accepted(tmp_path):
  there = {"model": {"width": 64}, "lengths": (1, 2)}
  check_same_config(tmp_path, there, {"model.width": 64, "lengths": [1, 2]})


def test_another_config_is_refused(tmp_path):
  there = {"model.position": "rope", "a": 1, "b": True}
  now = {"model.position": "alibi", "a": 1, "b": 1, "c": None}
  with pytest.raises(FileError) as error:
    check_same_config(tmp_path, there, now)
  text = str(error.value)
  assert str(tmp_path) in text and "--workdir" in text and "delete" in text
  assert '  model.position: there "rope", now "alibi"\n' in text
  assert "  b: there true, now 1\n" in text
  assert "  c: there (absent), now null\n" in text
  assert "  a:" not in text


def test_write_json_replaces_at_once(tmp_path):
  path = tmp_path / "status.json"
  write_json(path, {"state": "running"})
  with FullDisk(), pytest.raises(OSError, match="cannot write the file") as error:
    write_json(path, {"state": "x" * 100_000})
  assert str(path) in str(error.value)
  assert read_json(path) == {"state": "running"}
  assert [file.name for file in tmp_path.iterdir()] == ["status.json"]


def test_write_json_holds_arrays_and_no_nan(tmp_path):
  row = {"loss": float("nan"), "score": np.float32(2), "at": (np.inf, np.arange(2))}
  write_json(tmp_path / "a.json", row)
  strict = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
  assert strict == {"loss": None, "score": 2.0, "at": [None, [0, 1]]}


def test_read_json_names_the_damaged_file(tmp_path):
  path = tmp_path / "result.json"
  path.write_text('{"id": "a", "sco')
  with pytest.raises(FileError, match=r"result\.json is not readable JSON .*column"):
    read_json(path)


class OneOfTwo(hosts.ProcessGroup):
  """Process 1 of two; process 0 cannot write its part of a checkpoint while `full`."""

  index, names, full = 1, ("process 0", "process 1"), True

  def exchange(self, label, value, error=None):
    if label == "whether a checkpoint is written":
      return [[False, self.full], value]
    if self.full and label == "a written checkpoint":
      raise hosts.HostError("process 0: No space left on device")
    return [self.there() if label == "the steps on disk" else value, value]


class WaitsForEver:
  """A manager whose save waits for a folder that process 0 could not make."""

  def __init__(self):
    self.ended, self.waited = threading.Event(), []

  def is_saving_in_progress(self):
    return True

  def save(self, step, **_):
    pass

  def wait_until_finished(self):
    self.waited.append(self.ended.wait(10))

  close = wait_until_finished


def test_a_save_that_another_process_gave_up_is_not_waited_for(
  saved, monkeypatch, request
):
  keeper = Keeper(saved)
  group, real, stuck = OneOfTwo(), keeper._manager, WaitsForEver()
  group.there = keeper._on_disk
  request.addfinalizer(lambda: hosts.use(hosts.ProcessGroup()))
  hosts.use(group)
  monkeypatch.setattr(checkpoint, "GRACE", 0.1)
  keeper._manager = stuck
  keeper.save(30, tiny(30), {})
  keeper.poll()
  assert "process 0: No space left on device" in keeper._lost and not stuck.waited
  real.close()
  group.full = False  # there is space again; a manager of its own saves
  keeper.save(30, tiny(30), {})
  keeper.close()
  assert keeper.steps() == [20, 30]
  stuck.ended.set()


def test_no_two_managers_of_a_process_meet_at_one_place(tmp_path, monkeypatch):
  """Else step 10 of a second run has been met already, and is not waited for."""
  options, made = checkpoint.ocp.AsyncOptions, []

  def noted(barrier_sync_fn):
    made.append(barrier_sync_fn.args[0])
    return options(barrier_sync_fn=barrier_sync_fn)

  monkeypatch.setattr(checkpoint.ocp, "AsyncOptions", noted)
  for name in "ab":
    with Keeper(tmp_path / name) as keeper:
      keeper._reopen()
  assert len({*made}) == len(made) == 4
