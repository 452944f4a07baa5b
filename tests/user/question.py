"""Which of my encodings reads further? A user's config file, sized for a test.

Tests set TRAP to "STEP SIGNAL" or "STEP full": right after that step was recorded, the
process gets the signal, or a disk that takes no more bytes. Nothing waits for time.
They set UNDRAWN where figures need not be rendered.
"""

import os
import resource
import signal

from experiments.configs import base
from experiments.runner import run_folder
from experiments.setup.plan import Chain, Grid, Group, Plan

ENCODINGS = ("none", "learned", "my_spiral:Spiral(turns=3)")


def get_config():
  config = base.get_config()
  config.task = "text(source='text', window=32, scored=8)"
  config.seeds = (0, 1)
  config.model.update(width=16, layers=1, heads=2, feedforward=32)
  config.train.update(length=8, batch_size=4, steps=64, steps_per_dispatch=8)
  config.train.update(checkpoint_every=32, schedule="constant(warmup=8)")
  config.evaluate.update(lengths=(1, 2, 4), examples=8, batch_size=8)
  return config


def sweep():
  encodings = Grid({"model.position": ENCODINGS})
  copy = Group("copy", encodings, {"task": "copy", "train.length": 4})
  parts = Chain(Group("text", encodings), copy)
  return Plan("Which of my encodings reads further?", parts, "none")


def quick() -> Plan:
  """The same question with two runs."""
  copy = Grid({"model.position": ("learned",)})
  parts = (
    Group("text", Grid({"model.position": ENCODINGS[2:]})),
    Group("copy", copy, {"task": "copy", "train.length": 4}),
  )
  return Plan("Which of my encodings reads further?", Chain(*parts), "learned")


def to_the_parent(step, number, path, record_step):
  """Signals the process of all workers, once, after a step of one of them."""

  def reached(at):
    record_step(at)
    once = path.parents[1] / "trapped"
    if at == step and not once.exists():
      once.touch()
      os.kill(os.getppid(), number)

  return reached


def trapped(step, name, record_step):
  def reached(at):
    record_step(at)
    if at == step and name == "full":
      resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    elif at == step:
      os.kill(os.getpid(), signal.Signals[name])

  return reached


if os.environ.get("UNDRAWN"):
  import pytest
  import undrawn

  undrawn.leave_out(pytest.MonkeyPatch())

if planned := os.environ.pop("TRAP", ""):  # popped: this file is read more than once
  signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
  step, name = planned.split()
  recorder = run_folder.recorder
  run_folder.recorder = lambda path: trapped(int(step), name, recorder(path))

if planned := os.environ.get("TRAP_PARENT", ""):  # workers inherit it
  signal.signal(signal.SIGINT, signal.default_int_handler)
  at, what = planned.split()
  record = run_folder.recorder
  run_folder.recorder = lambda path: to_the_parent(
    int(at), signal.Signals[what], path, record(path)
  )
