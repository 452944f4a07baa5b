"""Traces of chosen steps by jax.profiler: which steps, where, and no other numbers."""

import contextlib
import dataclasses
import gzip
import json
from typing import NamedTuple

import fake_runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.runner import profiling, sweep_loop
from experiments.setup import profiled_steps
from experiments.setup.validate import ConfigError
from transformer_jax.training.dispatch import Program
from transformer_jax.training.signals import Stop


class Counted(NamedTuple):
  """A state of two seeds."""

  step: jax.Array
  value: jax.Array


@pytest.fixture(scope="module")
def program():
  """Ten steps of a dispatch that multiplies."""

  def run(arrays, state, windows):
    value = jnp.tanh(state.value @ arrays)
    return Counted(state.step + 10, value), {"loss": value.mean((1, 2))}

  first = Counted(jnp.zeros(2, int), jnp.ones((2, 8, 8)))
  return Program(jax.jit(run), lambda: first, first, seconds=0.0, peak_bytes=0)


def train(program, start=0, stop=60):
  """Returns the last value after dispatches from a checkpoint's step on."""
  state = program.init()
  parts = [state._replace(step=state.step + start)]
  for _ in range(start, stop, 10):
    parts, _ = program.dispatch(jnp.eye(8), parts, [()])
  return np.asarray(parts[0].value)


def test_a_trace_is_written_and_no_number_changes(program, tmp_path, capsys):
  plain = train(program)
  with profiling.tracing(profiled_steps.parsed("25..41"), tmp_path):
    value = train(profiling.traced(program, per_dispatch=10))
  np.testing.assert_array_equal(value, plain)
  # Rounded to dispatches of ten steps.
  folder = tmp_path / "profile"
  said = capsys.readouterr().out
  assert said.startswith(f"trace of steps 21 to 50: {folder}\n  open it: pip install ")
  (trace,) = folder.glob("plugins/profile/*/*.xplane.pb")
  assert trace.stat().st_size > 1000
  (events,) = folder.glob("plugins/profile/*/*.trace.json.gz")
  with gzip.open(events) as file:
    named = [e for e in json.load(file)["traceEvents"] if e.get("name") == "dispatch"]
  assert [e["args"]["step_num"] for e in named] == ["30", "40", "50"]


@pytest.fixture
def calls(monkeypatch):
  """Notes when a trace begins and ends; none is written."""
  noted = []
  monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: noted.append("begin"))
  monkeypatch.setattr(jax.profiler, "stop_trace", lambda: noted.append("end"))
  return noted


@pytest.mark.parametrize(
  ("steps", "start", "done"),
  [
    ("1..1", 0, (1, 10)),
    ("60..60", 0, (51, 60)),
    ("25..40", 0, (21, 40)),
    ("25..41", 30, (31, 50)),  # a resumed run traces what is left
    ("55..900", 0, (51, 60)),  # it ends with the training
    ("5..9", 30, None),
  ],
)
def test_steps_are_rounded_to_dispatches(
  program, tmp_path, capsys, calls, steps, start, done
):
  with profiling.tracing(profiled_steps.parsed(steps), tmp_path):
    train(profiling.traced(program, per_dispatch=10), start)
  said = capsys.readouterr().out
  if done is None:
    assert calls == [] and said == f"no trace: steps {steps} were not trained now\n"
  else:
    assert calls == ["begin", "end"]
    assert said.startswith(f"trace of steps {done[0]} to {done[1]}: ")


def test_a_run_that_fails_ends_its_trace(program, tmp_path, calls):
  with (
    contextlib.suppress(RuntimeError),
    profiling.tracing(profiled_steps.parsed("5..99"), tmp_path),
  ):
    train(profiling.traced(program, per_dispatch=10))
    raise RuntimeError
  assert calls == ["begin", "end"]
  assert profiling.traced(program, per_dispatch=10) is program, "of that run alone"


def test_only_the_chosen_run_is_traced(tmp_path, monkeypatch, train):
  asked = []

  @contextlib.contextmanager
  def noted(steps, folder):
    asked.append((steps, folder.name))
    yield

  monkeypatch.setattr(profiling, "tracing", noted)
  todo = fake_runs.expand(fake_runs.POSITIONS)
  for text, chosen in (("rope:5..9", "rope"), ("5..9", "none")):
    asked.clear()
    steps = profiled_steps.parsed(text)
    request = dataclasses.replace(fake_runs.asked(tmp_path / text), profile=steps)
    loop = sweep_loop.SweepLoop(request, todo, Stop())
    assert {outcome.state for outcome in loop.outcomes()} == {"finished"}
    names = {run.id: run.label for run in todo}
    assert {names[i]: steps for steps, i in asked} == {
      label: steps if label == chosen else None for label in ("none", "rope")
    }


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("100", "--profile='100': write the first and the last step, as in"),
    ("9..3", "--profile=9..3: steps count from 1 and grow; write"),
    ("0..3", "--profile=0..3: steps count from 1"),
    ("rpoe:1..9", "--profile=rpoe:1..9: no run is called 'rpoe'. Did you mean"),
    ("rope:900..901", "--profile=rope:900..901: text rope has 400 steps; write for"),
  ],
)
def test_bad_steps_are_one_sentence(text, words):
  with pytest.raises(ConfigError) as caught:
    profiled_steps.parsed(text).check(fake_runs.expand(fake_runs.POSITIONS))
  assert str(caught.value).startswith(words) and "\n" not in str(caught.value)


def test_the_command_that_continues_has_the_profile_and_the_record_not(tmp_path):
  steps = profiled_steps.parsed("a:b(c=1):5..9")
  assert (steps.label, steps.first, steps.last) == ("a:b(c=1)", 5, 9)
  request = dataclasses.replace(fake_runs.asked(tmp_path), profile=steps)
  assert "'--profile=a:b(c=1):5..9'" in request.command("sweep", workdir=True)
  assert "--profile" not in request.command("sweep")
