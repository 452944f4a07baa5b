"""Metrics, progress and signals: what a person sees of a run, and what survives it."""

import contextlib
import errno
import io
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import rich.console
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from transformer_jax.training import metrics_log
from transformer_jax.training.json_files import FileError
from transformer_jax.training.metrics_log import MetricLog, read
from transformer_jax.training.progress import Progress
from transformer_jax.training.signals import stop_requested


def events(file):
  """Reads a TFRecord file and checks every checksum."""
  content, at = file.read_bytes(), 0
  while at < len(content):
    size, size_crc = struct.unpack_from("<QI", content, at)
    assert masked_crc32c(content[at : at + 8]) == size_crc
    data = content[at + 12 : at + 12 + size]
    (data_crc,) = struct.unpack_from("<I", content, at + 12 + size)
    assert masked_crc32c(data) == data_crc
    yield Event.FromString(data)
    at += size + 16


def board(folder):
  """Returns what TensorBoard shows of a run: START drops the steps from its own on."""
  shown = {}
  for file in sorted(folder.glob("events.out.tfevents.*")):
    first, *rest = events(file)
    assert first.file_version == "brain.Event:2"
    for event in rest:
      if event.HasField("session_log"):
        shown = {key: v for key, v in shown.items() if key[1] < event.step}
      for value in event.summary.value:
        assert (value.tag, event.step) not in shown, "a step is shown twice"
        shown[value.tag, event.step] = value.simple_value
  return shown


def test_rows_reach_both_files_at_once(tmp_path):
  with MetricLog(tmp_path) as metrics:
    metrics.write(40, seed=0, loss=np.float32(2.5), tokens_per_s=10, core="dense")
    metrics.write(40, seed=1, loss=3.5)
    metrics.write(40, rate=0.5)
    rows = read(tmp_path / "metrics.jsonl")  # before close: kill -9 loses nothing
    assert rows == [
      {"step": 40, "seed": 0, "loss": 2.5, "tokens_per_s": 10, "core": "dense"},
      {"step": 40, "seed": 1, "loss": 3.5},
      {"step": 40, "rate": 0.5},
    ]
    tensorboard = tmp_path / "tensorboard"
    assert board(tensorboard / "seed0") == {("loss", 40): 2.5, ("tokens_per_s", 40): 10}
    assert board(tensorboard / "seed1") == {("loss", 40): 3.5}
    assert board(tensorboard) == {("rate", 40): 0.5}


def test_not_finite_values_are_valid_json_and_come_back(tmp_path, caplog):
  with MetricLog(tmp_path) as metrics:
    metrics.write(1, seed=0, loss=float("nan"), grad_norm=-math.inf, rate=0.1)
  assert not caplog.records  # tensorboardX would warn of each
  text = (tmp_path / "metrics.jsonl").read_text()
  strict = json.loads(text, parse_constant=pytest.fail)
  assert strict["loss"] is None and strict["not_finite"]["loss"] == "nan"
  (row,) = read(tmp_path / "metrics.jsonl")
  assert math.isnan(row["loss"]) and row["grad_norm"] == -math.inf
  assert row.keys() == {"step", "seed", "loss", "grad_norm", "rate"}


def test_resuming_forgets_the_lost_steps_everywhere(tmp_path):
  with MetricLog(tmp_path) as metrics:
    for step in (10, 20, 30, 40):
      metrics.write(step, seed=0, loss=float(step))
  with MetricLog(tmp_path) as metrics:
    metrics.resume((10, 20), (0,))
    for step in (30, 40):
      metrics.write(step, seed=0, loss=float(-step))
  rows = [(row["step"], row["loss"]) for row in read(tmp_path / "metrics.jsonl")]
  assert rows == [(10, 10), (20, 20), (30, -30), (40, -40)]
  shown = board(tmp_path / "tensorboard" / "seed0")
  assert [(step, loss) for (_, step), loss in sorted(shown.items())] == rows
  with MetricLog(tmp_path) as metrics:
    metrics.resume((), (0,))
    assert read(tmp_path / "metrics.jsonl") == []


def test_half_a_last_line_is_dropped(tmp_path, capsys):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
  assert read(path) == [{"step": 1, "loss": 2.0}]
  assert capsys.readouterr().err == ""  # nobody's fault: nothing to say
  with MetricLog(tmp_path) as metrics:
    metrics.write(2, loss=1.0)
  assert read(path) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]


def test_a_damaged_line_is_named_and_left_out(tmp_path, capsys):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n{"st\x00p": 2\n{"step": 3}\n')
  assert [row["step"] for row in read(path)] == [1, 3]
  assert f"{path}:2 is not a row" in capsys.readouterr().err


SEEDS, STEPS = (0, 1), (10, 20, 30)


def flip(path, old, new):
  path.write_bytes(path.read_bytes().replace(old, new))


def lines_of(path, *numbers):
  """Leaves only those lines."""
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b"".join(lines[number] for number in numbers))


LOSSES = {
  "missing": lambda path: path.unlink(),
  "empty": lambda path: path.write_bytes(b""),
  "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
  "no middle": lambda path: lines_of(path, 0, 1, 4, 5),
  "garbage": lambda path: path.write_bytes(bytes(range(256)) * 3),
  "a list": lambda path: path.write_text("[]\n" * 6),
  "other types": lambda path: path.write_text('{"step": "10"}\n{"step": [1]}\n3\n'),
  "a folder": lambda path: (path.unlink(), path.mkdir()),
  "a flipped number": lambda path: flip(path, b"20.25", b"20.5"),
  "a flipped step": lambda path: flip(path, b'"step": 20', b'"step": 21'),
  "a flipped name": lambda path: flip(path, b"loss", b"lost"),
  "a flipped NaN": lambda path: flip(path, b'"nan"', b'"nao"'),
  "twice": lambda path: path.write_bytes(path.read_bytes() * 2),
}


def write_steps(folder):
  with MetricLog(folder) as metrics:
    for step in STEPS:
      for seed in SEEDS:
        rate = float("nan") if step == 30 else 0.5
        metrics.write(step, seed=seed, loss=np.float32(step + 0.25), rate=rate)
  return (folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("kind", LOSSES)
def test_damaged_rows_are_restored_from_tensorboard(tmp_path, capsys, kind):
  whole = write_steps(tmp_path)
  LOSSES[kind](tmp_path / "metrics.jsonl")
  with MetricLog(tmp_path) as metrics:
    assert metrics.resume(STEPS, SEEDS) == []
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
  said = capsys.readouterr().err
  assert ("restored from TensorBoard" in said) == (kind != "twice")
  with MetricLog(tmp_path) as metrics:
    assert metrics.resume(STEPS, SEEDS) == [] and capsys.readouterr().err == ""


def test_a_negative_nan_is_no_damage(tmp_path, capsys):
  nan = np.array(0xFFC00000, np.uint32).view(np.float32)
  with MetricLog(tmp_path) as metrics:
    metrics.write(10, seed=0, loss=nan, rate=np.float32(np.inf))
    assert metrics.mend((10,), (0,)) == [] and capsys.readouterr().err == ""


def test_rows_that_no_file_has_are_said(tmp_path, capsys):
  write_steps(tmp_path)
  lines_of(tmp_path / "metrics.jsonl", 0, 1, 4, 5)
  for file in (tmp_path / "tensorboard").rglob("events*"):
    file.write_bytes(file.read_bytes()[:90])
  with MetricLog(tmp_path) as metrics:
    assert metrics.resume(STEPS, SEEDS) == [20]
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and "step 20 is lost, in TensorBoard's copy too" in said


def test_rows_written_into_a_removed_file_are_not_lost(tmp_path):
  with MetricLog(tmp_path) as metrics:
    metrics.write(10, seed=0, loss=1.0)
    (tmp_path / "metrics.jsonl").unlink()
    metrics.write(20, seed=0, loss=2.0)
    assert metrics.mend((10, 20), (0,)) == []
  assert [row["loss"] for row in read(tmp_path / "metrics.jsonl")] == [1.0, 2.0]


def test_a_file_in_the_place_of_tensorboard_is_kept_aside(tmp_path):
  (tmp_path / "tensorboard").write_text("no folder")
  write_steps(tmp_path)
  assert board(tmp_path / "tensorboard" / "seed1")["loss", 20] == 20.25
  assert (tmp_path / "tensorboard.damaged").read_text() == "no folder"


def test_a_clock_that_is_set_back_hides_no_step(tmp_path, monkeypatch):
  with MetricLog(tmp_path) as metrics:
    metrics.write(10, seed=0, loss=1.0)
    metrics.write(20, seed=0, loss=2.0)
  monkeypatch.setattr(time, "time", lambda: 1e9)
  with MetricLog(tmp_path) as metrics:
    metrics.resume((10,), (0,))
    metrics.write(20, seed=0, loss=3.0)
  shown = {("loss", 10): 1.0, ("loss", 20): 3.0}
  assert board(tmp_path / "tensorboard" / "seed0") == shown


class Full(io.FileIO):
  """A file on a disk that takes five bytes and then none, until `full` is false."""

  full = True

  def write(self, content):
    if not Full.full:
      return super().write(content)
    if len(content) > 5:
      return super().write(content[:5])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_rows_wait_for_a_full_disk(tmp_path, capsys, monkeypatch):
  path = tmp_path / "a.jsonl"
  path.write_text('{"step": 1}\n')
  monkeypatch.setattr(
    metrics_log, "open", lambda *_, **__: Full(path, "ab"), raising=False
  )
  monkeypatch.setattr(Full, "full", True)
  file = metrics_log.Appender(path)
  file.append(b'{"step": 2}\n')
  file.append(b'{"step": 3}\n')
  assert path.read_text() == '{"step": 1}\n'
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and str(path) in said and "No space left" in said
  Full.full = False
  file.append(b'{"step": 4}\n')
  file.close()
  assert [row["step"] for row in read(path)] == [1, 2, 3, 4]


def test_close_raises_when_rows_never_got_through(tmp_path, monkeypatch):
  path = tmp_path / "a.jsonl"
  monkeypatch.setattr(
    metrics_log, "open", lambda *_, **__: Full(path, "ab"), raising=False
  )
  monkeypatch.setattr(Full, "full", True)
  file = metrics_log.Appender(path)
  file.append(b'{"step": 2}\n')
  with pytest.raises(FileError, match="free some space"):
    file.close()


def show_a_sweep(console, quiet=False):
  with Progress(2, "runs", console=console, quiet=quiet) as runs:
    for number, label in enumerate(("rope", "t5 [bidirectional]")):
      with Progress(400, label, under=runs) as bar:
        bar.update(40, loss=2.3104, tokens_per_s=145_234)
        bar.update(400, loss=2.1, tokens_per_s=145_234)
      runs.update(number + 1)


def test_progress_in_a_log_is_plain_lines():
  log = io.StringIO()
  show_a_sweep(rich.console.Console(file=log, width=60))
  lines = log.getvalue().splitlines()
  assert lines[0] == "rope  40/400  loss 2.310  145k tokens/s"
  assert lines[1] == "rope  400/400  loss 2.100  145k tokens/s  in 0 s"
  assert lines[3].startswith("t5 [bidirectional]  40/400")
  assert lines[-1].startswith("runs  2/2")
  assert "\x1b" not in log.getvalue()


def test_progress_can_be_quiet():
  log = io.StringIO()
  show_a_sweep(rich.console.Console(file=log, force_terminal=True), quiet=True)
  assert log.getvalue() == ""


def test_time_left_counts_from_where_the_run_resumed(monkeypatch):
  now = 0.0
  monkeypatch.setattr(time, "monotonic", lambda: now)
  log = io.StringIO()
  with Progress(400, "rope", start=200, console=rich.console.Console(file=log)) as bar:
    now = 60.0  # compiling is not part of the pace
    bar.update(240)
    now = 80.0
    bar.update(280)
  assert log.getvalue().splitlines() == [
    "rope  240/400",
    "rope  280/400  1 min 00 s left",
    "rope  stopped  280/400  in 1 min 20 s",
  ]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_terminal_is_left_as_it_was(error):
  screen = io.StringIO()
  console = rich.console.Console(
    file=screen, force_terminal=True, force_interactive=True, width=100, _environ={}
  )
  with pytest.raises(error) if error else contextlib.nullcontext():
    with Progress(2, "runs", console=console) as runs:
      with Progress(400, "rope", under=runs) as bar:
        bar.update(40, loss=2.3)
        assert cursor_is_visible(screen)  # so kill -9 leaves a usable terminal
        if error:
          raise error
  assert cursor_is_visible(screen)
  assert "rope  stopped  40/400  loss 2.300" in screen.getvalue()
  assert console._live_stack == []


def cursor_is_visible(screen):
  hidden = screen.getvalue().rfind("\x1b[?25l")
  assert hidden >= 0  # rich hid it, so the next line means something
  return screen.getvalue().rfind("\x1b[?25h") > hidden


def test_a_signal_sets_the_flag_and_handlers_come_back():
  before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  with stop_requested() as stop:
    assert not stop and stop.exit_code == 0
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop and stop.exit_code == 143
  assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_other_threads_have_no_handlers_and_no_error():
  flags = []

  def use():
    with stop_requested() as stop:
      flags.append(bool(stop))

  thread = threading.Thread(target=use)
  thread.start()
  thread.join()
  assert flags == [False]


LOOP = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
from transformer_jax.training.signals import stop_requested
with stop_requested() as stop:
  print("ready", flush=True)
  while not stop or sys.argv[1] == "deaf":
    time.sleep(0.01)
  print("saved", flush=True)
sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize(
  ("mode", "sent", "code"),
  [
    ("polite", [signal.SIGINT], 130),
    ("polite", [signal.SIGTERM], 143),
    ("deaf", [signal.SIGINT, signal.SIGINT], -signal.SIGINT),
    ("deaf", [signal.SIGINT, signal.SIGTERM], -signal.SIGTERM),
  ],
)
def test_the_first_signal_saves_and_the_second_aborts(mode, sent, code):
  child = subprocess.Popen(
    [sys.executable, "-c", LOOP, mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE
  )
  with child:
    try:
      assert child.stdout.readline() == b"ready\n"
      child.send_signal(sent[0])
      assert child.stderr.readline() == b"\n"
      assert b"saving after this dispatch" in child.stderr.readline()
      for number in sent[1:]:
        child.send_signal(number)
      assert child.wait(timeout=20) == code
    finally:
      child.kill()
    assert child.stdout.read() == (b"saved\n" if mode == "polite" else b"")
