"""Compiled programs on disk: damage is compiled again and replaced, without a word."""

import jax
import numpy as np
import pytest
import shared_programs

from experiments.runner import compile_cache, timing
from experiments.runner.compile_cache import programs_in
from transformer_jax import compiler_options


def double(x):
  return x * 2 + 1


def square(x):
  return x * x + 1


@pytest.fixture
def compiled(tmp_path, monkeypatch):
  """Runs functions as a new process would; returns (values, hits of the cache)."""
  hits = []
  listen = lambda event, **_: hits.append(event.endswith("/cache_hits"))
  jax.monitoring.register_event_listener(listen)
  monkeypatch.setattr(compile_cache, "_file_cache", shared_programs.ALONE)
  least = "jax_persistent_cache_min_compile_time_secs"
  monkeypatch.setitem(compile_cache.SETTINGS, least, 0.0)

  def run(folder=tmp_path / "compiled"):
    hits.clear()
    jax.clear_caches()
    with programs_in(folder):
      found = [jax.jit(function)(np.float32(3)) for function in (double, square)]
      values = [float(x) for x in found]
    return values, sum(hits)

  yield run
  jax.monitoring.unregister_event_listener(listen)


def entries(folder):
  return sorted(folder.glob("*-cache"))


def exchange(files):
  a, b = files[0].read_bytes(), files[1].read_bytes()
  files[0].write_bytes(b)
  files[1].write_bytes(a)


def each(change):
  return lambda files: [change(file) for file in files]


def flip(file):
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)


DAMAGE = {
  "empty": each(lambda file: file.write_bytes(b"")),
  "cut": each(lambda file: file.write_bytes(file.read_bytes()[:-9])),
  "garbage": each(lambda file: file.write_bytes(bytes(range(200)))),
  "a flipped bit": each(flip),
  "a folder": each(lambda file: (file.unlink(), file.mkdir())),
  "exchanged": exchange,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_program_is_compiled_again_and_replaced(tmp_path, compiled, kind):
  right = compiled()
  assert right[0] == [7.0, 10.0] and right[1] == 0
  assert compiled() == ([7.0, 10.0], 2)
  files = entries(tmp_path / "compiled")
  assert len(files) == 2
  DAMAGE[kind](files)
  assert compiled() == ([7.0, 10.0], 0)  # a warning would be an error here
  assert compiled() == ([7.0, 10.0], 2)


def test_a_moved_folder_is_used(tmp_path, compiled):
  compiled(tmp_path / "here")
  (tmp_path / "here").rename(tmp_path / "there")
  assert compiled(tmp_path / "there") == ([7.0, 10.0], 2)


def test_a_full_disk_or_no_folder_costs_only_time(tmp_path, compiled, monkeypatch):
  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr("experiments.runner.compile_cache.replace_file", full)
  assert compiled() == ([7.0, 10.0], 0) == compiled()
  monkeypatch.setattr("experiments.runner.compile_cache.make_folder", full)
  assert compiled()[0] == [7.0, 10.0]


def test_another_jax_costs_only_time(tmp_path, compiled, monkeypatch, capsys):
  monkeypatch.setattr(compile_cache, "compilation_cache", None)
  values = [7.0, 10.0]
  assert compiled()[0] == compiled()[0] == values
  assert "compiled programs are not cached: jax" in capsys.readouterr().err
  assert not entries(tmp_path / "compiled")


def test_a_file_in_the_place_of_the_folder_is_kept_aside(tmp_path, compiled, capsys):
  (tmp_path / "compiled").write_text("no folder")
  assert compiled() == ([7.0, 10.0], 0) and compiled()[1] == 2
  assert (tmp_path / "compiled.damaged").read_text() == "no folder"


class Clocks:
  """A monotonic clock, and one on the wall that somebody sets."""

  def __init__(self):
    self.now, self.set = 100.0, 1e9

  def perf_counter(self):
    return self.now

  def time(self):
    return self.now + self.set


@pytest.mark.parametrize("step", [0, 3600, -3600, -7, 7])
@pytest.mark.parametrize("when", ["compiling", "training"])
def test_a_clock_that_is_set_does_not_change_where_time_went(monkeypatch, step, when):
  clocks = Clocks()
  monkeypatch.setattr(timing, "time", clocks)
  spans, clock = made = [], timing.Clock()
  monkeypatch.setattr(timing, "_compiled", lambda: made)
  watch = timing.Stopwatch()
  with watch.phase("train"):
    clocks.now += 5
    clock.now()  # JAX says that it begins
    began = clocks.time()
    clocks.now += 10
    clocks.set += step if when == "compiling" else 0
    clocks.now += 10
    spans.append(clock.span(clocks.time() - began))
    clocks.now += 30
    clocks.set += step if when == "training" else 0
    clocks.now += 30
  assert watch.seconds == pytest.approx({"compile": 20, "train": 65})


def test_a_program_of_few_calls_leaves_out_options_that_this_compiler_lacks(
  monkeypatch,
):
  lacking = {"xla_of_another_version": True}
  monkeypatch.setattr(compiler_options, "QUICKLY", compiler_options.QUICKLY | lacking)
  options = compiler_options.of_few_calls()
  assert options["xla_backend_optimization_level"] == 0
  assert not options.keys() & lacking.keys()
  double = jax.jit(lambda x: 2 * x, compiler_options=options)
  assert double(3) == 6
